"""joined rows → those that a training takes: what `Pipeline.train_on` may be, and the anchor that is never trained on.

All are functions of the rows' own event time, partition and offset, and of the tick: the same offset ranges give the
same rows, whether they are looked at at once or in parts that fit into memory.
"""

from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from headrace.models.draw import ALWAYS, NEVER, random_priorities
from headrace.models.durations import milliseconds, to_ms
from headrace.models.errors import DeclarationError

Int64s = NDArray[np.int64]
Places = NDArray[np.int64]  # [3, n]: event times (Unix ms), partitions, offsets


@runtime_checkable
class Window(Protocol):
    """Which rows older than the holdout are trained on. Yours may be an object of this protocol, too."""

    @property
    def holdout_ms(self) -> int:
        """The newest rows, so much event time before the tick: for the gate."""

    @property
    def min_rows(self) -> int:
        """Fewer training rows, or a tenth of it in the holdout: the run fails as too_few_rows."""

    @property
    def reach_ms(self) -> int | None:
        """Event time from the oldest row to the tick; None where nothing is too old."""

    @property
    def most(self) -> int:
        """Of the rows that compete, so many are taken."""

    def priorities(self, rows: Places, at_ms: int) -> Int64s:
        """[n]: ALWAYS, NEVER (of `models.draw`), or a number from 0: those with the lowest are taken."""


@dataclass(frozen=True)
class Last:
    """A sliding window of time: rows whose event time is within `window` of the tick."""

    window: str
    holdout: str = "7d"
    min_rows: int = 100

    def __post_init__(self) -> None:
        _check_rows(self)
        _check_shorter("Last.holdout", self.holdout, "window", self.window)

    @property
    def reach_ms(self) -> int:
        return milliseconds("Last.window", self.window)

    @property
    def holdout_ms(self) -> int:
        return milliseconds("Last.holdout", self.holdout)

    @property
    def most(self) -> int:
        return 0

    def priorities(self, rows: Places, at_ms: int) -> Int64s:
        return np.where(rows[0] >= at_ms - self.reach_ms, ALWAYS, NEVER)


@dataclass(frozen=True)
class LastRows:
    """A sliding window of rows: the newest `rows` before the holdout, of those within `reach` of the tick."""

    rows: int
    _: KW_ONLY
    holdout: str = "7d"
    min_rows: int = 100
    reach: str | None = None  # None: served rows are kept for ever

    def __post_init__(self) -> None:
        _check_rows(self)
        _check_count("LastRows.rows", self.rows)
        if self.rows < self.min_rows:
            raise DeclarationError("LastRows.rows", f"at least min_rows, {self.min_rows}", self.rows, "Raise it.")
        _check_shorter("LastRows.holdout", self.holdout, "reach", self.reach)

    @property
    def reach_ms(self) -> int | None:
        return _reach_ms("LastRows.reach", self.reach)

    @property
    def holdout_ms(self) -> int:
        return milliseconds("LastRows.holdout", self.holdout)

    @property
    def most(self) -> int:
        return self.rows

    def priorities(self, rows: Places, at_ms: int) -> Int64s:
        ages = np.maximum(at_ms - rows[0], 0)
        return np.where(ages <= (NEVER if self.reach_ms is None else self.reach_ms), ages, NEVER)


@dataclass(frozen=True)
class Everything:
    """An expanding window: all rows that the log has, which is kept for ever."""

    _: KW_ONLY
    holdout: str = "7d"
    min_rows: int = 100

    def __post_init__(self) -> None:
        _check_rows(self)

    @property
    def reach_ms(self) -> None:
        return None

    @property
    def holdout_ms(self) -> int:
        return milliseconds("Everything.holdout", self.holdout)

    @property
    def most(self) -> int:
        return 0

    def priorities(self, rows: Places, at_ms: int) -> Int64s:  # noqa: ARG002  of the protocol
        return np.full(rows.shape[1], ALWAYS)


