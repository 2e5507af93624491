"""a wish to move the registry → a page that says what will happen, and the leader's answer to it."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from headrace.infra.console.asking import REASON, moved, said_of
from headrace.infra.console.pages.version import number_of
from headrace.infra.console.site import Route, Site, form
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import NotFound, RequestRefused
from headrace.infra.services.changes.ask import MoveRefused
from headrace.infra.services.changes.moves import refusal
from headrace.infra.services.versions.book import Standing, VersionFacts
from headrace.models.aliases import CHALLENGER
from headrace.models.records import Asking, Replied

_ALIAS: Final = 40


@dataclass(frozen=True, kw_only=True)
class _Kind:
    move: Asking
    title: str  # {version} is its name, as in the others
    button: str
    done: str
    danger: bool = False


_KINDS: Final = {
    "promote": _Kind(
        move="promote", title="Promote {version}", button="Promote {version}", done="{version} is the champion now."
    ),
    "rollback": _Kind(
        move="rollback",
        title="Roll back to {version}",
        button="Roll back to {version}",
        done="Rolled back: {version} is the champion now.",
    ),
    "pin": _Kind(move="pin", title="Pin {version}", button="Pin {version}", done="{version} is pinned."),
    "unpin": _Kind(
        move="unpin", title="Unpin {version}", button="Unpin {version}", done="{version} is pinned no more."
    ),
    "archive": _Kind(
        move="archive",
        title="Archive {version}",
        button="Archive {version}",
        done="{version} is archived.",
        danger=True,
    ),
    "alias": _Kind(move="alias", title="Name {version}", button="Give the name", done="{version} is {alias} now."),
    "unalias": _Kind(
        move="alias", title="Take a name from {version}", button="Take the name away", done="No version is {alias} now."
    ),
}
_REMEDIES: Final = {
    "pinned": "Unpin the champion first, or leave it: somebody held it on purpose.",
    "moved_on": "Another version serves by now. Look at it and at its reason, then decide anew.",
    "champion": "It serves already: there is nothing to do.",
    "archived": "An archived version does not come back. Train a new one, or take another.",
    "in_use": "Take its names away, or promote another version first.",
    "not_pinned": "Nothing holds the champion: there is nothing to do.",
    "bad_alias": "Take a name of a-z, 0-9 and dashes, of 40 characters at most.",
    "too_late": "Nobody led in time, and it is not done later. Look whether a scheduler runs, then ask again.",
}


async def _confirm(site: Site, request: Request, pipeline: str, version: str, move: str) -> Response:
    alias = request.query("alias")[:_ALIAS]
    return _page(site, request, pipeline, version, move, alias=alias)


async def _do(site: Site, request: Request, pipeline: str, version: str, move: str) -> Response:
    kind, fields = _kind(move), await form(request)
    alias = fields.get("alias", "").strip()
    site.place(pipeline)
    with site.catalog.of(pipeline).book() as book:
        number = number_of(book, version)
    said: dict[str, Any] = {}
    if kind.move in ("promote", "rollback", "pin"):
        guard = fields.get("champion", "")
        said = {"version": number, "champion": int(guard) if guard.isdecimal() and len(guard) <= 9 else None}
    elif kind.move != "unpin":
        said = {"version": None if move == "unalias" else number, "alias": alias}

    def done(reply: Replied) -> str:
        return f"{_said(kind.done, number, alias)} On record: seq {reply.seq}."

    try:
        _expect_name(kind, alias)
        text = await moved(site, request, pipeline, kind.move, fields, done, **said)
    except MoveRefused as error:
        return _refused(site, request, pipeline, number, move, error.reason)
    except RequestRefused as error:  # no reason or no name, nobody led, or too many ask
        return _page(site, request, pipeline, version, move, refused=error, alias=alias, why=fields.get("why", ""))
    return site.notice(f"/console/p/{quote(pipeline)}/versions/{number}", text)


def _page(
    site: Site,
    request: Request,
    pipeline: str,
    version: str,
    move: str,
    *,
    alias: str = "",
    why: str = "",
    refused: RequestRefused | None = None,
) -> Response:
    names, kind = site.place(pipeline), _kind(move)
    with site.catalog.of(pipeline).book() as book:
        number, now = number_of(book, version), book.standing()
        sides = {one.version: one for one in book.versions() if one.version in (number, now.champion)}
        wish: dict[str, Any] = {"version": number} if kind.move != "unpin" else {}
        if kind.move == "alias":
            wish = {"version": None if move == "unalias" else number, "alias": alias or CHALLENGER}
        refusing = refusal(names, book.known, kind.move, **wish)
    if refusing is not None and refused is None:
        return _refused(site, request, pipeline, number, move, str(refusing))
    return site.page(
        request,
        "move.html",
        title=_said(kind.title, number, alias),
        pipeline=pipeline,
        tab="Versions",
        number=number,
        move=move,
        now=now,
        consequences=_consequences(move, number, now, alias),
        sides=_sides(sides, number, now.champion) if kind.move in ("promote", "rollback", "pin") else [],
        button=_said(kind.button, number, alias),
        danger=kind.danger,
        names_it=kind.move == "alias",
        alias=alias or (CHALLENGER if move == "alias" else ""),
        most=REASON,
        why=why,
        once=site.once.key(),
        **said_of(refused),
    )


def _refused(site: Site, request: Request, pipeline: str, number: int, move: str, reason: str) -> Response:
    word = reason.partition(":")[0]
    with site.catalog.of(pipeline).book() as book:
        now = book.standing()
    return site.page(
        request,
        "move_refused.html",
        title=_said(_kind(move).title, number, ""),
        pipeline=pipeline,
        tab="Versions",
        status=409,
        number=number,
        move=move,
        now=now,
        word=word,
        reason=reason.partition(": ")[2] or reason,
        remedy=_REMEDIES.get(word, "Nothing was changed. Look at the version, then decide anew."),
    )


def _expect_name(kind: _Kind, alias: str) -> None:
    if kind.move == "alias" and not 1 <= len(alias) <= _ALIAS:
        raise RequestRefused(f"name: expected 1 to {_ALIAS} characters, for example challenger; got {len(alias):,}.")


def _kind(move: str) -> _Kind:
    if move not in _KINDS:
        raise NotFound("There is no such page.")
    return _KINDS[move]


def _consequences(move: str, number: int, now: Standing, alias: str) -> list[str]:
    """What will be, in sentences."""
    it, champion = _name(number), _name(now.champion)
    swaps = f"{it} serves from each worker's next chunk on; {_lower(champion)} serves now."
    goes_on = f"{it} goes on serving."
    had = f" {_name(now.aliases[alias])} has that name now, and loses it." if alias in now.aliases else ""
    return {
        "promote": [swaps, "What is trained later is judged against it, and takes over where it proves itself."],
        "rollback": [swaps, f"{champion} is then no version that a later rollback goes back to."],
        "pin": [
            swaps if number != now.champion else goes_on,
            "What is trained from now on is published and does not serve, until somebody unpins.",
        ],
        "unpin": [f"{goes_on} The next version that proves itself takes over again."],
        "archive": [f"{it} stays on record, and can neither be promoted nor named any more. There is no way back."],
        "alias": [f"{it} gets a name of your own beside its number: headrace worker --alias serves it.{had}"],
        "unalias": [f"{it} is then {alias} no more: no version is."],
    }[move]


def _sides(of: dict[int, VersionFacts], number: int, champion: int) -> list[tuple[str, list[tuple[str, float | None]]]]:
    """Metric by metric, of the version and of what serves: each of its own run."""
    shown = list(dict.fromkeys([number, champion]))
    metrics = list(dict.fromkeys(name for one in shown for name in of[one].metrics))
    return [(metric, [(_name(one), of[one].metrics.get(metric)) for one in shown]) for metric in metrics]


def _name(number: int) -> str:
    return f"Version {number}" if number else "The baseline"


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


def _said(text: str, number: int, alias: str) -> str:
    name = _name(number) if text.startswith("{version}") else _lower(_name(number))
    return text.format(version=name, alias=alias)


_PLACE = "/p/{pipeline}/versions/{version}/{move}"
ROUTES = [Route("GET", _PLACE, _confirm, role="operate"), Route("POST", _PLACE, _do, role="operate")]
