"""served rows → how far each column is from the champion's training rows, since the newest run."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.drift import SCORE, Distance, counts_of, distances
from headrace.models.manifest import Reference
from headrace.models.scores import top


class DriftWatch:
    """Counts rows in the reference's bins. `since` is by the batches' own append times, Unix ms, as a run's end is."""

    def __init__(self) -> None:
        self._reference: Reference | None = None
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._since = 0
        self.rows = 0

    def watch(self, reference: Reference | None) -> None:
        """Against another version's rows; None where it has no reference. Counts from nothing."""
        self._reference = reference
        self._start()

    def reset(self, since: int) -> None:
        self._since = since
        self._start()

    def add(self, batch: pa.RecordBatch, appended_ms: int, scores: NDArray[np.float64] | None = None) -> None:
        """A served batch. A column that it lacks, because it is older than its declaration, says nothing. `scores` are
        the watched version's, where another one served these rows."""
        if self._reference is None or appended_ms <= self._since:
            return
        self.rows += batch.num_rows
        there = set(batch.schema.names)
        for name, column in self._reference.columns.items():
            if name not in there:
                continue
            values = batch.column(name) if scores is None or name != SCORE else pa.array(top(scores))
            array = (
                np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
                if column.kind == "number"
                else np.array(values.to_pylist(), object)
            )
            self._counts[name] += counts_of(column, array)

    def distances(self) -> Sequence[Distance]:
        """Of the columns that have moved for sure, farthest first."""
        return [] if self._reference is None else distances(self._reference, self._counts)

    def _start(self) -> None:
        columns = {} if self._reference is None else self._reference.columns
        self._counts = {name: np.zeros(len(column.counts), np.int64) for name, column in columns.items()}
        self.rows = 0
