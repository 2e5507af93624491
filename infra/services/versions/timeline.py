"""`<pipeline>.history`, registry → who served which events from which offset to which, and at a moment."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from headrace.infra.history import switches
from headrace.infra.names import Names
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.settings import Settings
from headrace.models.durations import to_ms
from headrace.models.errors import BadInput
from headrace.models.records import Switched


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A version's time on one events partition: offsets half open, `end` None while it still serves."""

    topic: str
    partition: int
    first: int
    end: int | None
    version: int
    seq: int  # of the promotion; 0 for the baseline before any
    since: str
    until: str  # "" while it still serves
    workers: tuple[str, ...]  # who served it, in turn
    late: int  # events past the promotion's activation that were served by the version before
    event_time: str = ""  # of its first event; "" where that was not looked up, or its row is gone


class AtMoment(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry said then, and what really served."""

    at: str
    champion: int
    seq: int
    promoted_at: str
    by: str
    why: str
    served: tuple[Served, ...]  # per partition


def served(settings: Settings, names: Names) -> list[Served]:
    """By partition and offset. Raises BrokerUnavailable."""
    return folded(switches(settings, names.topics.history))


def folded(records: Sequence[Switched]) -> list[Served]:
    """A record that only names a new worker for what served already goes on with it. What was taken back by an
    aborted chunk and read again begins where the newest record says."""
    found: dict[tuple[str, int], list[Served]] = {}
    for one in records:
        line = found.setdefault((one.topic, one.partition), [])
        while line and line[-1].first >= one.first_offset and line[-1].seq != one.seq:
            line.pop()
        last = line[-1] if line else None
        if last is not None and last.seq == one.seq:
            workers = last.workers if last.workers[-1] == one.worker else (*last.workers, one.worker)
            first = min(last.first, one.first_offset)
            line[-1] = msgspec.structs.replace(last, workers=workers, first=first, end=None, until="")
            continue
        if last is not None:
            line[-1] = msgspec.structs.replace(last, end=one.first_offset, until=one.at)
        line.append(_begun(one))
    return [one for _, line in sorted(found.items()) for one in line]


def at_moment(settings: Settings, names: Names, moment: str) -> AtMoment:
    """`moment` is RFC 3339. Raises BadInput for a time before the pipeline's first record."""
    ms = to_ms(datetime.fromisoformat(moment))
    promotions = [one for one in known_versions(settings, names).promotions if _ms(one.at) <= ms]
    then = tuple(
        one for one in served(settings, names) if _ms(one.since) <= ms and (not one.until or ms < _ms(one.until))
    )
    if not promotions and not then:
        raise BadInput(f"{names.pipeline.name}: nothing is on record at {moment} or before.")
    last = promotions[-1] if promotions else None
    return AtMoment(
        at=moment,
        champion=last.version if last else 0,
        seq=last.seq if last else 0,
        promoted_at=last.at if last else "",
        by=last.by if last else "",
        why=last.why if last else "",
        served=then,
    )


def _begun(one: Switched) -> Served:
    return Served(
        topic=one.topic,
        partition=one.partition,
        first=one.first_offset,
        end=None,
        version=one.version,
        seq=one.seq,
        since=one.at,
        until="",
        workers=(one.worker,),
        late=one.late,
    )


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))
