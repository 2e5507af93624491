"""rows of a file → predictions by any version, through the decoding and the features of the stream. On no topic."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.infra.names import Names
from headrace.infra.services.scores.row_model import row_model, row_store
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.services.versions.resolve import resolve
from headrace.infra.settings import Settings
from headrace.models.aliases import CHAMPION
from headrace.models.scores import top
from headrace.streams.codec import clock_ms
from headrace.streams.infer import score
from headrace.streams.predictions import times_as_text

_ROWS = 1_000  # scored together


class RowPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `<pipeline>.predictions`, with the row it came from instead of an offset."""

    row: int  # from 1, blank lines not counted
    id: str
    prediction: float
    decision: bool | None
    pipeline: str
    version: int
    event_time: str


class RowClass(RowPrediction, frozen=True, kw_only=True):
    """The same of a label of several classes."""

    label: str
    probabilities: dict[str, float]


class RowRejected(msgspec.Struct, frozen=True, kw_only=True):
    """What would be a dead letter."""

    row: int
    reason: str
    detail: str


class Predictor:
    """One version of a pipeline. Features that live in Redis are read there, as of each row's event time."""

    def __init__(self, settings: Settings, names: Names, version: str = CHAMPION) -> None:
        """`version` is a number or an alias. Raises BadInput, RegistryRefused, ServerMissing."""
        versions = known_versions(settings, names)
        self.version = resolve(versions, version)
        self._pipeline = names.pipeline
        rows = msgspec.structs.replace(names.pipeline.events, format="json")  # of a file, whatever the topic carries
        self._model = row_model(settings, names, versions, self.version, rows)
        self._store = row_store(settings, names)
        self.rejected: Counter[str] = Counter()

    def predict(self, rows: Iterable[bytes]) -> Iterator[RowPrediction | RowRejected]:
        """In the order of the rows; in memory are a thousand of them."""
        rest, first = iter(rows), 1
        while chunk := list(islice(rest, _ROWS)):
            yield from sorted(self._of(chunk, first), key=lambda one: one.row)
            first += len(chunk)

    def _of(self, chunk: Sequence[bytes], first: int) -> Iterator[RowPrediction | RowRejected]:
        scored = score(self._model, self._store, chunk, clock_ms())
        decoded = scored.decoded
        for at, error in decoded.rejected:
            self.rejected[error.reason] += 1
            yield RowRejected(row=first + at, reason=error.reason, detail=error.detail)
        if not decoded.kept:
            return
        label, times = self._pipeline.label, times_as_text(np.asarray(decoded.times))
        answers = zip(decoded.kept, decoded.ids, top(scored.scores).tolist(), times, strict=True)
        decisions = label.decisions(scored.scores)
        for place, (at, row_id, value, time) in enumerate(answers):
            said = RowPrediction(
                row=first + at,
                id=row_id,
                prediction=value,
                decision=decisions[place],
                pipeline=self._pipeline.name,
                version=self.version,
                event_time=time,
            )
            yield self._of_classes(said, scored.scores[place]) if label.classes else said

    def _of_classes(self, said: RowPrediction, scores: NDArray[np.float64]) -> RowClass:
        classes = self._pipeline.label.classes
        shares = dict(zip(classes, scores.tolist(), strict=True))
        return RowClass(**msgspec.structs.asdict(said), label=classes[int(np.argmax(scores))], probabilities=shares)