@dataclass(frozen=True)
class Rehearsal:
    """Fresh rows, and a reservoir of `old_rows` of all older ones within `reach`, against forgetting.

    Rehearsal, or experience replay (Robins 1995; Rolnick et al. 2019). The reservoir is a uniform draw by hashes of the
    rows' places (`models.draw`): with the next run most of it stays, and each row that has become old has its chance.
    """

    fresh: str
    old_rows: int
    _: KW_ONLY
    holdout: str = "7d"
    min_rows: int = 100
    reach: str | None = None  # None: served rows are kept for ever
    seed: int = 7

    def __post_init__(self) -> None:
        _check_rows(self)
        _check_count("Rehearsal.old_rows", self.old_rows)
        _check_shorter("Rehearsal.holdout", self.holdout, "fresh", self.fresh)
        _check_shorter("Rehearsal.fresh", self.fresh, "reach", self.reach)
        _check_seed("Rehearsal.seed", self.seed)

    @property
    def reach_ms(self) -> int | None:
        return _reach_ms("Rehearsal.reach", self.reach)

    @property
    def holdout_ms(self) -> int:
        return milliseconds("Rehearsal.holdout", self.holdout)

    @property
    def most(self) -> int:
        return self.old_rows

    def priorities(self, rows: Places, at_ms: int) -> Int64s:
        times, partitions, offsets = rows
        drawn = random_priorities(partitions, offsets, self.seed)
        if self.reach_ms is not None:
            drawn = np.where(times >= at_ms - self.reach_ms, drawn, NEVER)
        return np.where(times >= at_ms - milliseconds("Rehearsal.fresh", self.fresh), ALWAYS, drawn)


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A fixed, older holdout: so many rows that no version is ever trained on, the same ones for each.

    They are the oldest of the log, or a draw from those with `since` ≤ event time < `until`; a window that takes some
    of them trains on so many fewer. A row of the holdout is none, and rows only ever leave the anchor, while labels for
    older ones still come: so none that is in it was trained on before. Served rows are then kept for ever.
    """

    rows: int = 5_000
    since: str | None = None  # RFC 3339, or a day (in UTC)
    until: str | None = None
    seed: int = 7

    def __post_init__(self) -> None:
        _check_count("Anchor.rows", self.rows)
        if (self.since is None) != (self.until is None):
            both = f"since={self.since!r}, until={self.until!r}"
            raise DeclarationError("Anchor", "since and until, or neither", both, "Add the other one.")
        span = self.span_ms
        if span is not None and span[0] >= span[1]:
            raise DeclarationError("Anchor.until", f"later than since, {self.since}", self.until, "Exchange them.")
        _check_seed("Anchor.seed", self.seed)

    @property
    def span_ms(self) -> tuple[int, int] | None:
        """Unix ms; the end is not in it."""
        if self.since is None or self.until is None:
            return None
        return _moment("Anchor.since", self.since), _moment("Anchor.until", self.until)

    def priorities(self, rows: Places) -> Int64s:
        times, partitions, offsets = rows
        if self.span_ms is None:
            return np.asarray(np.maximum(times, 0))
        since, until = self.span_ms
        return np.where((times >= since) & (times < until), random_priorities(partitions, offsets, self.seed), NEVER)


def _check_rows(window: Last | LastRows | Everything | Rehearsal) -> None:
    where = type(window).__name__
    milliseconds(f"{where}.holdout", window.holdout)
    _check_count(f"{where}.min_rows", window.min_rows)


def _check_count(where: str, given: object) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise DeclarationError(where, "a number from 1", given, "Raise it.")


def _check_seed(where: str, given: object) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise DeclarationError(where, "a whole number from 0", given, "For example 7.")


def _check_shorter(where: str, given: str, than: str, limit: str | None) -> None:
    if limit is not None and milliseconds(where, given) >= milliseconds(f"{where.partition('.')[0]}.{than}", limit):
        raise DeclarationError(where, f"less than {than}, {limit}", given, "Shorten it.")


def _reach_ms(where: str, given: str | None) -> int | None:
    return None if given is None else milliseconds(where, given)


def _moment(where: str, given: str) -> int:
    try:
        moment = datetime.fromisoformat(given)
        return to_ms(datetime.fromisoformat(f"{given}T00:00Z") if len(given) == len("2013-01-01") else moment)
    except (ValueError, TypeError, DeclarationError) as error:
        raise DeclarationError(
            where, 'a day like "2013-01-01", or RFC 3339 with an offset', given, "Write it so."
        ) from error
