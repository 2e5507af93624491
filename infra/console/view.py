"""what a page is made of → HTML: templates, and how numbers, times and sizes are written for people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from itertools import accumulate
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from headrace.infra.services.written import DASH, number, percent, rate, seconds, signed, size
from headrace.infra.training import plain

_TYPES = {"css": b"text/css; charset=utf-8", "js": b"text/javascript; charset=utf-8", "svg": b"image/svg+xml"}
_SHORT = 60
_PRETTY, _DEEP = 100_000, 40  # characters, brackets: so deep a line begins with 80 spaces


def when(text: str) -> Markup:
    """RFC 3339 → an element whose text the reader's browser turns to local time where that is wanted."""
    if not text:
        return Markup(DASH)  # noqa: S704  a constant
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return escape(text)
    shown = moment.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat().replace("+00:00", "Z"), shown)


def zoned(text: str) -> str:
    """RFC 3339 as it is on the clocks of its own offset, which stands behind it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment:%a %Y-%m-%d %H:%M:%S} {moment.isoformat()[-6:] if moment.utcoffset() else 'UTC'}"


def age(text: str, now: datetime | None = None) -> str:
    """How long ago that was, by the clock."""
    try:
        return seconds(((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return DASH


def short(text: object, length: int = _SHORT) -> str:
    found = str(text)
    return found if len(found) <= length else found[: length - 1] + "…"


def pretty(text: str) -> str:
    """JSON with a line for each value. What is none stays as it is, and what would become much longer by it."""
    if len(text) > _PRETTY or _depth(text) > _DEEP:
        return text
    try:
        return msgspec.json.format(text.encode(), indent=2).decode()
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text


def _depth(text: str) -> int:
    """Of brackets; those in texts are counted, too."""
    return max(accumulate((one in "[{") - (one in "]}") for one in text), default=0)


class View:
    """Templates of this package, everything escaped that is not marked as HTML."""

    def __init__(self, version: str) -> None:
        static = {one.name: one.read_bytes() for one in (files(__package__) / "static").iterdir() if one.is_file()}
        self.static: Mapping[str, tuple[bytes, bytes]] = {
            name: (_TYPES[name.rpartition(".")[2]], body) for name, body in static.items() if "." in name
        }
        digest = sha256(b"".join(body for _, body in sorted(static.items()))).hexdigest()[:12]
        self._templates = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            undefined=StrictUndefined,
        )
        self._templates.filters |= {
            "number": number,
            "signed": signed,
            "percent": percent,
            "rate": rate,
            "seconds": seconds,
            "size": size,
            "when": when,
            "zoned": zoned,
            "plain": plain,
            "age": age,
            "short": short,
            "pretty": pretty,
        }
        self._templates.globals |= {"static": f"/console/static/{digest}", "version": version}

    def html(self, template: str, data: Mapping[str, Any]) -> bytes:
        return self._templates.get_template(template).render(data).encode()
