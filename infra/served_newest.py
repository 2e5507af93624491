"""`<pipeline>.served` → its batches newest first, over all partitions; which of their rows are in a range."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.infra.merged import Item, Merged
from headrace.infra.seek import Seeker, Span
from headrace.models.errors import EventRejected
from headrace.streams.served import served_rows

_FIRST = 16  # batches: of up to 512 KB each
_MOST = 2_048  # of one partition at once; where little is served they have one row
_SLACK_MS = 3_600_000  # clocks differ


class Range:
    """Which served rows are wanted. Times are event times, Unix ms, the end not included."""

    def __init__(self, *, since: int | None = None, until: int | None = None, version: int | None = None) -> None:
        self.since, self.until, self.version = since, until, version

    def rows(self, batch: pa.RecordBatch) -> NDArray[np.bool_]:
        wanted = np.ones(batch.num_rows, np.bool_)
        if self.since is not None or self.until is not None:
            times = batch.column("event_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
            wanted &= (times >= self.since) if self.since is not None else True
            wanted &= (times < self.until) if self.until is not None else True
        if self.version is not None:
            found = pc.equal(batch.column("version"), self.version)
            wanted &= found.fill_null(False).to_numpy(zero_copy_only=False)
        return wanted


class NewestBatches:
    """Batches as they are asked for. `max_future_ms`: how far an event lies ahead of the clock that stamped its batch,
    at most; so what was written long before `since` has no row of the range."""

    def __init__(self, seeker: Seeker, spans: Mapping[int, Span], since: int | None, max_future_ms: int) -> None:
        self._merged: Merged[Any] = Merged(seeker, spans, _itself, first=_FIRST, most=_MOST)
        self._least_ms = None if since is None else since - max_future_ms - _SLACK_MS

    def __iter__(self) -> Iterator[tuple[Item[Any], pa.RecordBatch]]:
        for item in self._merged:
            if self._least_ms is not None and 0 <= item.written_ms < self._least_ms:
                self._merged.close_partition(item.partition)
                continue
            try:
                rows = served_rows(item.held)
            except EventRejected:  # not written by headrace
                continue
            yield item, rows

    @property
    def read_bytes(self) -> int:
        return self._merged.read_bytes

    def positions(self) -> dict[int, int]:
        """All batches from there on were given; 0 for a partition that has no more of the range."""
        return self._merged.positions()


def _itself(message: Any) -> Any:
    """Decoded only when its turn comes."""
    return message
