"""served rows + labels → joined rows, as they come: what live metrics, triggers and rollback look at.

In memory, rebuilt after a restart by reading both topics back over the horizon. The dataset is joined by the trainer
from the log, by the same rule: a label matches rows with row time ≤ its time ≤ row time + within, and the first wins.
"""

import heapq
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.models.labels import Label
from headrace.streams.codec import LabelRow

_OPEN_LIMIT = 5_000_000  # rows that wait for a label: beyond it, lower `sample`
_WHOLE = 1 << 32  # the range of crc32


@dataclass(frozen=True, slots=True)
class Joined:
    id: str
    time: int  # of the event, Unix ms
    label_time: int
    score: float
    label: float
    version: int
    source: tuple[int, int]  # partition, offset


@dataclass(slots=True)
class _Served:
    time: int
    score: float
    version: int
    source: tuple[int, int]
    joined: bool = False


class LiveJoin:
    """`sample` is the share of ids that are looked at, by hash: the same ids in both topics."""

    def __init__(self, label: Label, sample: float = 1.0) -> None:
        self._within = label.within_ms
        self._absent = None if label.if_absent == "drop" or label.if_absent is None else float(label.if_absent)
        self._sample = sample
        self._served: dict[str, list[_Served]] = {}
        self._early: dict[str, LabelRow] = {}  # labels whose row is not read yet
        self._closing: list[tuple[int, str]] = []  # heap of (end of the horizon, id)
        self._label_watermark = 0
        self.joined = self.never_came = self.repeated = self.late = 0

    @property
    def open(self) -> int:
        """Rows whose label may still come."""
        return sum(not row.joined for rows in self._served.values() for row in rows)

    @property
    def unknown(self) -> int:
        """Labels without a served row so far."""
        return len(self._early)

    def served(self, batch: pa.RecordBatch) -> list[Joined]:
        """Takes a served batch; gives rows whose label was there first. A row that came twice counts once."""
        found: list[Joined] = []
        times = batch.column("event_time").cast(pa.int64()).to_pylist()
        partitions, offsets = batch.column("partition").to_pylist(), batch.column("offset").to_pylist()
        scores, versions = batch.column("score").to_pylist(), batch.column("version").to_pylist()
        for at, row_id in enumerate(batch.column("id").to_pylist()):
            if not self._sampled(row_id):
                continue
            row = _Served(times[at], scores[at], versions[at], (partitions[at], offsets[at]))
            rows = self._served.setdefault(row_id, [])
            if any(other.source == row.source for other in rows):
                continue
            rows.append(row)
            heapq.heappush(self._closing, (row.time + self._within, row_id))
            if row_id in self._early:
                found += self._match(self._early[row_id], rows)
        while len(self._closing) > _OPEN_LIMIT:
            self._close(heapq.heappop(self._closing), [])
        return found

    def labels(self, rows: Sequence[LabelRow]) -> list[Joined]:
        """Takes labels; gives what they complete, and rows whose horizon closed without one where silence counts."""
        found: list[Joined] = []
        for label in rows:
            if not self._sampled(label.id):
                continue
            self._label_watermark = max(self._label_watermark, label.time)
            served = self._served.get(label.id)
            if served:
                found += self._match(label, served)
            elif label.id not in self._early or label.time < self._early[label.id].time:
                self._early[label.id] = label
        while self._closing and self._closing[0][0] < self._label_watermark:
            self._close(heapq.heappop(self._closing), found)
        return found

    def _match(self, label: LabelRow, rows: list[_Served]) -> list[Joined]:
        found = []
        for row in rows:
            if not row.time <= label.time <= row.time + self._within:
                self.late += label.time > row.time + self._within
            elif row.joined:
                self.repeated += 1
            else:
                row.joined = True
                self._early.pop(label.id, None)
                found.append(Joined(label.id, row.time, label.time, row.score, label.value, row.version, row.source))
        self.joined += len(found)
        return found

    def _close(self, due: tuple[int, str], found: list[Joined]) -> None:
        end, row_id = due
        rows = self._served.get(row_id, [])
        for row in [row for row in rows if row.time + self._within <= end]:
            rows.remove(row)
            if row.joined:
                continue
            if self._absent is None:
                self.never_came += 1
            else:
                self.joined += 1
                found.append(Joined(row_id, row.time, end, row.score, self._absent, row.version, row.source))
        if not rows:
            self._served.pop(row_id, None)

    def _sampled(self, row_id: str) -> bool:
        return self._sample >= 1 or zlib.crc32(row_id.encode()) < self._sample * _WHOLE
