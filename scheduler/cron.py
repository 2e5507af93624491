"""crontab(5) line + timezone → fire times.

What crontab(5) leaves to the reader, decided:

- Weekdays are 0 or 7 for Sunday up to 6 for Saturday, or three-letter names. Where neither day field starts with `*`,
  either may match; where one does, both must (so `*/2` in a day field narrows, as in Vixie cron).
- An expression that **names hours** (`0 3 * * *`, `*/30 1-5 * * *`, `0 */2 * * *`) fires once per named wall-clock
  time: in an autumn fold the first time that the clock shows it, and a time inside a spring gap at the gap's end.
  Several of them in one gap are one fire time there.
- An expression that **covers every hour** (`15 * * * *`, `*/5 * * * *`, `0 0-23 * * *`) follows the clock as it runs:
  what a fold shows twice fires twice, what a gap leaves out does not fire.

cronsim walks the naive wall clock; the way to real time is ours: where a fold is half an hour long (Lord Howe),
cronsim's own next time depends on where one starts to look.
"""

import re
from bisect import bisect_right
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from headrace.models.errors import DeclarationError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_FIELDS = (  # name, what a value may be, largest step
    ("minute", "0-59", 59),
    ("hour", "0-23", 23),
    ("day of month", "1-31", 31),
    ("month", "1-12 or jan-dec", 12),
    ("day of week", "0-7 or sun-sat", 7),
)
_VALUE = r"(?:\d{1,2}|[a-z]{3})"
_TERM = re.compile(rf"(?:{_VALUE}|(?:\*|{_VALUE}-{_VALUE})(?:/(\d+))?)", re.IGNORECASE)
_FORMS = 'Use *, values, lists, low-high (it does not wrap: "5-7" is Friday to Sunday), */step or low-high/step.'

_ANY_DAY = datetime(2000, 1, 1)  # noqa: DTZ001  cronsim wants a start; parsing does not depend on it
_HOUR_MS = 3_600_000


class CronExpression:
    """Five fields, or a macro such as `@daily`, in an IANA timezone. Times are Unix ms."""

    __slots__ = ("_every_hour", "_fields", "_zone")

    def __init__(self, expr: str, timezone: str) -> None:
        fields = _checked_fields(expr)
        self._zone = _zone(timezone)
        parsed = CronSim(" ".join(fields), _ANY_DAY)
        self._every_hour = len(parsed.hours) == 24
        self._fields = " ".join(fields)

    def next_after(self, ms: int) -> int | None:
        """The first fire time strictly after `ms`; None where there is none within fifty years."""
        after = ms // 1000
        seconds = self._next_of_every_hour(after) if self._every_hour else self._next_named(after)
        return None if seconds is None else seconds * 1000

    def newest_in(self, after: int, until: int) -> int | None:
        """The last fire time in (after, until]."""
        reach = _HOUR_MS
        while True:
            low = max(after, until - reach)
            newest = None
            moment = self.next_after(low)
            while moment is not None and moment <= until:
                newest = moment
                moment = self.next_after(moment)
            if newest is not None or low == after:
                return newest
            reach *= 4

    def _next_named(self, after: int) -> int | None:
        wall = datetime.fromtimestamp(after, self._zone).replace(tzinfo=None, fold=0)
        for named in CronSim(self._fields, wall):
            first, second = self._moments(named)
            moment = self._gap_end(second, first) if first > second else first
            if moment > after:  # not so for what the first pass of a fold has already fired
                return moment
        return None

    def _next_of_every_hour(self, after: int) -> int | None:
        local = datetime.fromtimestamp(after, self._zone)
        wall = local.replace(tzinfo=None, fold=0)
        first, second = self._moments(wall)
        if first == after < second:  # in the first pass of a fold: its second pass is still to come
            wall -= timedelta(seconds=second - first)
        again: int | None = None  # the earliest second showing still to come
        for shown in CronSim(self._fields, wall):
            first, second = self._moments(shown)
            if first > second:  # the clock never shows it
                continue
            if first > after:
                return first if again is None else min(first, again)
            if second > after and again is None:
                again = second
        return again

    def _moments(self, wall: datetime) -> tuple[int, int]:
        """Unix seconds of a wall-clock time by the offset before and after a transition there (PEP 495).

        Equal, but: first < second in a fold, first > second in a gap.
        """
        before = wall.replace(tzinfo=self._zone, fold=0)
        after = wall.replace(tzinfo=self._zone, fold=1)
        return int(before.timestamp()), int(after.timestamp())

    def _gap_end(self, low: int, high: int) -> int:
        """The transition in (low, high], Unix seconds: the first second with the new offset."""

        def offset(seconds: int) -> timedelta:
            return datetime.fromtimestamp(seconds, self._zone).utcoffset() or timedelta()

        between = range(low, high + 1)
        return between[bisect_right(between, offset(low), key=offset)]


def _checked_fields(expr: str) -> list[str]:
    where = "Cron.expr"
    if not isinstance(expr, str):
        raise DeclarationError(where, 'a string like "0 3 * * mon"', expr, "Write it so.")
    fields = _MACROS.get(expr.strip().lower(), expr).split()
    if expr.strip().startswith("@") and len(fields) == 1:
        raise DeclarationError(where, f"one of {', '.join(_MACROS)}", expr, "Or write the five fields.")
    if len(fields) != 5:
        raise DeclarationError(
            where,
            "five fields (minute, hour, day of month, month, day of week)",
            expr,
            "There are no seconds and no years in crontab(5).",
        )
    for position, field in enumerate(fields):
        _check_field(position, field, expr)
    try:
        first = next(CronSim(" ".join(fields), _ANY_DAY), None)
    except CronSimError:
        first = None
    if first is None:
        raise DeclarationError(where, "a date that some year has", expr, "No month named has that day.")
    return fields


def _check_field(position: int, field: str, expr: str) -> None:
    name, values, largest_step = _FIELDS[position]
    where = f"Cron.expr, {name}"
    for term in field.split(","):
        form = _TERM.fullmatch(term)
        if form is None:
            raise DeclarationError(where, f"values of {values}", f"{term} in {expr}", _FORMS)
        if form[1] is not None and not 1 <= int(form[1]) <= largest_step:
            raise DeclarationError(
                where, f"a step of 1 to {largest_step}", f"{term} in {expr}", 'For longer periods use Every("90m").'
            )
    alone = ["*"] * 5
    alone[position] = field
    try:
        CronSim(" ".join(alone), _ANY_DAY)
    except CronSimError as error:
        raise DeclarationError(where, f"values of {values}", f"{field} in {expr}", _FORMS) from error


def _zone(timezone: str) -> ZoneInfo:
    where, expected = "Cron.timezone", "an IANA timezone"
    remedy = 'For example timezone="America/New_York", or "UTC".'
    if not isinstance(timezone, str) or not timezone:
        raise DeclarationError(where, expected, timezone, remedy)
    try:
        return ZoneInfo(timezone)
    except (LookupError, ValueError, OSError) as error:  # unknown; not a key at all; a folder such as "America"
        raise DeclarationError(where, expected, timezone, remedy) from error
