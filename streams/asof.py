"""rings → feature columns, as of each event's time t: only rows in [t - reach, t), strictly before t.

Rows are put in the order (entity, time, values) before anything is read from them, and a window is reduced by itself,
never as a difference of running sums. So a result has the same bits in whatever order rows arrived, wherever the rings
were trimmed, and whichever other events and entities a chunk holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.features import Aggregate, Lookup, Statistic
from headrace.streams.rings import RingSpec, reach_ms

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


def columns_as_of(
    ring: RingSpec,
    features: Sequence[Lookup | Aggregate],
    rings: Sequence[bytes | None],
    entity: Places,
    times: NDArray[np.int64],
) -> dict[str, Floats]:
    """The columns of the features that read one family of rings, float64[n] with NaN for missing.

    `rings` has the family's bytes per distinct entity, `entity[n]` each event's place there (-1: it names none), as
    `rings.ring_keys` gives them; `times[n]` are the events' times in Unix ms.
    """
    reaches = [reach_ms(feature) for feature in features]
    known = [reach for reach in reaches if reach is not None]
    rows = _Rows(ring, rings, entity, times, max(known) if len(known) == len(reaches) else None)
    windows = {reach: rows.windows(reach) for reach in dict.fromkeys(reaches)}
    columns: dict[str, Floats] = {}
    for feature, reach in zip(features, reaches, strict=True):
        window = windows[reach]
        if isinstance(feature, Lookup):
            for column, field in zip(feature.columns, feature.fields, strict=True):
                columns[column.name] = window.last(ring.fields.index(field))
        else:
            columns[feature.columns[0].name] = window.statistic(feature.statistic)
    return columns


class _Rows:
    """The rows that these events may see, sorted, and where each event's end."""

    def __init__(
        self,
        ring: RingSpec,
        rings: Sequence[bytes | None],
        entity: Places,
        times: NDArray[np.int64],
        reach: int | None,  # ms, of the farthest reader
    ) -> None:
        words = np.frombuffer(b"".join([data for data in rings if data]), "<i8").reshape(-1, ring.width // 8)
        owners = np.repeat(np.arange(len(rings)), [len(data or b"") // ring.width for data in rings])
        when = words[:, 0]
        if len(times):
            seen = when < times.max()
            if reach is not None:
                seen &= when >= times.min() - reach
            words, owners, when = words[seen], owners[seen], when[seen]
        # (entity, time) as one number: no event time is before 1970 or after 9999, so 36,000 entities fit
        self._base = int(when.min(initial=0))
        self._span = int(when.max(initial=0)) - self._base + 2
        key, values = owners * self._span + (when - self._base), words[:, 1:].view("<f8") + 0.0  # -0.0 sorts as 0.0
        order = np.argsort(key, kind="stable")
        key = key[order]
        if (key[1:] == key[:-1]).any():
            order = np.lexsort((*values.T[::-1], owners * self._span + (when - self._base)))
        self._key, self._values = key, values[order]
        self._entity, self._times = entity * self._span, times
        self._ends = self._place(times)

    def windows(self, reach: int | None) -> "_Windows":
        starts = self._place(np.full_like(self._times, self._base) if reach is None else self._times - reach)
        return _Windows(self._values, starts, self._ends)

    def _place(self, times: NDArray[np.int64]) -> Places:
        """Of each event's entity, the first row that is not before the time. Without an entity it is 0: no window."""
        offset = np.clip(times - self._base, 0, self._span - 1)
        return np.searchsorted(self._key, self._entity + offset)


@dataclass(frozen=True)
class _Windows:
    """values[starts[n]:ends[n]] of sorted rows, one window per event."""

    values: Floats  # [rows, fields]
    starts: Places
    ends: Places

    def last(self, field: int) -> Floats:
        found = self.ends > self.starts
        column = np.full(len(found), np.nan)
        column[found] = self.values[self.ends[found] - 1, field]
        return column

    def statistic(self, statistic: Statistic) -> Floats:
        count = (self.ends - self.starts).astype(np.float64)
        if statistic == "count":
            return count
        if statistic == "sum":
            return self._reduced(np.add, 0.0)
        if statistic == "mean":
            return self._reduced(np.add, np.nan) / np.maximum(count, 1.0)
        return self._reduced(np.minimum if statistic == "min" else np.maximum, np.nan)

    def _reduced(self, reduce: Any, empty: float) -> Floats:
        """Every window by itself, windows that events share only once."""
        column = np.full(len(self.ends), empty)
        found = self.ends > self.starts
        if not found.any():
            return column
        size = len(self.values) + 1
        distinct, which = np.unique(self.starts[found] * size + self.ends[found], return_inverse=True)
        # reduceat takes [start, end) pairs flat and reduces the gaps between them, too: sorted, those are short.
        # An end may be the length, which is no index: hence one more value, that no window has.
        bounds = np.stack(divmod(distinct, size), axis=1).ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            column[found] = reduce.reduceat(np.append(self.values[:, 0], 0.0), bounds)[::2][which]
        return column
