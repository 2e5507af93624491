"""a pipeline's runs, its schedule, and what goes on → one page; and whether triggers make runs at all."""

from datetime import UTC, datetime
from typing import Literal, get_args
from urllib.parse import quote

from headrace.infra.console.asking import is_led, moved, said_of
from headrace.infra.console.site import Route, Site, form, here
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import NotFound, RequestRefused
from headrace.infra.services.changes.ask import MoveRefused
from headrace.infra.services.runs import run_list
from headrace.infra.services.runs.run_words import progress_of, took
from headrace.infra.services.runs.upcoming import upcoming
from headrace.streams.codec import clock_ms

_TIMES = 3  # of each trigger
_GOING = 20  # that are shown at once
_LONGEST = 200  # characters that are looked for
_Switch = Literal["pause", "resume"]


async def _runs(site: Site, request: Request, pipeline: str) -> Response:
    place = site.place(pipeline)
    outcome, text, every = request.query("outcome"), request.query("q")[:_LONGEST], bool(request.query("all"))
    if outcome and outcome not in run_list.OUTCOMES:
        raise RequestRefused(f"outcome: expected one of {', '.join(run_list.OUTCOMES)}; got {outcome[:100]!r}.")
    number = request.query("page")
    with site.catalog.of(pipeline).book() as book:
        runs, paused = book.runs(), book.paused

    def chosen() -> run_list.Past:
        page = int(number) if number.isdecimal() and len(number) < 10 else 1
        return run_list.past(runs, outcome=outcome, every=every, text=text, page=page)

    past, going, now = await site.ask(chosen), run_list.going(runs), datetime.now(UTC)
    waits = [one for one in going if one.state == "requested"]
    return site.page(
        request,
        "runs.html",
        title="Runs",
        pipeline=pipeline,
        tab="Runs",
        watch=[f"runs:{pipeline}"],
        schedule=upcoming(place.pipeline, clock_ms(), _TIMES),
        paused=paused if paused is not None and paused.paused else None,
        busy=[(one, progress_of(one, now)) for one in going if one.state != "requested"][:_GOING],
        waits=waits[:_GOING],
        waiting=len(waits),
        led=await is_led(site, pipeline) if waits else None,
        past=past,
        took=took,
        outcome=outcome,
        every=every,
        text=text,
        tabs=_tabs(request, past, outcome, every=every),
        newer=here(request, page=str(past.page - 1)) if past.page > 1 else "",
        older=here(request, page=str(past.page + 1)) if past.page < past.pages else "",
    )


def _tabs(request: Request, past: run_list.Past, outcome: str, *, every: bool) -> list[tuple[str, int, str, bool]]:
    """(its name, how many runs, where, whether it is this one); an outcome that never came has none."""
    ended = sum(past.counts.values())
    due = ended - past.counts.get(run_list.NOT_DUE, 0)
    found = [("Due", due, here(request, outcome="", all="", page=""), not outcome and not every)]
    for one in run_list.OUTCOMES:
        if past.counts.get(one) or one == outcome:
            place = here(request, outcome=one, all="", page="")
            found.append((one.replace("_", " ").capitalize(), past.counts.get(one, 0), place, one == outcome))
    if ended > due:
        found.append(("All", ended, here(request, outcome="", all="1", page=""), every and not outcome))
    return found


async def _ask(site: Site, request: Request, pipeline: str, switch: str) -> Response:
    return _confirm(site, request, pipeline, _switch(switch))


async def _do(site: Site, request: Request, pipeline: str, switch: str) -> Response:
    asking, fields = _switch(switch), await form(request)
    try:
        await moved(site, request, pipeline, asking, fields)
    except (MoveRefused, RequestRefused) as error:
        return _confirm(site, request, pipeline, asking, refused=error, why=fields.get("why", ""))
    said = {"pause": "Paused: no trigger makes a run.", "resume": "Resumed: triggers make runs again."}
    return site.notice(f"/console/p/{quote(pipeline)}/runs", said[asking])


def _confirm(
    site: Site,
    request: Request,
    pipeline: str,
    switch: _Switch,
    *,
    refused: MoveRefused | RequestRefused | None = None,
    why: str = "",
) -> Response:
    place = site.place(pipeline)
    with site.catalog.of(pipeline).book() as book:
        paused = book.paused
    return site.page(
        request,
        "switch.html",
        title=f"{switch.capitalize()} the schedule",
        pipeline=pipeline,
        tab="Runs",
        switch=switch,
        is_paused=paused is not None and paused.paused,
        triggers=[*map(repr, place.pipeline.retrain)],
        scores=[one.name for one in place.pipeline.score],
        why=why,
        once=site.once.key(),
        **said_of(refused),
    )


def _switch(text: str) -> _Switch:
    for one in get_args(_Switch):
        if one == text:
            return one  # type: ignore[no-any-return]  # one of its own words
    raise NotFound("There is no such page.")


ROUTES = [
    Route("GET", "/p/{pipeline}/runs", _runs),
    Route("GET", "/p/{pipeline}/schedule/{switch}", _ask, role="operate"),
    Route("POST", "/p/{pipeline}/schedule/{switch}", _do, role="operate"),
]
