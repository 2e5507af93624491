"""events of several requests → predictions, by the decoding, the features and the model of the stream."""

from collections.abc import Sequence
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.infra.serve.refusals import Unavailable
from headrace.infra.serve.servable import Servable
from headrace.models.errors import StoreUnavailable
from headrace.models.labels import Label
from headrace.models.scores import top
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


class EventClass(EventPrediction, frozen=True, kw_only=True):
    """The same of a label of several classes."""

    label: str
    probabilities: dict[str, float]


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
        if not scored.decoded.kept:
            return [answers[at] for at in range(len(events))]
        decoded, label = scored.decoded, self._label
        decisions, times = label.decisions(scored.scores), times_as_text(decoded.times)
        rows = zip(decoded.kept, decoded.ids, top(scored.scores).tolist(), decisions, times, strict=True)
        for place, (at, name, value, decision, time) in enumerate(rows):
            said = EventPrediction(
                id=name,
                prediction=value,
                decision=decision,
                pipeline=served.pipeline,
                version=served.version,
                event_time=time,
            )
            answers[at] = self._of_classes(said, scored.scores[place]) if label.classes else said
        return [answers[at] for at in range(len(events))]

    def _of_classes(self, said: EventPrediction, scores: NDArray[np.float64]) -> EventClass:
        classes = self._label.classes
        shares = dict(zip(classes, scores.tolist(), strict=True))
        return EventClass(**msgspec.structs.asdict(said), label=classes[int(np.argmax(scores))], probabilities=shares)
