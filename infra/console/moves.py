"""a form of a page → a move that the leader makes, in the name of whoever pressed the button."""

from dataclasses import replace
from typing import Any

from headrace.infra.console.site import Site
from headrace.infra.serve.http import Request
from headrace.infra.serve.refusals import RequestRefused, Unavailable
from headrace.infra.services import moves
from headrace.infra.services.ask import leads_anyone
from headrace.models.records import Asking, Replied

_REASON = 1_000  # characters


def in_whose_name(request: Request) -> str:
    return f"console: {request.who}"


def reason_of(fields: dict[str, str], *, needed: bool = True) -> str:
    """Raises RequestRefused."""
    why = fields.get("why", "").strip()
    if (needed and not why) or len(why) > _REASON:
        raise RequestRefused(f"reason: expected {1 if needed else 0} to {_REASON:,} characters, got {len(why):,}.")
    return why


async def moved(site: Site, request: Request, pipeline: str, move: Asking, **said: Any) -> Replied:
    """Raises BadInput with the leader's reason, Unavailable where nobody replied, RequestRefused."""
    site.place(pipeline)
    if pipeline not in site.origins:
        raise RequestRefused(
            f"{move}: this server does not know the file of {pipeline}, and cannot speak to its leader. "
            f"Start it as `headrace serve FILE`, or ask by the command line."
        )
    origin = replace(site.origins[pipeline], by=in_whose_name(request))
    return await site.ask(lambda: moves.ask(site.settings, origin, move, **said))


async def is_led(site: Site, pipeline: str) -> bool | None:
    """Whether a scheduler leads; None where nobody can say."""
    names = site.place(pipeline)
    try:
        return await site.ask(lambda: leads_anyone(site.settings, names))
    except Unavailable:
        return None
