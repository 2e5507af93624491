"""a pipeline's status → its flow as a picture: what passes each arrow, how fast, how long it takes. Boxes are links."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup, escape

from headrace.infra.services.watch.status import Status
from headrace.infra.services.written import number, rate, seconds

_WIDTH, _HEIGHT = 1080, 272
_W, _H = 144, 50  # of a box
_COLUMNS = (4, 236, 468, 700, 932)
_TOP, _MIDDLE, _LOW = 6, 108, 214
_BEND = 186  # where arrows pass between the middle row and the lowest


@dataclass(frozen=True, kw_only=True)
class _Box:
    name: str
    x: int
    y: int
    said: str = ""
    page: str = ""
    state: str = ""


def flow_picture(status: Status, *, side: bool) -> Markup:
    """`side`: whether the pipeline has side topics."""
    times = {one.stage: one for one in status.stages}

    def spent(stage: str) -> str:
        found = times.get(stage)
        return f"p99 {seconds(found.p99)} a chunk" if found else "no chunk so far"

    c = _COLUMNS
    waits = status.lag is not None and status.lag > 1
    boxes = [
        _Box(name="events", x=c[0], y=_MIDDLE, said=f"{status.events:,} so far", page="/data"),
        _Box(name="decode", x=c[1], y=_MIDDLE, said=spent("decode")),
        _Box(name="features", x=c[2], y=_MIDDLE, said=spent("features")),
        _Box(name="infer", x=c[3], y=_MIDDLE, said=spent("infer"), page="/versions"),
        _Box(name="predictions", x=c[4], y=_MIDDLE, said="you subscribe", page="/data?topic=predictions"),
        _Box(name="labels", x=c[0], y=_LOW, said="what came true", page="/data?topic=labels"),
        _Box(name="live join", x=c[1], y=_LOW, said="live metrics, drift"),
        _Box(
            name="training",
            x=c[2],
            y=_LOW,
            said=f"{status.running_stage} now" if status.running else status.newest_run_state or "none so far",
            page="/runs",
            state="bad" if status.newest_run_state == "failed" and not status.running else "",
        ),
        _Box(
            name="registry",
            x=c[4],
            y=_LOW,
            said=f"version {status.champion}" if status.champion else "baseline",
            page="/versions",
        ),
    ]
    if status.dead_letters or status.dead_per_second:
        boxes.append(
            _Box(
                name="dead letters",
                x=c[4],
                y=_TOP,
                said=f"{number(status.dead_letters)} parked",
                page="/data?topic=dead-letters",
                state="warn" if status.dead_per_second else "",
            )
        )
    predicted = status.predictions_per_second
    arrows = [
        _across(c[0], c[1], _MIDDLE, status.events_per_second, f"{status.lag:,} wait" if waits else "none waits"),
        _across(c[1], c[2], _MIDDLE, predicted, ""),
        _across(c[2], c[3], _MIDDLE, predicted, ""),
        _across(c[3], c[4], _MIDDLE, predicted, f"p99 {seconds(status.latency_p99)}"),
        _across(c[0], c[1], _LOW, status.labels_per_second, ""),
        _across(c[1], c[2], _LOW, None, "triggers"),
        _across(c[2], c[4], _LOW, None, "gate, publish"),
        _path(f"M{c[3] + 40} {_MIDDLE + _H}V{_BEND}H{c[1] + _W // 2}V{_LOW}", predicted),
        _text(c[2] + _W // 2 + 20, _BEND - 6, "served rows", "middle"),
        _path(f"M{c[4] + _W // 2} {_LOW}V{_BEND}H{c[3] + 84}V{_MIDDLE + _H}", None),
        _text(c[3] + _W + 70, _BEND - 6, "hot swap", "middle"),
    ]
    if side:
        boxes += [
            _Box(name="side topics", x=c[1], y=_TOP, said="what changes beside"),
            _Box(name="feature store", x=c[2], y=_TOP, said="as of event time"),
        ]
        arrows += [
            _across(c[1], c[2], _TOP, status.side_per_second, ""),
            _path(f"M{c[2] + _W // 2} {_TOP + _H}V{_MIDDLE}", predicted),
        ]
        arrows.append(_text(c[2] + _W // 2 + 8, _TOP + _H + 30, "one look a chunk", "start"))
    if status.dead_letters or status.dead_per_second:
        arrows += [
            _path(f"M{c[3] + _W // 2} {_MIDDLE}V{_TOP + _H // 2}H{c[4]}", status.dead_per_second),
            _text(c[3] + _W // 2 + 8, _TOP + _H // 2 - 6, rate(status.dead_per_second), "start"),
        ]
    drawn = "".join(arrows) + "".join(_box(box, status.pipeline) for box in boxes)
    label = f"Flow of {status.pipeline}: {rate(status.events_per_second)} events, {rate(predicted)} predictions"
    return Markup(  # noqa: S704  every text in it was escaped
        f'<svg class="flow" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{escape(label)}">'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>{drawn}</svg>'
    )


def _box(box: _Box, pipeline: str) -> str:
    x, width = box.x, _W
    inner = (
        f'<rect class="box {box.state}" x="{x}" y="{box.y}" width="{width}" height="{_H}" rx="7"/>'
        f'<text class="name" x="{x + width // 2}" y="{box.y + 21}" text-anchor="middle">{escape(box.name)}</text>'
        f'<text class="said" x="{x + width // 2}" y="{box.y + 38}" text-anchor="middle">{escape(box.said)}</text>'
    )
    if not box.page:
        return f"<g>{inner}</g>"
    place = f"/console/p/{quote(pipeline)}{box.page}"
    return f'<a href="{escape(place)}" aria-label="{escape(f"{box.name}: {box.said}")}">{inner}</a>'


def _across(left: int, right: int, y: int, per_second: float | None, below: str) -> str:
    """From the right side of a box to the left one of another, with its rate above and what else is known below."""
    begin, end, middle = left + _W + 10, right - 10, y + _H // 2
    x = (begin + end) // 2
    texts: Sequence[str] = [
        _text(x, middle - 7, rate(per_second) if per_second is not None else "", "middle", strong=True),
        _text(x, middle + 17, below, "middle"),
    ]
    return _path(f"M{begin} {middle}H{end}", per_second) + "".join(texts)


def _path(way: str, per_second: float | None) -> str:
    runs = " runs" if per_second else ""
    return f'<path class="arrow{runs}" d="{way}" marker-end="url(#head)"/>'


def _text(x: int, y: int, text: str, anchor: str, *, strong: bool = False) -> str:
    if not text:
        return ""
    kind = "said strong" if strong else "said"
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
