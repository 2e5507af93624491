"""one run → all that is on record of it, its log, an end to it; and a new one on demand."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from types import MappingProxyType
from urllib.parse import quote

from markupsafe import Markup

from headrace.infra.console.asking import is_led, moved, said_of, training
from headrace.infra.console.charts import SERIES, At, Axes, Line, bars, by_epoch
from headrace.infra.console.site import HTML, SAFE, Route, Site, form
from headrace.infra.console.view import short
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import NotFound, RequestRefused
from headrace.infra.services.changes.ask import MoveRefused
from headrace.infra.services.runs.run_list import one_of
from headrace.infra.services.runs.run_logs import newest_lines
from headrace.infra.services.runs.run_words import compared, curves_together, progress_of, rows_of, thinned, took
from headrace.infra.services.versions.book import RunFacts
from headrace.infra.services.written import seconds
from headrace.infra.training import plain
from headrace.models.errors import BadInput

_LINES = 2_000  # of a log
_POINTS = 400  # of a curve, in a drawing
_CURVES = 12  # drawings
_SEEN_SECONDS = 5.0  # until our own request comes back from the topic
_LOOK_SECONDS = 0.05


async def _run(site: Site, request: Request, pipeline: str, run: str) -> Response:
    found = _facts(site, pipeline, run)
    waits = found.state == "requested"
    return site.page(
        request,
        "run.html",
        title=f"Run {short(found.run)}",
        pipeline=pipeline,
        tab="Runs",
        watch=[f"runs:{pipeline}"],
        run=found,
        key=plain(found.run),
        goes_on=not found.finished_at,
        waits=waits,
        led=await is_led(site, pipeline) if waits else None,
        progress=progress_of(found, datetime.now(UTC)),
        rows=rows_of(found),
        took=took(found),
        compared=compared(found),
        stages=bars({short(name, 14): value for name, value in found.seconds.items()}, seconds, "Seconds by stage"),
        curves=_drawn(found.curves),
        log=await _log_of(site, pipeline, found),
    )


async def _log(site: Site, request: Request, pipeline: str, run: str) -> Response:  # noqa: ARG001  a handler's
    """The part of the page that is asked for again while it trains."""
    found = _facts(site, pipeline, run)
    data = {"pipeline": pipeline, "key": plain(found.run), "log": await _log_of(site, pipeline, found)}
    return Response(200, site.view.html("run_log.html", data), [HTML, *SAFE])


async def _log_of(site: Site, pipeline: str, found: RunFacts) -> Mapping[str, object]:
    place = site.place(pipeline)
    follows = bool(found.host) and not found.finished_at and found.host == socket.gethostname()
    if found.source:
        why_not = "A tick of scheduled scoring has no log of its own: see that of its scheduler."
        return {"lines": [], "whole": True, "follows": False, "problem": why_not}
    try:
        tail = await site.ask(lambda: newest_lines(site.settings, place, found, _LINES))
    except (BadInput, OSError) as error:
        return {"lines": [], "whole": True, "follows": follows, "problem": str(error)}
    return {"lines": tail.lines, "whole": tail.whole, "follows": follows, "problem": ""}


def _drawn(curves: Mapping[str, Sequence[float]]) -> list[tuple[list[str], Markup]]:
    """(names, the drawing) of those with one unit."""
    found = []
    for names in curves_together(curves)[:_CURVES]:
        lines = [
            Line(
                name=name,
                points=[At(time=epoch, value=value) for epoch, value in thinned(curves[name], _POINTS)],
                series=number,
            )
            for number, name in enumerate(names[:SERIES])
        ]
        label = f"{' and '.join(names[:SERIES])} by epoch"
        found.append((names[:SERIES], by_epoch(lines, Axes(label=label, width=480))))
    return found


def _facts(site: Site, pipeline: str, run: str) -> RunFacts:
    """Raises NotFound."""
    site.place(pipeline)
    try:
        with site.catalog.of(pipeline).book() as book:
            return one_of(book, run)
    except BadInput as error:
        raise NotFound(str(error)) from error


async def _ask_cancel(site: Site, request: Request, pipeline: str, run: str) -> Response:
    return _confirm_cancel(site, request, pipeline, _facts(site, pipeline, run))


async def _cancel(site: Site, request: Request, pipeline: str, run: str) -> Response:
    found, fields = _facts(site, pipeline, run), await form(request)
    try:
        await moved(site, request, pipeline, "cancel", fields, target=found.run)
    except (MoveRefused, RequestRefused) as error:
        return _confirm_cancel(site, request, pipeline, found, refused=error, why=fields.get("why", ""))
    return site.notice(_place(pipeline, found.run), "Cancelled.")


def _confirm_cancel(
    site: Site,
    request: Request,
    pipeline: str,
    found: RunFacts,
    *,
    refused: MoveRefused | RequestRefused | None = None,
    why: str = "",
) -> Response:
    return site.page(
        request,
        "cancel.html",
        title="Cancel a run",
        pipeline=pipeline,
        tab="Runs",
        run=found,
        key=plain(found.run),
        goes_on=not found.finished_at and not found.source,
        why=why,
        once=site.once.key(),
        **said_of(refused),
    )


async def _ask_retrain(
    site: Site,
    request: Request,
    pipeline: str,
    *,
    refused: RequestRefused | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    place = site.place(pipeline)
    with site.catalog.of(pipeline).book() as book:
        paused, busy = book.paused, [one for one in book.runs() if not one.finished_at and not one.source]
    return site.page(
        request,
        "retrain.html",
        title="Retrain now",
        pipeline=pipeline,
        tab="Runs",
        led=await is_led(site, pipeline),
        limits=place.pipeline.run,
        is_paused=paused is not None and paused.paused,
        busy=len(busy),
        why=fields.get("why", ""),
        sanity=fields.get("sanity") == "yes",
        once=site.once.key(),
        **said_of(refused),
    )


async def _retrain(site: Site, request: Request, pipeline: str) -> Response:
    fields = await form(request)
    try:
        run = await training(site, request, pipeline, fields)
    except NotFound:  # no such pipeline has a form
        raise
    except RequestRefused as error:
        return await _ask_retrain(site, request, pipeline, refused=error, fields=fields)
    deadline = monotonic() + _SEEN_SECONDS
    while monotonic() < deadline:
        with site.catalog.of(pipeline).book() as book:
            seen = any(one.run == run for one in reversed(book.runs()))
        if seen:
            return site.notice(_place(pipeline, run), "Asked for. This page follows it.")
        await asyncio.sleep(_LOOK_SECONDS)
    said = f"Run {run} is asked for. It is shown here as soon as this server has read the topic."
    return site.notice(f"/console/p/{quote(pipeline)}/runs", said)


def _place(pipeline: str, run: str) -> str:
    return f"/console/p/{quote(pipeline)}/runs/{plain(run)}"


ROUTES = [
    Route("GET", "/p/{pipeline}/runs/{run}", _run),
    Route("GET", "/p/{pipeline}/runs/{run}/log", _log),
    Route("GET", "/p/{pipeline}/runs/{run}/cancel", _ask_cancel, role="operate"),
    Route("POST", "/p/{pipeline}/runs/{run}/cancel", _cancel, role="operate"),
    Route("GET", "/p/{pipeline}/retrain", _ask_retrain, role="operate"),
    Route("POST", "/p/{pipeline}/retrain", _retrain, role="operate"),
]
