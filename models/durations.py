"""Durations as people write them: "90s", "15m", "3h", "7d", "52w". Event time is Unix milliseconds, UTC, everywhere."""

import re
from datetime import UTC, datetime

from headrace.models.errors import DeclarationError

_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_END_OF_TIME = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can write
_FORM = re.compile(r"([1-9]\d*)([smhdw])")


def milliseconds(where: str, text: str) -> int:
    """The length of `text` in ms; `where` names the field in the error."""
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise DeclarationError(where, 'a duration like "90s", "15m", "3h", "7d" or "52w"', text, "Write it so.")
    return int(form[1]) * _MS[form[2]]


def iso(ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC, with milliseconds only where there are some; past year 9999 as a number."""
    if not 0 <= ms <= _END_OF_TIME:
        return f"{ms} ms"
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def to_ms(moment: datetime) -> int:
    """A timezone-aware datetime as Unix milliseconds."""
    if moment.tzinfo is None:
        raise DeclarationError("time", "a datetime with a timezone", moment, "Add tzinfo, for example UTC.")
    return round(moment.timestamp() * 1000)
