"""spells of versions → who served when, over event time: a lane for each version, as inline SVG of links."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup, escape

from headrace.infra.console.charts import Scale, time_ticks
from headrace.infra.services.versions.spells import Spell
from headrace.models.durations import iso

_WIDTH, _LANE, _LEFT, _RIGHT, _TOP, _BOTTOM = 1120, 26, 184, 22, 6, 40
_THICK = 12  # of a bar
_LEAST = 3.0  # px that a bar is wide, however short it served
_HOUR = 3_600_000
_LABEL = 24  # characters of a lane's name


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One version. Times are event times, Unix ms."""

    version: int
    href: str
    aliases: tuple[str, ...]
    spells: Sequence[Spell]
    trained_through: int | None  # the newest row that it was trained on


def timeline(lanes: Sequence[Lane], newest: int | None, label: str) -> Markup:
    """From the oldest spell's beginning to `newest`, the newest event. What began before the oldest row begins at
    the left. "" where no spell has a time."""
    spells = [spell for lane in lanes for spell in lane.spells]
    known = [at for one in spells for at in (one.begin, one.begin_everywhere, one.end) if at is not None]
    if newest is not None and any(one.serves for one in spells):
        known.append(newest)
    if not known:
        return Markup("")
    first, last = min(known), max(*known, min(known) + _HOUR)
    trained = [lane.trained_through for lane in lanes if lane.trained_through is not None]
    first = max(min([first, *trained]), first - (last - first) // 4)  # a model of old data does not squeeze the rest

    def across(time: float) -> float:
        return _LEFT + (min(max(time, first), last) - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    height = _TOP + _LANE * len(lanes) + _BOTTOM
    inner = [_axis(first, last, height - _BOTTOM, across)]
    inner += [_lane(lane, _TOP + _LANE * row, first, last, across) for row, lane in enumerate(lanes)]
    drawn = "".join(inner)
    return Markup(  # noqa: S704  every text in it was escaped
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="group" class="timeline" aria-label="{escape(label)}">{drawn}</svg>'
    )


def _axis(first: int, last: int, floor: int, across: Scale) -> str:
    marks = [
        f'<path class="axis" d="M{across(at):.1f} {_TOP}V{floor + 4}"/>'
        f'<text x="{across(at):.1f}" y="{floor + 17}" text-anchor="middle">{text}</text>'
        for at, text in time_ticks(first, last, 9)
    ]
    marks.append(f'<path class="axis" d="M{_LEFT} {floor}H{_WIDTH - _RIGHT}"/>')
    begin, end = (datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M") for at in (first, last))
    marks.append(f'<text x="{_LEFT}" y="{floor + 34}">event time, UTC: {begin} to {end}</text>')
    return "".join(marks)


def _lane(lane: Lane, top: int, first: int, last: int, across: Scale) -> str:
    name = f"version {lane.version}" if lane.version else "baseline"
    said = f"{name} · {', '.join(lane.aliases)}" if lane.aliases else name
    shown = said if len(said) <= _LABEL else said[: _LABEL - 1] + "…"
    middle, strong = top + _LANE / 2, " strong" if "champion" in lane.aliases else ""
    text = f'<text class="name{strong}" x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(shown)}</text>'
    parts = [
        f'<path class="axis" opacity=".5" d="M{_LEFT} {middle}H{_WIDTH - _RIGHT}"/>',
        f'<a href="{escape(lane.href)}" aria-label="{escape(said)}">{text}</a>',
    ]
    begins = [spell.begin for spell in lane.spells if spell.begin is not None]
    if lane.trained_through is not None:
        parts.append(_fresh(lane.trained_through, min(begins, default=lane.trained_through), middle, across))
    for spell in lane.spells:
        if drawable(spell):
            begin = spell.begin if spell.begin is not None else last if spell.waits else first
            end = spell.end if spell.end is not None else last
            parts.append(_bar(spell, (begin, end), lane.href, name, middle, across))
    return "".join(parts)


def _fresh(trained: int, begin: int, middle: float, across: Scale) -> str:
    """From the newest row that it was trained on to its first event: how old its knowledge was."""
    x, said = across(trained), f"trained on rows up to {iso(trained)}"
    return (
        f'<path class="guide" d="M{x:.1f} {middle}H{across(begin):.1f}"/>'
        f'<circle class="trained" cx="{x:.1f}" cy="{middle}" r="3"><title>{escape(said)}</title></circle>'
    )


def drawable(spell: Spell) -> bool:
    """Whether anything is known of when it was."""
    return spell.begin is not None or spell.end is not None or spell.serves


def _bar(spell: Spell, ends: tuple[int, int], href: str, name: str, middle: float, across: Scale) -> str:
    """Pale where only some partitions were served by it: each switches for itself."""
    begin, end = ends
    everywhere = spell.begin_everywhere if spell.begin_everywhere is not None else begin
    left, right = across(begin), max(across(end), across(begin) + _LEAST)
    kind = "now" if spell.serves else spell.move or "promote"
    parts = []
    solid = across(everywhere), across(spell.end_anywhere if spell.end_anywhere is not None else end)
    if solid[1] - solid[0] < right - left - 1:  # they differ so that it shows
        parts.append(f'<rect class="spell some {kind}" {_box(left, right, middle)}/>')
        left, right = solid
    if right > left:
        parts.append(f'<rect class="spell {kind}" {_box(left, right, middle)}/>')
    parts.append(_move(spell.move, across(begin), middle))
    text = _said(spell, name)
    return (
        f'<a href="{escape(href)}" aria-label="{escape(text.splitlines()[0])}">'
        f"<title>{escape(text)}</title>{''.join(parts)}</a>"
    )


def _box(left: float, right: float, middle: float) -> str:
    return f'x="{left:.1f}" y="{middle - _THICK / 2}" width="{right - left:.1f}" height="{_THICK}" rx="2"'


def _move(move: str, x: float, middle: float) -> str:
    """A rollback points back; a pin stands."""
    if move == "rollback":
        return f'<path class="mark" d="M{x - 5:.1f} {middle}l7 -6v12z"/>'
    if move == "pin":
        return f'<path class="mark" d="M{x:.1f} {middle - 6}l6 6l-6 6l-6 -6z"/>'
    return f'<path class="mark" d="M{x:.1f} {middle - 8}h2v16h-2z"/>' if move else ""


def _said(spell: Spell, name: str) -> str:
    if spell.waits:
        lines = [f"{name} serves, and no event came since"]
    else:
        begin = "before the oldest row" if spell.begin is None else iso(spell.begin)
        until = "on" if spell.serves else f"to {iso(spell.end)}" if spell.end is not None else "on for some time"
        lines = [f"{name} served from {'about ' if spell.by_tick else ''}{begin} {until}"]
    if spell.move:
        lines += [f"{spell.move} by {spell.by}, {spell.at}", spell.why]
    if spell.by_tick:
        lines.append("its rows are gone: the time is that of its run")
    return "\n".join(filter(None, lines))
