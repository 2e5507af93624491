"""versions, and what somebody looks for → those that fit."""

from collections.abc import Sequence
from typing import Literal

from headrace.infra.services.versions.book import VersionFacts

Kind = Literal["", "promoted", "unpromoted", "archived"]


def matching(
    versions: Sequence[VersionFacts], *, text: str = "", kind: Kind = "", alias: str = ""
) -> list[VersionFacts]:
    """In their order. `text`: a number is that version's; else it stands anywhere in its aliases, run, who or why."""
    wanted = text.strip().lower()
    number = int(wanted) if wanted.isdecimal() and len(wanted) <= 9 else None
    return [
        one
        for one in versions
        if _is(one, kind)
        and (not alias or alias in one.aliases)
        and (not wanted or (one.version == number if number is not None else _says(one, wanted)))
    ]


def _is(one: VersionFacts, kind: Kind) -> bool:
    match kind:
        case "promoted":
            return bool(one.promoted_at)
        case "unpromoted":
            return bool(one.version) and not one.promoted_at
        case "archived":
            return one.state == "archived"
    return True


def _says(one: VersionFacts, wanted: str) -> bool:
    return any(wanted in part.lower() for part in (*one.aliases, one.state, one.run, one.by, one.why, one.tick))
