"""values over time → inline SVG for the console's pages: `services.compare.plots` has what pages and files share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor, isfinite, log10

from markupsafe import Markup, escape

SERIES = 6  # colours, after which they come again
_WIDTH, _HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 10, 24
_SPARK = (120, 26)
_BAR, _BAR_WIDTH, _BAR_NAME, _BAR_VALUE = 22, 420, 92, 64  # a row's height; all of it, its name's and value's room
_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
_STEPS = (
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 91 * _DAY, 365 * _DAY),
)
Scale = Callable[[float], float]
"""A value → where it is in the drawing."""
Ticks = Callable[[float, float], list[tuple[float, str]]]
"""The ends of the axis across → what is written below it, and where."""


@dataclass(frozen=True, kw_only=True)
class At:
    """A value at a time, Unix ms, or at an epoch, and the ends of its interval where there is one."""

    time: float
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""  # what the pointer is told beside it


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    points: Sequence[At]
    series: int = 0  # its colour


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment that is worth a thin line: a swap."""

    time: float
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Of one chart: what it shows, in words, for who does not see it."""

    label: str
    low: float | None = None
    high: float | None = None
    marks: Sequence[Mark] = field(default_factory=tuple)
    width: int = _WIDTH  # of the drawing: what is written in it grows as this gets less


def sparkline(values: Sequence[float | None], label: str) -> Markup:
    """The newest on the right; from 0 up, so that a flat line is calm."""
    width, height = _SPARK
    there = [value for value in values if value is not None and isfinite(value)]
    top = max(there, default=0.0) or 1.0
    path, pen, steps = [], "M", max(1, len(values) - 1)
    for step, value in enumerate(values):
        if value is None or not isfinite(value):
            pen = "M"
            continue
        path.append(f"{pen}{1 + step / steps * (width - 2):.1f} {height - 2 - value / top * (height - 4):.1f}")
        pen = "L"
    inner = f'<g class="series-0"><path class="stroke" d="{"".join(path)}"/></g>' if len(path) > 1 else ""
    return _svg(inner, width, height, label, "spark")


def over_time(lines: Sequence[Line], axes: Axes) -> Markup:
    """Lines over time with whiskers where there are intervals. "" where no line has a value."""
    return _drawn(lines, axes, time_ticks, _HOUR)


def by_epoch(lines: Sequence[Line], axes: Axes) -> Markup:
    """Lines over whole numbers from 1. "" where no line has a value."""
    return _drawn(lines, axes, epoch_ticks, 0.5)


def bars(values: Mapping[str, float], said: Callable[[float], str], label: str) -> Markup:
    """One below the other, from 0 up. "" without any."""
    if not values:
        return Markup("")
    most, room = max(*values.values(), 0.0) or 1.0, _BAR_WIDTH - _BAR_NAME - _BAR_VALUE
    parts = []
    for row, (name, value) in enumerate(values.items()):
        y, length = row * _BAR, max(1.0, value / most * room)
        parts.append(
            f'<text x="{_BAR_NAME - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="fill" x="{_BAR_NAME}" y="{y + 5}" width="{length:.1f}" height="{_BAR - 9}" rx="2"/>'
            f'<text x="{_BAR_NAME + length + 6:.1f}" y="{y + 15}">{escape(said(value))}</text>'
        )
    told = f"{label}: {', '.join(f'{name} {said(value)}' for name, value in values.items())}"
    return _svg(f'<g class="series-0">{"".join(parts)}</g>', _BAR_WIDTH, len(values) * _BAR, told)


def _drawn(lines: Sequence[Line], axes: Axes, across_ticks: Ticks, alone: float) -> Markup:
    """`alone` is the room on both sides of a single point."""
    points = [point for line in lines for point in line.points if point.value is not None and isfinite(point.value)]
    if not points:
        return Markup("")
    first, last = min(point.time for point in points), max(point.time for point in points)
    if first == last:
        first, last = first - alone, last + alone
    low, high = _reach(points, axes)

    def across(time: float) -> float:
        return _LEFT + (time - first) / (last - first) * (axes.width - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (min(max(value, low), high) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_frame((low, high), across_ticks(first, last), axes.width, up, across)]
    for mark in axes.marks:
        if first <= mark.time <= last:
            x = across(mark.time)
            parts.append(
                f'<path class="guide" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"><title>{escape(mark.name)}</title></path>'
            )
    parts += [_line(line, up, across) for line in lines]
    return _svg("".join(parts), axes.width, _HEIGHT, axes.label)


def _line(line: Line, up: Scale, across: Scale) -> str:
    path, dots, pen = [], [], "M"
    for point in line.points:
        if point.value is None or not isfinite(point.value):
            pen = "M"
            continue
        x, y = across(point.time), up(point.value)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
        if point.low is not None and point.high is not None:
            ends = f"M{x:.1f} {up(point.low):.1f}V{up(point.high):.1f}"
            dots.append(f'<path class="stroke" opacity=".45" d="{ends}"/>')
        said = f"{line.name}: {point.value:.4g}{f', {point.note}' if point.note else ''}"
        dots.append(f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="2.4"><title>{escape(said)}</title></circle>')
    shown = "".join(dots) if len(line.points) <= 120 else ""  # more would be a smear
    return f'<g class="series-{line.series % SERIES}"><path class="stroke" d="{"".join(path)}"/>{shown}</g>'


def _reach(points: Sequence[At], axes: Axes) -> tuple[float, float]:
    ends = [end for one in points for end in (one.value, one.low, one.high) if end is not None and isfinite(end)]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return (low - room if axes.low is None else axes.low), (high + room if axes.high is None else axes.high)


def _frame(
    reach: tuple[float, float], across_ticks: Sequence[tuple[float, str]], width: int, up: Scale, across: Scale
) -> str:
    corner, right = _HEIGHT - _BOTTOM, width - _RIGHT
    parts = [f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{corner}H{right}"/>']
    parts += [
        f'<path class="axis" opacity=".6" d="M{_LEFT} {up(tick):.1f}H{right}"/>'
        f'<text x="{_LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks(*reach)
    ]
    parts += [
        f'<text x="{across(at):.1f}" y="{corner + 16}" text-anchor="middle">{text}</text>' for at, text in across_ticks
    ]
    return "".join(parts)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers in the range."""
    rough = (high - low) / count
    step = 10.0 ** floor(log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if rough <= factor * step * 1.0001)
    return [round(at * step, 12) for at in range(ceil(low / step), floor(high / step) + 1)]


def time_ticks(first: float, last: float, count: int = 7) -> list[tuple[float, str]]:
    """Round times in the range, UTC, as short as they may be."""
    step = next((one for one in _STEPS if (last - first) / one <= count), _STEPS[-1])
    form = "%Y-%m-%d" if step >= 91 * _DAY else "%d %b" if step >= _DAY else "%H:%M"
    at = ceil(first / step) * step
    found = []
    while at <= last:
        found.append((float(at), datetime.fromtimestamp(at / 1000, UTC).strftime(form)))
        at += step
    return found


def epoch_ticks(first: float, last: float) -> list[tuple[float, str]]:
    """Whole numbers in the range, and what they count."""
    whole = [at for at in ticks(first, last, 6) if at.is_integer()]
    return [(at, f"epoch {at:g}" if at == whole[0] else f"{at:g}") for at in whole]


def _svg(inner: str, width: int, height: int, label: str, kind: str = "") -> Markup:
    drawn = f'<svg viewBox="0 0 {width} {height}" role="img" class="{kind}" aria-label="{escape(label)}">{inner}</svg>'
    return Markup(drawn)  # noqa: S704  every text in it was escaped
