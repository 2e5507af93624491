"""numbers → as people read them: with separators, units, and four digits that count."""

from math import isfinite

DASH = "–"  # noqa: RUF001  where there is no value
_UNITS = ((86_400.0 * 2, 86_400.0, "d"), (7_200.0, 3_600.0, "h"), (120.0, 60.0, "min"), (1.0, 1.0, "s"))
_KIB = 1024


def number(value: float | None) -> str:
    """Whole ones with separators, others with four digits that count."""
    if value is None or not isfinite(value):
        return DASH
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def signed(value: float | None) -> str:
    return DASH if value is None or not isfinite(value) else f"{value:+.4g}".replace("-", "−")  # noqa: RUF001


def percent(share: float | None) -> str:
    if share is None or not isfinite(share):
        return DASH
    return f"{share:.0%}" if share == 0 or abs(share) >= 0.1 else f"{share:.2%}"


def rate(per_second: float | None) -> str:
    if per_second is None or not isfinite(per_second):
        return DASH
    if per_second >= 10:
        return f"{per_second:,.0f}/s"
    return "0/s" if per_second < 0.01 else f"{per_second:.2g}/s"


def seconds(value: float | None) -> str:
    """With the unit in which it reads best."""
    if value is None or not isfinite(value):
        return DASH
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
        return DASH
    for power, name in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= _KIB**power:
            return f"{count / _KIB**power:.3g} {name}"
    return f"{count} B"
