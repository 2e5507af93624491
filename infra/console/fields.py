"""a request's query → numbers and times, or a refusal that says which field and what was expected."""

from datetime import UTC, datetime

from headrace.infra.serve.http import Request
from headrace.infra.serve.refusals import RequestRefused
from headrace.models.durations import to_ms

_DIGITS = 15


def whole_number(request: Request, name: str, default: int) -> int:
    text = request.query(name).strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise RequestRefused(f"{name}: expected a whole number from 0, got {text[:40]!r}")
    return int(text)


def moment(request: Request, name: str) -> int | None:
    """Unix ms. A date, or a date and a time; in UTC where it does not say otherwise."""
    text = request.query(name).strip()
    if not text:
        return None
    try:
        given = datetime.fromisoformat(text)
        return to_ms(given if given.tzinfo else given.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        said = f"{name}: expected a time as 2013-07-01 or 2013-07-01T00:00:00Z, got {text[:40]!r}"
        raise RequestRefused(said) from error
