"""Wall clock → (pipeline, now): when the leader is to ask whether a run is due.

APScheduler keeps the time, in memory; what is due is decided elsewhere, from the records. A wake-up is never later than
`poll_seconds`, and it fires where anything is owed: so a tick survives a `fire` that raised, one that took too long, a
suspended machine and a clock that was set, each at the next wake-up.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from headrace.models.errors import BadInput
from headrace.models.protocols import Trigger
from headrace.scheduler.combined import only_scheduled
from headrace.scheduler.next_ticks import next_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

POLL_SECONDS = 5.0  # how long a trigger without a schedule (new labels, drift) may wait to be asked


class Clock:
    """One job per pipeline. Started once, stopped once.

    `fire(pipeline, now)` runs in a thread of the clock's, never twice at a time for one pipeline, and should only hand
    a request over. It is called once at the start, so that ticks missed while no scheduler lived are caught up; then
    at each scheduled time, and every `poll_seconds` where a trigger keeps no schedule. An exception is logged by
    APScheduler, and the same tick is owed again at the next wake-up.
    """

    def __init__(
        self,
        jobs: Mapping[str, Sequence[Trigger]],
        fire: Callable[[str, int], None],
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._jobs = dict(jobs)
        self._fire = fire
        self._fired: dict[str, int] = {}  # pipeline → the moment up to which all that was owed has been fired
        self._paused: set[str] = set()
        self._lock = Lock()  # of _paused
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for pipeline, triggers in self._jobs.items():
            wake = _Wake(triggers, timedelta(seconds=poll_seconds))
            self._scheduler.add_job(self._woken, wake, args=[pipeline], id=pipeline, name=pipeline)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Returns when no `fire` runs any more."""
        self._scheduler.shutdown(wait=True)

    def pause(self, pipeline: str) -> None:
        """Nothing is fired until `resume`; this process only, and forgotten with it."""
        self._check(pipeline)
        with self._lock:
            self._paused.add(pipeline)
        self._scheduler.pause_job(pipeline)

    def resume(self, pipeline: str) -> None:
        """What came due meanwhile is fired at once, coalesced."""
        self._check(pipeline)
        with self._lock:
            self._paused.discard(pipeline)
        self._scheduler.resume_job(pipeline)

    def next_times(self) -> dict[str, int | None]:
        """The next scheduled time of each pipeline, Unix ms; None where it is paused or keeps no schedule."""
        now = _now()
        with self._lock:
            paused = set(self._paused)
        return {name: None if name in paused else next_of(triggers, now) for name, triggers in self._jobs.items()}

    def _woken(self, pipeline: str) -> None:
        now = _now()
        if self._owed(pipeline, now):
            self._fire(pipeline, now)
            self._fired[pipeline] = now

    def _owed(self, pipeline: str, now: int) -> bool:
        fired = self._fired.get(pipeline)
        triggers = self._jobs[pipeline]
        if fired is None or not only_scheduled(triggers):
            return True
        tick = next_of(triggers, fired)
        return tick is not None and tick <= now

    def _check(self, pipeline: str) -> None:
        if pipeline not in self._jobs:
            raise BadInput(f"pipeline: expected one of {sorted(self._jobs)}, got {pipeline!r}. Name one of them.")


class _Wake(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """The next scheduled time, or the next poll, whichever is first."""

    def __init__(self, triggers: Sequence[Trigger], poll: timedelta) -> None:
        self._triggers = triggers
        self._poll = poll

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        if previous_fire_time is None:
            return now
        # APScheduler asks until it is told a time beyond `now`; beyond the previous one in case the clock was set back.
        moment = max(previous_fire_time, now)
        poll = moment + self._poll
        # In whole ms: a float that rounds up skips a tick, one that rounds down repeats it for ever.
        tick = next_of(self._triggers, (moment - _EPOCH) // _MS)
        return poll if tick is None else min(poll, _EPOCH + tick * _MS)


def _now() -> int:
    return time.time_ns() // 1_000_000
