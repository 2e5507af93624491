"""who served which offsets, and when by event time → the spells of a pipeline's versions: what a timeline shows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import msgspec

from headrace.infra.services.versions.catalog import Manifests
from headrace.infra.services.versions.event_times import Place
from headrace.infra.services.versions.timeline import Served
from headrace.models.durations import to_ms
from headrace.models.errors import RegistryRefused
from headrace.models.records import Promoted


class Times(Protocol):
    def __call__(self, place: Place, /) -> int | None: ...
    def gone(self, place: Place, /) -> bool: ...


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """One promotion's time as the champion. All times are event times, Unix ms; partitions switch each for itself."""

    version: int
    seq: int  # of the promotion; 0 of the baseline before any
    move: str  # promote, rollback, pin; "" of the baseline
    at: str  # by the clock
    by: str
    why: str
    partitions: int
    begin: int | None  # on the first partition; None where no row tells it any more
    begin_everywhere: int | None
    end: int | None  # on the last partition; None while it serves, or where no row tells it
    end_anywhere: int | None  # on the first partition
    serves: bool
    waits: bool  # it serves, and no event came since
    by_tick: bool  # its rows are gone: the beginning is the tick of its run


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Some spells that follow each other."""

    lines: list[Served]
    newer: int | None  # the seq to end before, for those behind these; 0: the newest; None: these are the newest
    older: int | None  # the same for those before these; None: there are none


def window(lines: Sequence[Served], before: int, count: int) -> Window:
    """The newest `count` spells whose seq is lower than `before`; of all, where that is 0."""
    seqs = sorted({one.seq for one in lines}, reverse=True)
    first = next((at for at, seq in enumerate(seqs) if seq < before), len(seqs)) if before else 0
    chosen = set(seqs[first : first + count])
    ahead = None if first == 0 else 0 if first <= count else seqs[first - count - 1]
    return Window(
        lines=[one for one in lines if one.seq in chosen],
        newer=ahead,
        older=min(chosen) if chosen and len(seqs) > first + count else None,
    )


def spells(
    lines: Sequence[Served],
    promotions: Sequence[Promoted],
    ticks: Mapping[int, str],
    at: Times,
) -> list[Spell]:
    """Newest first. `ticks` by version, RFC 3339, of the run that made it."""
    by_seq: dict[int, list[Served]] = {}
    for one in lines:
        by_seq.setdefault(one.seq, []).append(one)
    of = {one.seq: one for one in promotions if one.seq in by_seq}
    return [_spell(by_seq[seq], of.get(seq), ticks, at) for seq in sorted(by_seq, reverse=True)]


def trained_through(manifest: Manifests, numbers: Sequence[int]) -> dict[int, int]:
    """By version, Unix ms by event time: the newest row that it was trained on. Without those that cannot be said."""
    found = {}
    for number in numbers:
        with suppress(RegistryRefused, KeyError, ValueError):  # not whole, the baseline, a version of elsewhere
            found[number] = to_ms(datetime.fromisoformat(manifest(number).trained_through))
    return found


def _spell(
    lines: Sequence[Served],
    promoted: Promoted | None,
    ticks: Mapping[int, str],
    at: Times,
) -> Spell:
    version = lines[0].version
    begins = [time for one in lines if (time := at((one.partition, one.first))) is not None]
    ended = [one for one in lines if one.end is not None]
    ends = [time for one in ended if (time := at((one.partition, one.end or 0))) is not None]
    over = len(ended) == len(lines)  # events came after it, whether their rows are there or not
    gone = over or any(at.gone((one.partition, one.first)) for one in lines)
    by_tick = not begins and gone and promoted is not None and promoted.move == "promote" and version in ticks
    if by_tick:
        begins = [to_ms(datetime.fromisoformat(ticks[version]))]
    return Spell(
        version=version,
        seq=lines[0].seq,
        move=promoted.move if promoted else "",
        at=promoted.at if promoted else lines[0].since,
        by=promoted.by if promoted else "",
        why=promoted.why if promoted else "",
        partitions=len(lines),
        begin=min(begins, default=None),
        begin_everywhere=max(begins, default=None),
        end=max(ends, default=None) if over else None,
        end_anywhere=min(ends, default=None),
        serves=not over,
        waits=not begins and not gone,
        by_tick=by_tick,
    )
