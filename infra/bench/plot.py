"""rows → an SVG of how many events a second each contender took: bars from zero, so that lengths compare."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from headrace.infra.bench.report import Row

_WIDTH, _LEFT, _RIGHT = 720, 210, 90  # pixels: names left of the bars, figures right
_BAR, _GAP, _TOP = 18, 10, 44
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ours { fill: #0969da }
.theirs { fill: #afb8c1 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #4493f8 } .theirs { fill: #59636e } }
"""


def plotted(rows: Sequence[Row]) -> str:
    """One bar per contender with a figure, the fastest first; ours are the coloured ones."""
    rates = {
        name: float(figures["events_per_second"])
        for row in rows
        for name, figures in row.detail.items()
        if isinstance(figures, dict) and "events_per_second" in figures
    }
    ranked = sorted(rates.items(), key=lambda one: -one[1])
    bars = "\n".join(_bar(place, name, rate, ranked[0][1]) for place, (name, rate) in enumerate(ranked))
    height = _TOP + len(ranked) * (_BAR + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">\n'
        f'<style>{_STYLE}</style>\n<text class="title" x="0" y="20">Events per second: JSON in, one prediction out,'
        f" all acknowledged (medians)</text>\n{bars}\n</svg>\n"
    )


def _bar(place: int, name: str, rate: float, longest: float) -> str:
    top = _TOP + place * (_BAR + _GAP)
    width = max(1.0, (_WIDTH - _LEFT - _RIGHT) * rate / longest)
    kind = "ours" if name.startswith("headrace") else "theirs"
    base = top + _BAR - 4
    return (
        f'<text x="{_LEFT - 10}" y="{base}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
        f'<text x="{_LEFT + width + 8:.1f}" y="{base}">{rate:,.0f}</text>'
    )
