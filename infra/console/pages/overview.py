"""everything that runs → one look that says whether all is well."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from time import monotonic

from markupsafe import Markup

from headrace.infra.console.charts import At, Axes, Line, Mark, over_time, sparkline
from headrace.infra.console.flow_picture import flow_picture
from headrace.infra.console.site import Route, Site, redirect
from headrace.infra.serve.http import Request, Response
from headrace.infra.services.compare.live_lines import LiveLines, live_lines
from headrace.infra.services.watch.status import Sample, Status
from headrace.models.durations import to_ms

_LINES_SECONDS = 60.0  # that the metric's lines are shown as they are: they take seconds
_PAGE = 60  # pipelines
_NOTHING = Sample(at_ms=0, events_per_second=None, predictions_per_second=None, lag=None, p99=None)


async def _all(site: Site, request: Request) -> Response:
    if len(site.names) == 1 and not request.query("all"):
        return redirect(f"/console/p/{next(iter(site.names))}")
    wanted = request.query("q").strip().lower()
    rows = [
        (name, site.board.of(name), sparkline(_events(site.board.history(name)), f"events of {name} a second"))
        for name in site.names
        if wanted in name.lower()
    ]
    rows.sort(key=lambda row: (_urgency(row[1]), row[0]))
    return site.page(
        request,
        "pipelines.html",
        title="Pipelines",
        watch=["board"],
        rows=rows[:_PAGE],
        more=max(0, len(rows) - _PAGE),
        q=request.query("q"),
        troubled=sum(1 for name in site.names if _urgency(site.board.of(name)) < 2),
    )


async def _one(site: Site, request: Request, pipeline: str) -> Response:
    names, status, history = site.place(pipeline), site.board.of(pipeline), site.board.history(pipeline)
    return site.page(
        request,
        "overview.html",
        title=pipeline,
        pipeline=pipeline,
        tab="Overview",
        watch=[f"board:{pipeline}", f"versions:{pipeline}", f"runs:{pipeline}"],
        now=status,
        picture=None if status is None else flow_picture(status, side=bool(names.pipeline.side_topics)),
        metric=names.pipeline.metric,
        trends=_trends(history),
    )


async def _lines(site: Site, request: Request, pipeline: str) -> Response:
    """The chart of the live metric: a part of the page that comes when it is ready."""
    names = site.place(pipeline)
    at, made = site.lines.get(pipeline, (float("-inf"), None))
    if made is None or monotonic() - at > _LINES_SECONDS:
        made = asyncio.ensure_future(site.ask(lambda: live_lines(site.settings, names)))  # once, whoever else asks
        site.lines[pipeline] = monotonic(), made
    try:
        lines = await asyncio.shield(made)
    except Exception:
        site.lines.pop(pipeline, None)
        raise
    return site.page(
        request, "live_lines.html", title="Live metric", pipeline=pipeline, lines=lines, chart=_chart(lines)
    )


def _chart(lines: LiveLines) -> Markup:
    """One line whatever served. Versions that shared a span stand in it one after the other, as they served."""
    labelled = [row for row in lines.rows if row.metrics.get(lines.metric) and row.labelled]
    shared = Counter(row.begin for row in labelled)
    points, marks, serving = [], [], None
    turn: Counter[str] = Counter()
    for row in labelled:
        part = lines.every_ms / shared[row.begin]
        estimate, begun = row.metrics[lines.metric], _ms(row.begin) + turn[row.begin] * part
        turn[row.begin] += 1
        middle = begun + part / 2
        note = f"version {row.version}, {row.labelled:,} labels from {row.begin}"
        points.append(At(time=middle, value=estimate.value, low=estimate.low, high=estimate.high, note=note))
        if serving is not None and row.version != serving:
            marks.append(Mark(time=begun, name=f"version {row.version}"))
        serving = row.version
    label = f"{lines.metric} of what served, over event time"
    return over_time([Line(name=lines.metric, points=points)], Axes(label=label, marks=marks))


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def _trends(history: Sequence[Sample]) -> list[tuple[str, Markup, float | None, str]]:
    """What the last quarter of an hour was like: name, drawing, newest value, and how that is written."""
    now = history[-1] if history else _NOTHING
    return [
        ("events a second", sparkline(_events(history), "events a second"), now.events_per_second, "rate"),
        ("events that wait", sparkline([one.lag for one in history], "lag"), now.lag, "number"),
        ("latency, p99", sparkline([one.p99 for one in history], "latency p99"), now.p99, "seconds"),
    ]


def _events(history: Sequence[Sample]) -> list[float | None]:
    return [one.events_per_second for one in history]


def _urgency(status: Status | None) -> int:
    if status is None:
        return 3
    return {"bad": 0, "warn": 1}.get(status.level, 2)


ROUTES = [
    Route("GET", "/pipelines", _all),
    Route("GET", "/p/{pipeline}", _one),
    Route("GET", "/p/{pipeline}/live-lines", _lines),
]
