"""dead letters → a list of them, one beside its bytes, and those that were chosen back on their topics."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from headrace.infra.console.site import Route, Site, form, here
from headrace.infra.console.tabs import DEAD_LETTERS, tabs
from headrace.infra.names import Names
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import NotFound, RequestRefused
from headrace.infra.services.dead_letters.letters import Letter, shown, shown_value
from headrace.infra.services.dead_letters.letters_page import letters_page
from headrace.infra.services.dead_letters.redrive import Redriven, redrive, redrive_all
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, HeadraceError

_ROWS = 50
_VALUE = 300  # characters in a list
_WHY = 500  # characters of a reason
_PLACE = re.compile(r"[A-Za-z0-9._-]{1,249}/\d{1,9}/\d{1,19}")


@dataclass(frozen=True, kw_only=True)
class _Row:
    letter: Letter
    place: str  # its own, without the prefix
    source: str  # of its record, without the prefix
    goes_to: str  # that, where it can be looked at; else ""
    key: str | None
    value: str | None


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Which letters are to go: these, or all with a reason."""

    chosen: Sequence[str] = ()  # places, without the prefix
    reason: str = ""
    why: str = ""


async def letters(site: Site, request: Request, names: Names) -> Response:
    """The newest, or those before a page's cursor."""
    search, reason, before = (request.query(name).strip() for name in ("search", "reason", "before"))
    try:
        page = await site.ask(
            lambda: letters_page(site.settings, names, reason=reason, search=search, limit=_ROWS, before=before)
        )
    except BadInput as error:
        raise NotFound(str(error)) from error
    rows = [_row(names, one) for one in page.letters]
    return _page(
        site,
        request,
        names,
        "letters.html",
        rows=rows,
        page=page,
        search=search,
        reason=reason,
        is_newest=not before,
        watch=[] if before or search or reason else [f"topic:{names.topics.dead_letters}"],
        links={
            "newest": here(request, before=""),
            "older": here(request, before=page.before) if page.before else "",
            "all": here(request, reason="", search="", before=""),
        },
    )


def letter_at(settings: Settings, names: Names, partition: int, offset: int) -> Letter | None:
    """None where the record at this place is the mark of another."""
    page = letters_page(settings, names, limit=1, before=f"{partition}:{offset + 1}", look_at=1)
    place = f"{names.topics.dead_letters}/{partition}/{offset}"
    return next((one for one in page.letters if one.place == place), None)


async def _reasons(site: Site, request: Request, pipeline: str) -> Response:
    names = site.place(pipeline)
    try:
        found = await site.ask(site.board.letters(pipeline).reasons)
    except HeadraceError as error:
        return site.part("reasons.html", pipeline=pipeline, reasons=[], text=str(error))
    return site.part(
        "reasons.html",
        pipeline=pipeline,
        reasons=found,
        text="",
        topic=names.pipeline.topic(DEAD_LETTERS),
        prefix=names.prefix,
        operates=site.asker(request).operates,
    )


async def _confirm_all(site: Site, request: Request, pipeline: str) -> Response:
    names, reason = site.place(pipeline), request.query("reason").strip()
    if not reason:
        raise RequestRefused("reason: expected which letters to redrive; got none. Choose a reason, or tick letters.")
    found = await site.ask(site.board.letters(pipeline).reasons)
    count = sum(one.open for one in found if one.reason == reason)
    return _confirm(site, request, names, _Asked(reason=reason), count=count)


async def _confirm_chosen(site: Site, request: Request, pipeline: str) -> Response:
    names, chosen = site.place(pipeline), _chosen(await form(request))
    if not chosen:
        raise RequestRefused("letters: expected at least one; got none. Go back, and tick some.")
    return _confirm(site, request, names, _Asked(chosen=chosen))


async def _redrive(site: Site, request: Request, pipeline: str) -> Response:
    names, fields = site.place(pipeline), await form(request)
    asked = _Asked(chosen=_chosen(fields), reason=fields.get("reason", "").strip(), why=fields.get("why", "").strip())
    if not asked.chosen and not asked.reason:
        raise RequestRefused("letters: expected some, or a reason; got neither. Go back, and tick some.")
    if not asked.why or len(asked.why) > _WHY:
        problem = f"Expected a reason of up to {_WHY} characters: it goes on record with each letter."
        return _confirm(site, request, names, asked, problem=problem)
    by = f"console: {site.asker(request).name}"

    def act() -> Redriven:
        if asked.chosen:
            places = [names.of(place) for place in asked.chosen]
            return redrive(site.settings, names, places, by=by, why=asked.why)
        return redrive_all(site.settings, names, reason=asked.reason, by=by, why=asked.why)

    async def done() -> str:
        return _said(names, await site.ask(act))

    try:
        text = await site.once((pipeline, "redrive"), fields.get("once", ""), done)
    except BadInput as error:
        return _confirm(site, request, names, asked, problem=str(error))
    return site.notice(f"/console/p/{quote(pipeline)}/data?topic={quote(names.pipeline.topic(DEAD_LETTERS))}", text)


def _confirm(
    site: Site, request: Request, names: Names, asked: _Asked, *, count: int | None = None, problem: str = ""
) -> Response:
    """`count` is how many have the reason and were not redriven yet, where somebody counted."""
    return _page(
        site,
        request,
        names,
        "redrive.html",
        status=400 if problem else 200,
        title="Redrive",
        asked=asked,
        count=count,
        most=_WHY,
        problem=problem,
        once=site.once.key(),
    )


def _chosen(fields: Mapping[str, str]) -> list[str]:
    """Each box has a name of its own. Places are of this pipeline's dead letters, without the prefix."""
    return [value for name, value in fields.items() if name.startswith("letter.")]


def _said(names: Names, done: Redriven) -> str:
    topics = ", ".join(f"{count:,} to {topic.removeprefix(names.prefix)}" for topic, count in done.topics.items())
    parts = [f"Redriven: {done.redriven:,}{f' ({topics})' if topics else ''}."]
    parts += [f"{done.already:,} had been redriven before."] if done.already else []
    parts += [f"{done.twins:,} are of records that went by another letter."] if done.twins else []
    parts += [f"{count:,} not redriven: {why}." for why, count in done.refused.items()]
    return " ".join(parts)


def _row(names: Names, letter: Letter) -> _Row:
    source = letter.source.removeprefix(names.prefix)
    value, key = shown_value(names, letter), shown(letter.key)
    return _Row(
        letter=letter,
        place=letter.place.removeprefix(names.prefix),
        source=source,
        goes_to=source if _PLACE.fullmatch(source) else "",
        key=None if key is None else key[:_VALUE],
        value=None if value is None else value[:_VALUE],
    )


def _page(
    site: Site, request: Request, names: Names, template: str, *, title: str = "Dead letters", **data: Any
) -> Response:
    topic = names.pipeline.topic(DEAD_LETTERS)
    pipeline = names.pipeline.name
    return site.page(
        request, template, title=title, pipeline=pipeline, tab="Data", tabs=tabs(names, topic), topic=topic, **data
    )


ROUTES = [
    Route("GET", "/p/{pipeline}/data/reasons", _reasons),
    Route("GET", "/p/{pipeline}/data/redrive", _confirm_all, role="operate"),
    Route("POST", "/p/{pipeline}/data/redrive/confirm", _confirm_chosen, role="operate"),
    Route("POST", "/p/{pipeline}/data/redrive", _redrive, role="operate"),
]
