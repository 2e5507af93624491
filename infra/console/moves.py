"""a form of a page → a move that the leader makes, in the name of whoever pressed the button."""

from typing import Any

from headrace.infra.console.site import Site
from headrace.infra.serve.http import Request
from headrace.infra.serve.refusals import RequestRefused, Unavailable
from headrace.infra.services import moves
from headrace.infra.services.ask import leads_anyone
from headrace.models.records import Asking, Replied

REASON = 1_000  # characters


def in_whose_name(request: Request) -> str:
    return f"console: {request.who}"


def reason_of(fields: dict[str, str], *, needed: bool = True) -> str:
    """Raises RequestRefused."""
    why = fields.get("why", "").strip()
    if (needed and not why) or len(why) > REASON:
        raise RequestRefused(f"reason: expected {1 if needed else 0} to {REASON:,} characters, got {len(why):,}.")
    return why


async def moved(site: Site, request: Request, pipeline: str, move: Asking, **said: Any) -> Replied:
    """Where this server knows the pipeline's file and nobody leads, it does, for this one move.

    Raises MoveRefused with the leader's reason, Unavailable where nobody leads or nobody replied in time.
    """
    asker = site.origins.get(pipeline) or site.place(pipeline)
    return await site.ask(lambda: moves.ask(site.settings, asker, move, by=in_whose_name(request), **said))


async def is_led(site: Site, pipeline: str) -> bool | None:
    """Whether a scheduler leads; None where nobody can say."""
    names = site.place(pipeline)
    try:
        return await site.ask(lambda: leads_anyone(site.settings, names))
    except Unavailable:
        return None
