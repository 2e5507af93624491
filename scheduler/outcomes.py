"""a run and what it came to → the records that say so. Pure but for the clock."""

from time import time_ns
from typing import Any

from headrace.models.aliases import CHAMPION
from headrace.models.durations import iso
from headrace.models.manifest import Blob
from headrace.models.records import Aliased, Finished, Promoted, Published, RegistryRecord
from headrace.scheduler.decide import Answered, InRegistry, NotDue, Run


def clock_ms() -> int:
    return time_ns() // 1_000_000


def now() -> str:
    return iso(clock_ms())


def finished(
    pipeline: str, run: str, outcome: str, reason: str, *, tick: str = "", version: int = 0, seq: int = 0
) -> Finished:
    return Finished(
        run=run, pipeline=pipeline, at=now(), outcome=outcome, reason=reason, tick=tick, version=version, seq=seq
    )


def answer(pipeline: str, decision: NotDue | Answered | InRegistry) -> Finished | None:
    """To a request that needs no training; None where it is on record."""
    match decision:
        case Answered():
            return None
        case NotDue(run=run, reason=reason):
            return finished(pipeline, run, "not_due", reason)
        case InRegistry() as known:
            return finished(
                pipeline,
                known.run,
                "promoted" if known.seq else "published",
                "published before its outcome was written",
                tick=known.tick_text,
                version=known.version,
                seq=known.seq,
            )


def publication(
    pipeline: str,
    run: Run,
    version: int,
    seq: int,
    manifest: Blob,
    *,
    by: str,
    why: str,
    place: str,
    share: float = 0.0,
) -> list[RegistryRecord]:
    """A version exists, and has the alias `place`, "" for none; the first is `seq` + 1."""
    at = now()
    published = Published(
        pipeline=pipeline,
        seq=seq + 1,
        version=version,
        manifest=manifest,
        run=run.run,
        tick=run.tick_text,
        at=at,
        by=by,
        why=why,
    )
    if not place:
        return [published]
    said: dict[str, Any] = {"pipeline": pipeline, "seq": seq + 2, "at": at, "by": by, "why": why, "version": version}
    return [published, Promoted(**said) if place == CHAMPION else Aliased(**said, alias=place, share=share)]
