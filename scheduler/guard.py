"""versions that serve or wait, and what they lose live → requests to promote, drop or take one back.

It asks as anybody asks: a request on `headrace.runs` that the one writer answers (law 8). The numbers are measured
elsewhere; what is wanted of them follows from the registry alone, so whoever leads next goes on.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from headrace.models.aliases import CHALLENGER, CHAMPION
from headrace.models.durations import to_ms
from headrace.models.errors import DeclarationError
from headrace.models.facts import Guarded, Observer, Refused
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Paired
from headrace.models.records import Asked, Asking, Moved
from headrace.models.registry import Versions

BY = "guard"
_PATIENCE_MS = 60_000  # for an answer; the evidence is still there when it asks again


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Two versions that are to be compared on what is served from `since` on (Unix ms, when rows were appended)."""

    why: Literal["rollback", "shadow"]
    version: int
    other: int
    since: int


def pairings(pipeline: Pipeline, versions: Versions) -> list[Pairing]:
    """A champion that took over beside its predecessor, if it can go back; a challenger beside the champion."""
    found, champion = [], versions.champion
    before = versions.previous
    begun = 0 if champion is None else moved_at(champion)
    if begun is None:
        return []
    if pipeline.rollback is not None and champion is not None and champion.move == "promote" and before is not None:
        found.append(Pairing(why="rollback", version=champion.version, other=before, since=begun))
    challenger, serves = versions.aliases.get(CHALLENGER), versions.aliases[CHAMPION]
    named = None if challenger is None or challenger == serves else moved_at(versions.moves(CHALLENGER)[-1])
    if challenger is not None and named is not None:
        found.append(Pairing(why="shadow", version=challenger, other=serves, since=max(begun, named)))
    return found


class Guard:
    """One pipeline's. What it asked for it asks for again only when nobody did it in time."""

    def __init__(
        self, pipeline: Pipeline, observer: Observer, new_id: Callable[[int], str], clock_ms: Callable[[], int]
    ) -> None:
        self._pipeline, self._observer = pipeline, observer
        self._new_id, self._clock_ms = new_id, clock_ms
        self._asked: dict[Pairing, int] = {}  # until when whoever leads may do it, Unix ms

    def asks(self, versions: Versions, measured: Mapping[Pairing, Paired]) -> list[Asked]:
        """In the order in which they are to be done."""
        found: list[Asked] = []
        for pairing in pairings(self._pipeline, versions):
            paired = measured.get(pairing)
            now = self._clock_ms()
            if paired is None or self._asked.get(pairing, -1) >= now or versions.pinned:
                continue
            try:
                wanted = list(self._rollback(versions, paired) if pairing.why == "rollback" else self._shadow(paired))
            except Exception as error:  # noqa: BLE001  a user's policy may raise anything, and everything else goes on
                raised = Refused(pipeline=self._pipeline.name, reason="policy_raised", detail=repr(error))
                self._observer(raised)
                self._asked[pairing] = now + _PATIENCE_MS
                continue
            if wanted:
                self._asked[pairing] = max(one.until for one in wanted)
                found += wanted
        return found

    def _rollback(self, versions: Versions, paired: Paired) -> Iterator[Asked]:
        """The predecessor serves again, and the version is out of use: nothing brings it back by itself."""
        policy = self._pipeline.rollback
        why = None if policy is None else policy.due(paired)
        if why is not None:
            self._guarded("rolled_back", paired, why)
            yield self._ask("rollback", why, version=paired.other, champion=paired.version)
            if versions.aliases.get(CHALLENGER) == paired.version:  # promoted by hand; it may serve a share of the keys
                yield self._ask("alias", why, alias=CHALLENGER)
            yield self._ask("archive", why, version=paired.version)

    def _shadow(self, paired: Paired) -> Iterator[Asked]:
        policy = self._pipeline.shadow
        decided = None if policy is None else policy.decide(paired)
        if decided is None:
            return
        self._guarded("promoted" if decided.promote else "dropped", paired, decided.reason)
        if decided.promote:
            yield self._ask("promote", decided.reason, version=paired.version, champion=paired.other)
        yield self._ask("alias", decided.reason, alias=CHALLENGER)

    def _guarded(self, action: Literal["rolled_back", "promoted", "dropped"], paired: Paired, why: str) -> None:
        self._observer(
            Guarded(
                pipeline=self._pipeline.name,
                action=action,
                version=paired.version,
                other=paired.other,
                reason=why,
                rows=paired.rows,
                scored=paired.scored,
            )
        )

    def _ask(
        self, move: Asking, why: str, *, version: int | None = None, champion: int | None = None, alias: str = ""
    ) -> Asked:
        now = self._clock_ms()
        return Asked(
            run=self._new_id(now),
            pipeline=self._pipeline.name,
            move=move,
            by=BY,
            why=why,
            until=now + _PATIENCE_MS,
            version=version,
            alias=alias,
            champion=champion,
        )


def moved_at(record: Moved) -> int | None:
    """Unix ms; None for a record that does not say when it was written as a time with its zone."""
    try:
        return to_ms(datetime.fromisoformat(record.at))
    except (ValueError, DeclarationError):
        return None
