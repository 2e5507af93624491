"""rows in bins → a small drawing for a table's cell, beside another's rows where there are some."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from headrace.infra.services.data.profiled import Bin
from headrace.models.column_stats import Bins

_SMALL = (220, 44)
_NAME = 80  # characters of a category


def beside(bins: Sequence[Bin]) -> Markup:
    """Two outlines over the same bins, each as wide as the others: training in the first colour, what is now in the
    second. The table beside it says the same in words."""
    most = max((share for one in bins for share in (one.trained_share, one.found_share)), default=0) or 1.0
    marks = []
    for name, shares in (("first", [b.trained_share for b in bins]), ("second", [b.found_share for b in bins])):
        path = _outline([share / most for share in shares])
        marks.append(f'<path class="fill-{name} soft" d="{path}"/><path class="line-{name}" d="{path}"/>')
    for place, one in enumerate(bins):
        said = f"{_named(one)}: training {one.trained_share:.1%}, now {one.found_share:.1%}"
        marks.append(_touched(place, len(bins), said))
    return _decorative(marks)


def outline(bins: Bins) -> Markup:
    """Counts between edges. "" where there are none."""
    most = max(bins.counts, default=0)
    if not most:
        return Markup("")
    path = _outline([count / most for count in bins.counts])
    marks = [f'<path class="fill-second soft" d="{path}"/><path class="line-second" d="{path}"/>']
    for place, (low, high, count) in enumerate(zip(bins.edges, bins.edges[1:], bins.counts, strict=False)):
        marks.append(_touched(place, len(bins.counts), f"{low:.4g} to {high:.4g}: {count:,}"))
    return _decorative(marks)


def _named(one: Bin) -> str:
    if one.kind == "range":
        low, high = ("" if end is None else f"{end:.4g}" for end in (one.low, one.high))
        return f"{low} to {high}" if low and high else f"below {high}" if high else f"from {low}" if low else "all"
    return (one.value or "an empty text")[:_NAME] if one.kind == "value" else one.kind


def _outline(heights: Sequence[float]) -> str:
    """Steps of one width; 1 is the top."""
    width, height = _SMALL
    step = width / max(1, len(heights))
    tops = [f"V{height - 1 - share * (height - 3):.1f}H{(place + 1) * step:.1f}" for place, share in enumerate(heights)]
    return f"M0 {height - 1}{''.join(tops)}V{height - 1}"


def _touched(place: int, count: int, said: str) -> str:
    """What the pointer is told over a bin."""
    width, height = _SMALL
    left, step = place * width / count, width / count
    title = f"<title>{escape(said)}</title>"
    return f'<rect x="{left:.1f}" y="0" width="{step:.1f}" height="{height}" fill-opacity="0">{title}</rect>'


def _decorative(marks: Sequence[str]) -> Markup:
    width, height = _SMALL
    drawn = f'<svg viewBox="0 0 {width} {height}" aria-hidden="true" class="small">{"".join(marks)}</svg>'
    return Markup(drawn)  # noqa: S704  every text in it was escaped
