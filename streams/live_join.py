"""served rows + labels → joined rows, as they come: what live metrics, triggers and rollback look at.

In memory, rebuilt after a restart by reading both topics back over the horizon. The dataset is joined by the trainer
from the log, by the same rule: a label matches rows with row time ≤ its time ≤ row time + within, and the first wins.
"""

import heapq
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.labels import Label
from headrace.models.scores import finite
from headrace.streams.codec import LabelRow
from headrace.streams.served import scores_of

_OPEN_LIMIT = 5_000_000  # rows that wait for a label: beyond it, lower `sample`
_WHOLE = 1 << 32  # the range of crc32


@dataclass(frozen=True, slots=True)
class Joined:
    id: str
    time: int  # of the event, Unix ms
    label_time: int
    score: float | list[float]  # a list of several classes' probabilities
    label: float
    version: int
    source: tuple[int, int]  # partition, offset
    appended: int = 0  # when the row was served, by its record's timestamp, Unix ms
    others: tuple[
        tuple[int, float | list[float]], ...
    ] = ()  # version, score: of those that scored it beside who served it
    segments: tuple[str | None, ...] = ()  # the row's values of `Pipeline.segments`

    def score_of(self, version: int) -> float | list[float] | None:
        """None where that version has not scored it."""
        return self.score if version == self.version else dict(self.others).get(version)


@dataclass(slots=True)
class _Served:
    time: int
    score: float | list[float]
    version: int
    source: tuple[int, int]
    appended: int
    others: tuple[tuple[int, float | list[float]], ...]
    segments: tuple[str | None, ...]
    joined: bool = False


