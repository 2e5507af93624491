"""what a page is made of → HTML: templates, and how numbers, times and sizes are written for people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from math import isfinite
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from headrace.infra.training import plain

_DASH = "–"  # noqa: RUF001  what there is no value for
_UNITS = ((86_400.0 * 2, 86_400.0, "d"), (7_200.0, 3_600.0, "h"), (120.0, 60.0, "min"), (1.0, 1.0, "s"))
_KIB = 1024
_TYPES = {"css": b"text/css; charset=utf-8", "js": b"text/javascript; charset=utf-8", "svg": b"image/svg+xml"}
_SHORT = 60


def number(value: float | None) -> str:
    """Whole ones with separators, others with four digits that count."""
    if value is None or not isfinite(value):
        return _DASH
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def signed(value: float | None) -> str:
    return _DASH if value is None or not isfinite(value) else f"{value:+.4g}".replace("-", "−")  # noqa: RUF001


def percent(share: float | None) -> str:
    if share is None or not isfinite(share):
        return _DASH
    return f"{share:.0%}" if share == 0 or abs(share) >= 0.1 else f"{share:.2%}"


def rate(per_second: float | None) -> str:
    if per_second is None or not isfinite(per_second):
        return _DASH
    if per_second >= 10:
        return f"{per_second:,.0f}/s"
    return "0/s" if per_second < 0.01 else f"{per_second:.2g}/s"


def seconds(value: float | None) -> str:
    """With the unit in which it reads best."""
    if value is None or not isfinite(value):
        return _DASH
    size = abs(value)
    for least, unit, name in _UNITS:
        if size >= least:
            return f"{value / unit:.3g} {name}"
    if size >= 1e-3:
        return f"{value * 1e3:.3g} ms"
    return "0 s" if size < 1e-6 else f"{value * 1e6:.3g} µs"


def size(count: int | None) -> str:
    """Bytes."""
    if count is None:
        return _DASH
    for power, name in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= _KIB**power:
            return f"{count / _KIB**power:.3g} {name}"
    return f"{count} B"


def when(text: str) -> Markup:
    """RFC 3339 → an element whose text the reader's browser turns to local time where that is wanted."""
    if not text:
        return Markup(_DASH)  # noqa: S704  a constant
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
        return _DASH


def short(text: object, length: int = _SHORT) -> str:
    found = str(text)
    return found if len(found) <= length else found[: length - 1] + "…"


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
        }
        self._templates.globals |= {"static": f"/console/static/{digest}", "version": version}

    def html(self, template: str, data: Mapping[str, Any]) -> bytes:
        return self._templates.get_template(template).render(data).encode()
