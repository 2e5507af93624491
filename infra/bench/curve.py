"""rates and latencies → an SVG: how late answers are at which rate, both axes by powers of ten."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any, Final
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 44, 44  # pixels: the scale left, names right
_RATES: Final = (100.0, 1_000_000.0)  # events a second
_MS: Final = (1.0, 10_000.0)
_COLOURS: Final = ("#8c959f", "#0969da", "#8250df", "#bc4c00")
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.limit { stroke: #cf222e; stroke-width: 1; stroke-dasharray: 2 4 }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
.p50 { stroke-dasharray: 5 4; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .grid { stroke: #3d444d } }
"""


def drawn(curves: Mapping[str, Sequence[Mapping[str, Any]]], limit_ms: float) -> str:
    """A full line for each contender's 99th percentile, a broken one for its median."""
    parts = [
        _grid(),
        f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(limit_ms)}" y2="{_y(limit_ms)}"/>',
    ]
    for place, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        parts += [_line(points, percentile, colour) for percentile in ("p99", "p50")]
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 16}" y="{_TOP + 16 + 20 * place}" style="fill:{colour}">{escape(name)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">\n'
        f'<style>{_STYLE}</style>\n<text class="title" x="0" y="20">Latency by rate: p99, and p50 as a broken line;'
        f" dotted: {limit_ms:g} ms</text>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _line(points: Sequence[Mapping[str, Any]], percentile: str, colour: str) -> str:
    by_rate = {float(one["rate"]): one[f"{percentile}_ms"] for one in points}
    shown = [(rate, ms) for rate, ms in sorted(by_rate.items()) if ms is not None]  # None: somebody waits for ever
    places = " ".join(f"{_x(rate):.1f},{_y(ms):.1f}" for rate, ms in shown)
    return f'<polyline class="{percentile}" style="stroke:{colour}" points="{places}"/>'


def _grid() -> str:
    parts = []
    for power in range(int(log10(_RATES[0])), int(log10(_RATES[1])) + 1):
        x = _x(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{10**power:,}/s</text>')
    for power in range(int(log10(_MS[0])), int(log10(_MS[1])) + 1):
        y = _y(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:,} ms</text>')
    return "\n".join(parts)


def _x(rate: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(rate, _RATES)


def _y(ms: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _share(ms, _MS)


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = log10(bounds[0]), log10(bounds[1])
    return (log10(min(max(value, bounds[0]), bounds[1])) - low) / (high - low)
