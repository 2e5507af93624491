"""the file of a past → what a training sees as of any moment in it: a cut, at the price of a copy.

The same rows, labels and order that `ready_dataset` gives as of then.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.trainer.choice import ANCHOR, KEPT
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import DELAY, LABEL, Joined, Rules, choice_of
from headrace.trainer.matching import Counts
from headrace.trainer.order import places_of
from headrace.trainer.past_file import CAME, LABEL_TIME, NEVER, SEEN
from headrace.trainer.snapshot import dataset_sha256
from headrace.trainer.spill import mapped

Int64s = NDArray[np.int64]
_BLOCK_MS = 86_400_000  # of event time, hashed at a time


@dataclass(frozen=True)
class LiveJoins:
    """Rows of a past with their labels, in the order in which they were joined live."""

    at: Int64s  # Unix ms, ascending
    rows: Int64s  # their places in the past
    labels: NDArray[np.float64]

    def between(self, since: int, until: int) -> slice:
        """Those that were joined after `since`, up to `until`, Unix ms."""
        return slice(*np.searchsorted(self.at, [since, until], "right").tolist())


class Past:
    """Rows by (event time, partition, offset). Mapped: any number of processes share its pages."""

    def __init__(self, file: Path) -> None:
        table = mapped(file)
        self.times: Int64s = as_numpy(table["event_time"].cast(pa.int64()))  # Unix ms
        self.labels: NDArray[np.float64] = as_numpy(table[LABEL])  # NaN where none came
        self.came: Int64s = as_numpy(table[CAME])  # since when the label is there; NEVER
        self._seen: Int64s = as_numpy(table[SEEN])
        self._label_times: Int64s = as_numpy(table[LABEL_TIME])
        self.rows: pa.Table = table.drop_columns([LABEL, CAME, SEEN, LABEL_TIME])  # as they were served

    def __len__(self) -> int:
        return len(self.times)

    def joined(self, **rules: Unpack[Rules]) -> Joined:
        """What `ready_dataset` gives. Columns that rows lack are not counted here."""
        at, within = rules["as_of_ms"], rules["within_ms"]
        first = int(np.searchsorted(self.times, at - rules["window_ms"]))
        part = slice(first, int(np.searchsorted(self.times, at, "right")))
        times, here, known = self.times[part], self._seen[part] <= at, self.came[part] <= at
        closed = times + within <= at
        used = here & (known if rules["if_absent"] == "drop" else closed)
        rows = self.rows.slice(first, part.stop - first).filter(pa.array(used))
        fill = np.nan if rules["if_absent"] == "drop" else float(rules["if_absent"])
        rows = rows.append_column(LABEL, pa.array(np.where(known, self.labels[part], fill)[used]))
        if rules.get("delays"):
            delays = np.where(known, self._label_times[part] - times, -1)
            rows = rows.append_column(DELAY, pa.array(delays[used]))
        counts = Counts(
            rows=int(here.sum()),
            joined=int((used & known).sum()),
            filled=int((used & ~known).sum()),
            open=int((here & ~known & ~closed).sum()),
            held_back=int((here & known & ~used).sum()),
            never_came=int((here & ~known & closed).sum()),
            same_id=len(rows) - pc.count_distinct(rows["id"]).as_py(),
        )
        anchor = None
        if choice := choice_of(rules):
            places = places_of(rows)
            choice.look(places)
            roles = choice.roles(places)
            anchor = rows.filter(pa.array(roles == ANCHOR)) if rules.get("anchor") else None
            rows = rows if (roles == KEPT).all() else rows.filter(pa.array(roles == KEPT))
            anchor = None if anchor is None else anchor.combine_chunks()
        # in one piece: a hash of rows is by blocks that begin with the table
        return Joined(rows.combine_chunks(), counts, {}, anchor=anchor)

    def live_joins(self, within_ms: int, if_absent: Literal["drop"] | float) -> "LiveJoins":
        """As the live join would have made them: with the label, or when silence became one."""
        came = self.came < NEVER
        moments, labels = np.where(came, self.came, self.times + within_ms), self.labels
        used = came if if_absent == "drop" else came | (self.times + within_ms <= self.times[-1])
        if if_absent != "drop":
            labels = np.where(came, labels, float(if_absent))
        moments = np.maximum(moments, self._seen)
        order = np.flatnonzero(used)[np.argsort(moments[used], kind="stable")]
        return LiveJoins(moments[order], order, labels[order])

    def sha256(self, at_ms: int, reach_ms: int | None) -> str:
        """Of all that a training as of then could depend on: whole days, so that rows that come later change nothing,
        but for labels of the last days."""
        first = 0 if reach_ms is None else (at_ms - reach_ms) // _BLOCK_MS
        days = [digest for day, digest in self._days if first <= day <= at_ms // _BLOCK_MS]
        return hashlib.sha256("".join(days).encode()).hexdigest()

    @cached_property
    def _days(self) -> list[tuple[int, str]]:
        found = []
        days = self.times // _BLOCK_MS
        begins = np.flatnonzero(np.diff(days, prepend=-1))
        for first, end in zip(begins.tolist(), [*begins[1:].tolist(), len(days)], strict=True):
            part = slice(first, end)
            digest = hashlib.sha256()
            for column in (self.labels, self.came, self._seen, self._label_times):
                digest.update(column[part].tobytes())
            rows = Joined(self.rows.slice(first, end - first).combine_chunks(), Counts(), {})
            digest.update(dataset_sha256(rows).encode())
            found.append((int(days[first]), digest.hexdigest()))
        return found