class LiveJoin:
    """`sample` is the share of ids that are looked at, by hash: the same ids in both topics.

    Once a row is joined, a label with an earlier time that comes after it changes nothing: it was reported. Rows and
    labels are forgotten when the other side's newest time has passed their horizon.

    An event that is asked for on demand and served by the stream, or asked for again, counts once: by event time as it
    was first, at one time as the stream served it. What was joined before that stays.
    """

    def __init__(self, label: Label, sample: float = 1.0, segments: Sequence[str] = ()) -> None:
        self._segments = segments
        self._within = label.within_ms
        self._absent = label.absent
        self._sample = sample
        self._rows: dict[str, list[_Served]] = {}
        self._labels: dict[str, list[LabelRow]] = {}
        self._closing: list[tuple[int, str]] = []  # heap of (end of a row's horizon, id)
        self._fading: list[tuple[int, str]] = []  # heap of (when no row that a label could match is to come, id)
        self._served_watermark = self._label_watermark = 0
        self.open = 0  # rows whose label may still come
        self.joined = self.never_came = self.repeated = self.late = self.asked_again = 0

    @property
    def unknown(self) -> int:
        """Ids with labels, and without a served row so far."""
        return len(self._labels.keys() - self._rows.keys())

    @property
    def counts(self) -> dict[str, int]:
        """What became of rows and labels so far."""
        names = ("joined", "open", "never_came", "late", "repeated", "unknown", "asked_again")
        return {name: getattr(self, name) for name in names}

    def served(
        self, batch: pa.RecordBatch, appended: int = 0, others: Mapping[int, NDArray[np.float64]] | None = None
    ) -> list[Joined]:
        """Takes a served batch; gives rows whose label was there first. A row that came twice counts once.

        `others` are scores [n] of the same rows by other versions, NaN where one has no answer.
        """
        found: list[Joined] = []
        beside = [(version, theirs.tolist(), finite(theirs).tolist()) for version, theirs in (others or {}).items()]
        segments = [_texts(batch, name) for name in self._segments]
        times = batch.column("event_time").cast(pa.int64()).to_pylist()
        partitions, offsets = batch.column("partition").to_pylist(), batch.column("offset").to_pylist()
        scores, versions = scores_of(batch).tolist(), batch.column("version").to_pylist()
        for at, row_id in enumerate(batch.column("id").to_pylist()):
            if not self._sampled(row_id):
                continue
            row = _Served(
                times[at],
                scores[at],
                versions[at],
                (partitions[at], offsets[at]),
                appended,
                tuple((version, theirs[at]) for version, theirs, known in beside if known[at]),
                tuple(values[at] for values in segments),
            )
            rows = self._rows.setdefault(row_id, [])
            if any(other.source == row.source for other in rows) or not self._counts(row, rows):
                continue
            rows.append(row)
            self.open += 1
            self._served_watermark = max(self._served_watermark, row.time)
            heapq.heappush(self._closing, (row.time + self._within, row_id))
            if matching := [label for label in self._labels.get(row_id, ()) if self._matches(row, label)]:
                found.append(self._join(row_id, row, min(matching, key=lambda label: label.time)))
        while self._fading and self._fading[0][0] < self._served_watermark:
            self._fade(*heapq.heappop(self._fading))
        while len(self._closing) > _OPEN_LIMIT:
            self._close(*heapq.heappop(self._closing), [])
        return found

    def labels(self, rows: Sequence[LabelRow]) -> list[Joined]:
        """Takes labels; gives what they complete, and rows whose horizon closed without one where silence counts."""
        found: list[Joined] = []
        for label in rows:
            if not self._sampled(label.id):
                continue
            self._label_watermark = max(self._label_watermark, label.time)
            self._labels.setdefault(label.id, []).append(label)
            heapq.heappush(self._fading, (label.time + self._within, label.id))
            for row in self._rows.get(label.id, ()):
                if row.joined:
                    self.repeated += 1
                elif self._matches(row, label):
                    found.append(self._join(label.id, row, label))
                else:
                    self.late += label.time > row.time
        while self._closing and self._closing[0][0] < self._label_watermark:
            self._close(*heapq.heappop(self._closing), found)
        return found

    def _counts(self, row: _Served, others: list[_Served]) -> bool:
        """Beside the others of its id, or instead of them."""
        asked = row.source[0] < 0
        beside = others[:] if asked else [other for other in others if other.source[0] < 0]
        if not beside:
            return True
        self.asked_again += 1
        if any(other.joined or other.time < row.time or (asked and other.time == row.time) for other in beside):
            return False
        for other in beside:
            others.remove(other)
            self.open -= 1
        return True

    def _matches(self, row: _Served, label: LabelRow) -> bool:
        return row.time <= label.time <= row.time + self._within

    def _join(self, row_id: str, row: _Served, label: LabelRow) -> Joined:
        row.joined = True
        self.joined += 1
        self.open -= 1
        return Joined(
            row_id,
            row.time,
            label.time,
            row.score,
            label.value,
            row.version,
            row.source,
            row.appended,
            row.others,
            row.segments,
        )

    def _close(self, end: int, row_id: str, found: list[Joined]) -> None:
        rows = self._rows.get(row_id, [])
        for row in [row for row in rows if row.time + self._within <= end]:
            rows.remove(row)
            if row.joined:
                continue
            if self._absent is None:
                self.open -= 1
                self.never_came += 1
            else:
                found.append(self._join(row_id, row, LabelRow(row_id, end, self._absent)))
        if not rows:
            self._rows.pop(row_id, None)

    def _fade(self, end: int, row_id: str) -> None:
        labels = [label for label in self._labels.get(row_id, ()) if label.time + self._within > end]
        if labels:
            self._labels[row_id] = labels
        else:
            self._labels.pop(row_id, None)

    def _sampled(self, row_id: str) -> bool:
        return self._sample >= 1 or zlib.crc32(row_id.encode()) < self._sample * _WHOLE


def _texts(batch: pa.RecordBatch, name: str) -> list[str | None]:
    """A column that rows older than its declaration have not."""
    at = batch.schema.get_field_index(name)
    return [None] * batch.num_rows if at < 0 else batch.column(at).to_pylist()
