"""counts and intervals → inline SVG, coloured by the page that it stands in (`templates/diff.html.tmpl`).

No script: what a mark stands for is its `title`, which browsers show under the pointer.
"""

from collections.abc import Callable, Sequence
from math import ceil, floor, log10, sqrt

_WIDTH, _HEIGHT = 320, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 26
_TICKS = 5
_FAINTEST = 0.08  # of the least cell that has a row
Scale = Callable[[float], float]
"""A value → where it is in the plot."""


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
        f'<path class="guide" style="stroke-dasharray:none" stroke-width="1.5" d="M{at(low):.1f} 8H{at(high):.1f}"/>',
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
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(marks)}</svg>'
