"""events of several requests → predictions, by the decoding, the features and the model of the stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.serve.refusals import Unavailable
from headrace.infra.serve.servable import Servable
from headrace.models.errors import StoreUnavailable
from headrace.models.labels import Label
from headrace.models.scores import top
from headrace.streams.codec import clock_ms
from headrace.streams.infer import Scored, score
from headrace.streams.predictions import times_as_text
from headrace.streams.rings import FeatureStore
from headrace.streams.served import ON_DEMAND, served_batch


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


@dataclass(frozen=True, slots=True)
class Answered:
    """One request's events."""

    told: list[Told]
    served: Any = None  # pyarrow.RecordBatch of those that were predicted, as they were served; where it is asked for
    served_bytes: int = 0


class EventScorer:
    """For one thread. Looked-up features and aggregates are read as of each event's own time.

    `rows`: with each request's served rows, for whoever logs them.
    """

    def __init__(self, label: Label, store: FeatureStore | None, *, rows: bool = False) -> None:
        self._label, self._store, self._rows = label, store, rows

    def __call__(self, served: Servable, requests: Sequence[Sequence[bytes]]) -> list[Answered]:
        events = list(chain.from_iterable(requests))
        try:
            scored = score(served.model, self._store, events, clock_ms())
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error
        answers = self._answers(served, scored, len(events))
        bounds = list(pairwise(accumulate([len(request) for request in requests], initial=0)))
        if not self._rows or not scored.decoded.kept:
            return [Answered(answers[first:end]) for first, end in bounds]
        rows, kept = _rows_of(scored), np.array(scored.decoded.kept)
        # of all of them, shared out: `nbytes` of a part goes through its columns, 60 µs for 30 of them
        each = rows.get_total_buffer_size() / rows.num_rows
        parts = [np.searchsorted(kept, bound).tolist() for bound in bounds]  # of the rows, by place among the good
        return [
            Answered(answers[first:end], rows.slice(begin, over - begin), round(each * (over - begin)))
            if over > begin
            else Answered(answers[first:end])
            for (first, end), (begin, over) in zip(bounds, parts, strict=True)
        ]

    def _answers(self, served: Servable, scored: Scored, events: int) -> list[Told]:
        answers: dict[int, Told] = {
            at: EventRefused(error=error.detail, reason=error.reason) for at, error in scored.decoded.rejected
        }
        if not scored.decoded.kept:
            return [answers[at] for at in range(events)]
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
        return [answers[at] for at in range(events)]

    def _of_classes(self, said: EventPrediction, scores: NDArray[np.float64]) -> EventClass:
        classes = self._label.classes
        shares = dict(zip(classes, scores.tolist(), strict=True))
        return EventClass(**msgspec.structs.asdict(said), label=classes[int(np.argmax(scores))], probabilities=shares)


def _rows_of(scored: Scored) -> pa.RecordBatch:
    """What `<pipeline>.served` is to have of them."""
    return served_batch(
        scored.model.schema,
        ids=scored.decoded.ids,
        times=scored.decoded.times,
        partition=ON_DEMAND,
        offsets=np.zeros(len(scored.scores), np.int64),
        version=scored.model.version,
        scores=scored.scores,
        columns=scored.columns,
    )
