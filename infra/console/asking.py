"""a form of a page → what the leader is asked for, in the name of whoever pressed the button, once."""

from collections.abc import Callable
from typing import Any

from headrace.infra.console.site import Site
from headrace.infra.serve.http import Request
from headrace.infra.serve.refusals import RequestRefused, Unavailable
from headrace.infra.services.changes import moves
from headrace.infra.services.changes.ask import MoveRefused, leads_anyone, requested
from headrace.models.records import Asking, Replied
from headrace.streams.codec import clock_ms

REASON = 1_000  # characters


def said_of(refused: RequestRefused | MoveRefused | None) -> dict[str, Any]:
    """What the form is shown with again, with what was typed into it."""
    if isinstance(refused, MoveRefused):
        return {"status": 409, "problem": refused.reason}
    return {"status": 200, "problem": ""} if refused is None else {"status": refused.status, "problem": str(refused)}


async def moved(
    site: Site,
    request: Request,
    pipeline: str,
    move: Asking,
    fields: dict[str, str],
    in_words: Callable[[Replied], str] = lambda reply: reply.at,
    **said: Any,
) -> str:
    """The leader's answer. Once, however often the form is sent; the second time it is what was said the first time.

    Where this server knows the pipeline's file and nobody leads, it does, for this one move. Raises RequestRefused,
    MoveRefused with the leader's reason, Unavailable where nobody leads or nobody replied in time.
    """
    why, by = _reason(fields), _by(request)

    async def do() -> str:
        asker = site.origins.get(pipeline) or site.place(pipeline)
        return in_words(await site.ask(lambda: moves.ask(site.settings, asker, move, by=by, why=why, **said)))

    return await site.once((pipeline, move, *said.values()), fields.get("once", ""), do)


async def training(site: Site, request: Request, pipeline: str, fields: dict[str, str]) -> str:
    """The id of the run that is asked for; acknowledged by the broker. Raises RequestRefused, Unavailable."""
    place, why, by = site.place(pipeline), _reason(fields, needed=False), _by(request)
    sanity = fields.get("sanity") == "yes"

    async def do() -> str:
        at = clock_ms()
        return (await site.ask(lambda: requested(site.settings, place, at=at, by=by, why=why, sanity=sanity))).run

    return await site.once((pipeline, "train"), fields.get("once", ""), do)


async def is_led(site: Site, pipeline: str) -> bool | None:
    """Whether a scheduler leads; None where nobody can say."""
    names = site.place(pipeline)
    try:
        return await site.ask(lambda: leads_anyone(site.settings, names))
    except Unavailable:
        return None


def _reason(fields: dict[str, str], *, needed: bool = True) -> str:
    """Raises RequestRefused."""
    why = fields.get("why", "").strip()
    if (needed and not why) or len(why) > REASON:
        raise RequestRefused(f"reason: expected {1 if needed else 0} to {REASON:,} characters, got {len(why):,}.")
    return why


def _by(request: Request) -> str:
    return f"console: {request.who}"
