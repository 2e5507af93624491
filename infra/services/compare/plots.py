"""counts and intervals → inline SVG, coloured by the page that it stands in (`templates/diff.html.tmpl`).

No script: what a mark stands for is its `title`, which browsers show under the pointer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10, sqrt

_WIDTH, _HEIGHT = 320, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 26
_WIDE_LEFT, _NAMES = 48, 60  # of wide plots: for the figures, and for half of a name at the last point
_TICKS = 5
SERIES = 6  # colours that a page has for them, after which they come again
_FAINTEST = 0.08  # of the least cell that has a row
Scale = Callable[[float], float]
"""A value → where it is in the plot."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """`name` is HTML already: what is a user's is escaped."""

    name: str
    cost: float
    value: float
    low: float
    high: float


def two_histograms(edges: Sequence[float], first: Sequence[int], second: Sequence[int], guide: float | None) -> str:
    """Outlines over each other; `guide` is a value to mark."""
    across, up = _scale(edges[0], edges[-1]), _heights(max(*first, *second, 1))
    marks = [_axis(edges[0], edges[-1]), _guide(across, guide, edges)]
    for name, counts in (("first", first), ("second", second)):
        outline = _steps(edges, counts, across, up)
        marks += [
            f'<path class="fill-{name} soft" d="{outline}"/>',
            f'<path class="line-{name}" stroke-width="1.5" d="{outline}"/>',
        ]
    width = across(edges[1]) - across(edges[0])
    marks += [
        f'<rect x="{across(low):.1f}" y="{_TOP}" width="{width:.1f}" height="{_HEIGHT - _TOP - _BOTTOM}"'
        f' fill-opacity="0"><title>{low:.3g} to {high:.3g}: first {one:,}, second {other:,}</title></rect>'
        for low, high, one, other in zip(edges, edges[1:], first, second, strict=False)
    ]
    return _svg(marks)


