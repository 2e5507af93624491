"""registry, runs, history → who served when, over event time, and the list of versions."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any
from urllib.parse import quote

from headrace.infra.console.site import Route, Site, here
from headrace.infra.console.timeline_chart import Lane, drawable, timeline
from headrace.infra.names import Names
from headrace.infra.serve.http import Request, Response
from headrace.infra.services.runs.run_words import beside
from headrace.infra.services.versions.book import Standing, VersionFacts
from headrace.infra.services.versions.event_times import begins, ends
from headrace.infra.services.versions.spells import Spell, Window, spells, trained_through, window
from headrace.infra.services.versions.version_search import Kind, matching

_A_PAGE = 50  # versions in the list
_SPELLS = 20  # in the drawing
_LOOKING_SECONDS = 1.0  # for event times, of one answer; what is not found then comes with the next
_KINDS: Mapping[str, Kind] = {"promoted": "promoted", "unpromoted": "unpromoted", "archived": "archived"}


async def _list(site: Site, request: Request, pipeline: str) -> Response:
    names = site.place(pipeline)
    before, page = _whole(request.query("before")), max(1, _whole(request.query("page")))
    text, kind, alias = request.query("q")[:200], _KINDS.get(request.query("show"), ""), request.query("alias")[:40]
    followed, metric = site.catalog.of(pipeline), names.pipeline.metric
    with followed.book() as book:
        versions, standing = book.versions(), book.standing()
    found = await site.ask(lambda: matching(versions, text=text, kind=kind, alias=alias))
    shown = found[(page - 1) * _A_PAGE : page * _A_PAGE]
    drawn = await site.ask(lambda: _drawing(site, names, versions, standing, before))
    chosen: Window = drawn["window"]
    if drawn["looking"]:
        site.hub.changed(f"times:{pipeline}")  # the page asks again, and more is found
    pages = max(1, ceil(len(found) / _A_PAGE))
    return site.page(
        request,
        "versions.html",
        title="Versions",
        pipeline=pipeline,
        tab="Versions",
        watch=[f"versions:{pipeline}", f"runs:{pipeline}", f"history:{pipeline}", f"times:{pipeline}"],
        **drawn,
        spells_newer="" if chosen.newer is None else here(request, before=str(chosen.newer or "")),
        spells_older="" if chosen.older is None else here(request, before=str(chosen.older)),
        metric=metric,
        rows=[(one, beside(one.metrics, one.champion_metrics, first=metric)) for one in shown],
        found=len(found),
        of=len(versions) - 1,
        q=text,
        show=kind,
        alias=alias,
        standing=standing,
        ready=site.catalog.ready.is_set(),
        failure=site.catalog.failure or followed.failure,
        page=page,
        pages=pages,
        newer=here(request, page=str(page - 1) if page > 2 else "") if page > 1 else "",
        older=here(request, page=str(page + 1)) if page < pages else "",
    )


def _drawing(site: Site, names: Names, versions: Sequence[VersionFacts], now: Standing, before: int) -> dict[str, Any]:
    """The spells of one window, as far as their times are known after a second."""
    followed, times = site.catalog.of(names.pipeline.name), site.event_times[names.pipeline.name]
    lines = [one for one in followed.served() if one.topic == names.events]
    chosen = window(lines, before, _SPELLS)
    complete = times.find([*begins(chosen.lines), *ends(chosen.lines)], _LOOKING_SECONDS)
    numbers = {one.version for one in chosen.lines}
    ticks = {one.version: one.tick for one in versions if one.tick and one.version in numbers}
    found = spells(chosen.lines, now.promotions, ticks, times)
    newest = times.newest(sorted({one.partition for one in lines})) if lines else None
    # the newest window has a lane for each alias, too, whether it served or not
    also = sorted(set(now.aliases.values()) - numbers) if chosen.newer is None else []
    with followed.manifests() as manifest:
        trained = trained_through(manifest, [*numbers, *also])
    of: dict[int, list[Spell]] = {number: [] for number in also}
    for spell in found:
        of.setdefault(spell.version, []).append(spell)
    place = f"/console/p/{quote(names.pipeline.name)}/versions"
    lanes = [
        Lane(
            version=number,
            href=f"{place}/{number}",
            aliases=tuple(name for name, meant in now.aliases.items() if meant == number),
            spells=of[number],
            trained_through=trained.get(number),
        )
        for number in sorted(of, key=lambda number: (bool(of[number]), *(-one.seq for one in of[number][:1]), -number))
    ]
    return {
        "timeline": timeline(lanes, newest, f"Which versions of {names.pipeline.name} served when, by event time"),
        "undrawn": sum(not drawable(spell) for spell in found),
        "by_tick": sum(spell.by_tick for spell in found),
        "uneven": any(spell.begin != spell.begin_everywhere for spell in found),
        "served": bool(lines),
        "looking": not complete,
        "window": chosen,
    }


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= 9 else 0


ROUTES = [Route("GET", "/p/{pipeline}/versions", _list)]
