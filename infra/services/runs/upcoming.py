"""schedules → when they are due next, in their own timezone and in UTC. No server is asked."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from headrace.models.durations import iso
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Scheduled, Trigger


class Upcoming(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger of a pipeline; no times where it keeps no schedule, and fires by what it counts."""

    pipeline: str
    does: str  # train, or score
    source: str  # what is scored, else ""
    trigger: str
    timezone: str
    local: tuple[str, ...]  # RFC 3339 with the timezone's offset, soonest first
    utc: tuple[str, ...]


def upcoming(pipeline: Pipeline, after: int, count: int) -> list[Upcoming]:
    """The next `count` times of each trigger and of each `Score`, strictly after `after`, Unix ms."""
    trains = [_of(pipeline.name, "train", "", trigger, after, count) for trigger in pipeline.retrain]
    return trains + [_of(pipeline.name, "score", one.name, one.at, after, count) for one in pipeline.score]


def _of(pipeline: str, does: str, source: str, trigger: Trigger, after: int, count: int) -> Upcoming:
    timezone = str(getattr(trigger, "timezone", "UTC"))
    times = _times(trigger, after, count)
    return Upcoming(
        pipeline=pipeline,
        does=does,
        source=source,
        trigger=repr(trigger),
        timezone=timezone,
        local=tuple(datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(timezone)).isoformat() for at in times),
        utc=tuple(iso(at) for at in times),
    )


def _times(trigger: Trigger, after: int, count: int) -> list[int]:
    times: list[int] = []
    while isinstance(trigger, Scheduled) and len(times) < count:
        moment = trigger.next_after(times[-1] if times else after)
        if moment is None:
            break
        times.append(moment)
    return times