def one_histogram(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Bars around zero."""
    across, up = _scale(edges[0], edges[-1]), _heights(max(*counts, 1))
    floor_y, marks = _HEIGHT - _BOTTOM, [_axis(edges[0], edges[-1]), _guide(across, 0.0, edges)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            top = up(count)
            marks.append(
                f'<rect class="fill-ink" opacity=".55" x="{across(low) + 0.5:.1f}" y="{top:.1f}"'
                f' width="{max(1.0, across(high) - across(low) - 1):.1f}" height="{floor_y - top:.1f}">'
                f"<title>{low:+.3g} to {high:+.3g}: {count:,}</title></rect>"
            )
    return _svg(marks)


def heat(edges: Sequence[float], cells: Sequence[Sequence[int]], guide: float | None) -> str:
    """The first across, the second upwards; darker is more, by the square root."""
    low, high, most = edges[0], edges[-1], max(max(row) for row in cells) or 1
    plot = _HEIGHT - _TOP - _BOTTOM  # a square

    def place(value: float) -> float:
        return (value - low) / (high - low) * plot

    corner = _HEIGHT - _BOTTOM
    marks = []
    for x, column in enumerate(cells):
        for y, count in enumerate(column):
            if count:
                shade = _FAINTEST + (1 - _FAINTEST) * sqrt(count / most)
                left, bottom, step = _LEFT + place(edges[x]), corner - place(edges[y]), place(edges[1])
                marks.append(
                    f'<rect class="fill-ink" opacity="{shade:.2f}" x="{left:.1f}" y="{bottom - step:.1f}"'
                    f' width="{step + 0.3:.1f}" height="{step + 0.3:.1f}"><title>first {edges[x]:.3g} to'
                    f" {edges[x + 1]:.3g}, second {edges[y]:.3g} to {edges[y + 1]:.3g}: {count:,}</title></rect>"
                )
    right, top = _LEFT + plot, corner - plot
    marks += [
        f'<path class="axis" fill="none" d="M{_LEFT} {top}V{corner}H{right}"/>',
        f'<path class="guide" fill="none" d="M{_LEFT} {corner}L{right} {top}"/>',
    ]
    for tick in _ticks(low, high):
        at = place(tick)
        marks.append(f'<text x="{_LEFT + at:.1f}" y="{corner + 14}" text-anchor="middle">{tick:g}</text>')
        marks.append(f'<text x="{_LEFT - 5}" y="{corner - at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    if guide is not None and low < guide < high:
        at = place(guide)
        marks.append(
            f'<path class="guide" fill="none" d="M{_LEFT + at:.1f} {top}V{corner}M{_LEFT} {corner - at:.1f}H{right}"/>'
        )
    return _svg(marks)


def interval(value: float, low: float, high: float, reach: float) -> str:
    """A dot and its interval around zero; `reach` is the end of the axis on both sides."""
    width, height, middle = 130, 16, 65.0

    def at(number: float) -> float:
        return middle + max(-1.0, min(1.0, number / reach)) * (middle - 4)

    marks = [
        f'<path class="axis" d="M{middle} 1V{height - 1}"/>',
        f'<path class="whisker" fill="none" stroke-width="1.5" d="M{at(low):.1f} 8H{at(high):.1f}"/>',
        f'<circle class="fill-ink" cx="{at(value):.1f}" cy="8" r="3.2"/>',
    ]
    return _svg(marks, width=width, height=height)


def bar(value: float, reach: float) -> str:
    """From zero in the middle to the left or right."""
    width, height, middle = 130, 16, 65.0
    length = min(1.0, abs(value) / reach) * (middle - 4) if reach else 0.0
    left = middle if value >= 0 else middle - length
    name = "second" if value >= 0 else "first"
    marks = [
        f'<rect class="fill-{name}" opacity=".75" x="{left:.1f}" y="4" width="{length:.1f}" height="8"/>',
        f'<path class="axis" d="M{middle} 1V{height - 1}"/>',
    ]
    return _svg(marks, width=width, height=height)


def costs(points: Sequence[Point], limit: float | None) -> str:
    """Cost across, by its square root; a value with its interval upwards. `limit` is a value to mark."""
    width = 2 * _WIDTH
    most = max(point.cost for point in points) or 1.0
    low, high = _reach([end for point in points for end in (point.low, point.value, point.high)], limit)

    def across(cost: float) -> float:
        return _WIDE_LEFT + sqrt(cost / most) * (width - _WIDE_LEFT - _NAMES)

    up = _upwards(low, high)
    marks = [_frame(width, low, high, up)]
    for cost in _ticks(0, most):
        at = across(cost)
        marks.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{cost:g}</text>')
    if limit is not None:
        marks.append(f'<path class="guide" fill="none" d="M{_WIDE_LEFT} {up(limit):.1f}H{width - _RIGHT}"/>')
    ranks = sorted(range(len(points)), key=lambda number: points[number].cost)
    for number, point in enumerate(points):
        x, y, bottom, top = across(point.cost), up(point.value), up(point.low), up(point.high)
        name_y = top - 5 if ranks.index(number) % 2 == 0 else bottom + 13  # by turns, as neighbours would overlap
        marks.append(
            f'<g class="series-{number % SERIES}">'
            f'<path class="stroke" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>'
            f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<text class="fill" x="{x:.1f}" y="{name_y:.1f}" text-anchor="middle">{point.name}</text>'
            f"<title>{point.name}: {point.value:.4f}, {point.cost:.3g}</title></g>"
        )
    return _svg(marks, width=width)


def lines(series: Sequence[Sequence[float | None]], ends: tuple[str, str]) -> str:
    """Each over the same steps, whose first and last are called `ends`; a gap where there is no value."""
    width = 2 * _WIDTH
    low, high = _reach([value for one in series for value in one if value is not None], None)
    up = _upwards(low, high)
    steps = max(1, max(len(one) for one in series) - 1)
    marks = [_frame(width, low, high, up)]
    for number, one in enumerate(series):
        path, pen = [], "M"
        for step, value in enumerate(one):
            if value is None:
                pen = "M"
                continue
            path.append(f"{pen}{_WIDE_LEFT + step / steps * (width - _WIDE_LEFT - _RIGHT):.1f} {up(value):.1f}")
            pen = "L"
        marks.append(f'<g class="series-{number % SERIES}"><path class="stroke" fill="none" d="{"".join(path)}"/></g>')
    y = _HEIGHT - _BOTTOM + 16
    marks.append(f'<text x="{_WIDE_LEFT}" y="{y}">{ends[0]}</text>')
    marks.append(f'<text x="{width - _RIGHT}" y="{y}" text-anchor="end">{ends[1]}</text>')
    return _svg(marks, width=width)


def _reach(values: Sequence[float], also: float | None) -> tuple[float, float]:
    """The range of an axis: a little more than the values need."""
    there = [*values, *([also] if also is not None else [])]
    low, high = min(there), max(there)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _upwards(low: float, high: float) -> Scale:
    per = (_HEIGHT - _TOP - _BOTTOM) / (high - low)
    return lambda value: _HEIGHT - _BOTTOM - (value - low) * per


def _frame(width: int, low: float, high: float, up: Scale) -> str:
    texts = [
        f'<text x="{_WIDE_LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(low, high)
    ]
    corner = _HEIGHT - _BOTTOM
    return f'<path class="axis" fill="none" d="M{_WIDE_LEFT} {_TOP}V{corner}H{width - _RIGHT}"/>' + "".join(texts)


def _scale(low: float, high: float) -> Scale:
    per = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    return lambda value: _LEFT + (value - low) * per


def _heights(most: int) -> Scale:
    per = (_HEIGHT - _TOP - _BOTTOM) / most
    return lambda count: _HEIGHT - _BOTTOM - count * per


def _steps(edges: Sequence[float], counts: Sequence[int], across: Scale, up: Scale) -> str:
    path = [f"M{across(edges[0]):.1f} {up(0):.1f}"]
    for high, count in zip(edges[1:], counts, strict=False):
        path.append(f"V{up(count):.1f}H{across(high):.1f}")
    return "".join([*path, f"V{up(0):.1f}"])


def _axis(low: float, high: float) -> str:
    across, y = _scale(low, high), _HEIGHT - _BOTTOM
    texts = [
        f'<text x="{across(tick):.1f}" y="{y + 16}" text-anchor="middle">{tick:g}</text>' for tick in _ticks(low, high)
    ]
    return f'<path class="axis" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>' + "".join(texts)


def _guide(across: Scale, value: float | None, edges: Sequence[float]) -> str:
    if value is None or not edges[0] < value < edges[-1]:
        return ""
    return f'<path class="guide" fill="none" d="M{across(value):.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in the range, about five."""
    rough = (high - low) / _TICKS
    step = 10.0 ** floor(log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if rough <= factor * step * 1.0001)
    return [round(number * step, 12) for number in range(ceil(low / step), floor(high / step) + 1)]


def _svg(marks: Sequence[str], width: int = _WIDTH, height: int = _HEIGHT) -> str:
    """Hidden from who listens to a page: its caption or the table beside it says the same in words."""
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(marks)}</svg>'
