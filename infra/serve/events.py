"""events of several requests → predictions, by the decoding, the features and the model of the stream."""

from collections.abc import Sequence
from itertools import chain

import msgspec

from headrace.infra.serve.refusals import Unavailable
from headrace.infra.serve.servable import Servable
from headrace.models.errors import StoreUnavailable
from headrace.models.labels import Label
from headrace.streams.codec import clock_ms
from headrace.streams.infer import score
from headrace.streams.predictions import times_as_text
from headrace.streams.rings import FeatureStore


class EventPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `<pipeline>.predictions`, without a source: the event is on no topic."""

    id: str
    prediction: float
    decision: bool | None
    pipeline: str
    version: int
    event_time: str


class EventRefused(msgspec.Struct, frozen=True, kw_only=True):
    """What would be a dead letter on the stream."""

    error: str
    reason: str


Told = EventPrediction | EventRefused


class EventScorer:
    """For one thread. Looked-up features and aggregates are read as of each event's own time."""

    def __init__(self, label: Label, store: FeatureStore | None) -> None:
        self._label, self._store = label, store

    def __call__(self, served: Servable, requests: Sequence[Sequence[bytes]]) -> list[list[Told]]:
        try:
            answers = self._answers(served, list(chain.from_iterable(requests)))
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error
        taken = iter(answers)
        return [[next(taken) for _ in request] for request in requests]

    def _answers(self, served: Servable, events: list[bytes]) -> list[Told]:
        scored = score(served.model, self._store, events, clock_ms())
        answers: dict[int, Told] = {
            at: EventRefused(error=error.detail, reason=error.reason) for at, error in scored.decoded.rejected
        }
        if scored.decoded.kept:
            decoded, decisions = scored.decoded, self._label.decisions(scored.scores)
            times = times_as_text(decoded.times)
            for at, name, value, decision, time in zip(
                decoded.kept, decoded.ids, scored.scores.tolist(), decisions, times, strict=True
            ):
                answers[at] = EventPrediction(
                    id=name,
                    prediction=value,
                    decision=decision,
                    pipeline=served.pipeline,
                    version=served.version,
                    event_time=time,
                )
        return [answers[at] for at in range(len(events))]
