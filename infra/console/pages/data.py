"""a pipeline's topics → their records, newest first, and one record with its bytes; served rows."""

from typing import Any
from urllib.parse import quote

from headrace.infra.console.fields import whole_number
from headrace.infra.console.pages.letters import letter_at, letters
from headrace.infra.console.site import Route, Site, here, redirect
from headrace.infra.console.tabs import DEAD_LETTERS, PROFILE, SERVED, tabs, topic_of
from headrace.infra.hexdump import hexdump
from headrace.infra.names import Names
from headrace.infra.seek import is_place
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import NotFound
from headrace.infra.services.data import browse as browsing
from headrace.infra.services.data import served_rows as serving
from headrace.models.errors import BadInput

_ROWS = 50
_WIDTH = 400  # characters of a value in a list
_VALUE = 50_000  # and on its own page; its bytes are all there
_BYTES = 4_096  # of a dump at once
_FURTHER = 10  # times as many records, when a search is asked to go on
_MOST = 10_000_000
_COLUMNS = 40  # features of a served row in the list


async def _list(site: Site, request: Request, pipeline: str) -> Response:
    names = site.place(pipeline)
    topic = topic_of(names, request.query("topic"))
    if topic == PROFILE and topic not in {one.name for one in names.pipeline.inputs}:
        return redirect(f"/console/p/{quote(pipeline)}/data/profile")
    if topic == names.pipeline.topic(SERVED):
        return await _served(site, request, names)
    if topic == names.pipeline.topic(DEAD_LETTERS):
        return await letters(site, request, names)
    return await _records(site, request, names, topic)


async def _records(site: Site, request: Request, names: Names, topic: str) -> Response:
    search, before, after = (request.query(name).strip() for name in ("search", "before", "after"))
    look_back = min(_MOST, whole_number(request, "look_back", browsing.LOOK_BACK))

    def ask() -> browsing.Page:
        where = {"limit": _ROWS, "search": search, "look_back": look_back, "width": _WIDTH}
        page = browsing.browse(site.settings, names, topic, before=before, after=after, **where)  # type: ignore[arg-type]
        if after and not before and not search and len(page.records) < _ROWS:  # the newest ones, and a full page
            page = browsing.browse(site.settings, names, topic, **where)  # type: ignore[arg-type]
        return page

    page = await _found(site, ask)
    goes_on = page.older is not None and bool(search) and len(page.records) < _ROWS
    return _page(
        site,
        request,
        names,
        "records.html",
        page.topic,
        page=page,
        search=search,
        further=min(_MOST, look_back * _FURTHER) if goes_on and look_back < _MOST else 0,
        is_newest=not before and not after,
        watch=[] if before or after or search else _written(names, topic),
        links={
            "newest": here(request, before="", after="", look_back=""),
            "newer": here(request, before="", after=page.newer),
            "older": here(request, after="", before=page.older) if page.older else "",
            "further": here(request, look_back=str(min(_MOST, look_back * _FURTHER))),
        },
    )


async def _served(site: Site, request: Request, names: Names) -> Response:
    before, event = request.query("before"), request.query("id").strip()
    version = whole_number(request, "version", -1)
    look_back = min(_MOST, whole_number(request, "look_back", serving.LOOK_BACK))
    page = await _found(
        site,
        lambda: serving.served_rows(
            site.settings,
            names,
            limit=_ROWS,
            version=None if version < 0 else version,
            event_id=event,
            before=before,
            look_back=look_back,
        ),
    )
    columns = dict.fromkeys(name for row in page.rows for name in row.features)
    goes_on = page.older is not None and (bool(event) or version >= 0) and len(page.rows) < _ROWS
    return _page(
        site,
        request,
        names,
        "served.html",
        names.pipeline.topic(SERVED),
        page=page,
        columns=list(columns)[:_COLUMNS],
        more_columns=max(0, len(columns) - _COLUMNS),
        event=event,
        version="" if version < 0 else str(version),
        further=look_back * _FURTHER if goes_on and look_back < _MOST else 0,
        links={
            "newest": here(request, before="", look_back=""),
            "older": here(request, before=page.older) if page.older else "",
            "further": here(request, look_back=str(min(_MOST, look_back * _FURTHER))),
        },
        is_newest=not before,
        watch=[] if before or event or version >= 0 else _written(names, names.pipeline.topic(SERVED)),
    )


async def _record(site: Site, request: Request, pipeline: str, topic: str, partition: str, offset: str) -> Response:
    names = site.place(pipeline)
    if not (is_place(partition, offset)):
        raise NotFound(f"record: expected topic/partition/offset, got {f'{topic}/{partition}/{offset}'[:100]!r}")
    place = int(partition), int(offset)
    found = await _found(site, lambda: browsing.record(site.settings, names, topic, *place))
    record, data = found.record, found.value or b""
    is_letter = record.topic == names.pipeline.topic(DEAD_LETTERS)
    start = min(whole_number(request, "at", 0), max(0, len(data) - 1))
    start -= start % _BYTES
    return _page(
        site,
        request,
        names,
        "record.html",
        record.topic,
        title=record.place,
        record=record,
        letter=await _found(site, lambda: letter_at(site.settings, names, *place)) if is_letter else None,
        key_bytes=hexdump(found.key or b"", limit=_BYTES),
        bytes=hexdump(data, start=start, limit=_BYTES) if data else "",
        shown=(start, min(len(data), start + _BYTES), len(data)),
        most=_VALUE,
        explains=_explained(names, found),
        prefix=names.prefix,
        links={
            "before": here(request, at=str(start - _BYTES)) if start else "",
            "behind": here(request, at=str(start + _BYTES)) if start + _BYTES < len(data) else "",
        },
    )


def _explained(names: Names, found: browsing.WholeRecord) -> str:
    """What the page Explain is asked for: the event's place where the record is it, else its id."""
    record = found.record
    return record.place if record.topic == names.pipeline.events.name else record.id


async def _found(site: Site, ask: Any) -> Any:
    try:
        return await site.ask(ask)
    except BadInput as error:
        raise NotFound(str(error)) from error


def _page(
    site: Site, request: Request, names: Names, template: str, topic: str, *, title: str = "Data", **data: Any
) -> Response:
    return site.page(
        request,
        template,
        title=title,
        pipeline=names.pipeline.name,
        tab="Data",
        tabs=tabs(names, topic),
        topic=topic,
        **data,
    )


def _written(names: Names, topic: str) -> list[str]:
    """The newest records move on as they come; a page that was turned to, or searched for, stays."""
    return [f"topic:{names.of(topic)}"]


ROUTES = [
    Route("GET", "/p/{pipeline}/data", _list),
    Route("GET", "/p/{pipeline}/data/{topic}/{partition}/{offset}", _record),
]
