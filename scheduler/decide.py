"""A request, the past runs → run it, or why not. The leader's decision, pure, with one version per tick (law 8).

A tick is used up by a run that **finished** under it, whatever came of it, or by a version in the registry. A run that
started and never finished died with its scheduler: its request, delivered again, runs again under the same tick. So
does another request that finds the tick due first; the dead run's own then gets `NotDue`. A run on demand has no tick
and uses none up. Request ids that were answered get the same answer again.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from headrace.models.durations import iso, to_ms
from headrace.models.protocols import LiveLoss, Numbers, Trigger
from headrace.models.records import Finished, Paused, Requested, RunRecord, Started
from headrace.scheduler.next_ticks import next_of
from headrace.scheduler.triggers import reasons_of

NOT_DUE = "not_due"  # an outcome that uses no tick up

_TRAINED = ("promoted", "published", "rejected")
_TYPICAL = 5  # runs that say how long the next one takes

_REMEMBERED = 10_000
"""Answered requests and used ticks kept. A request comes again right after a crash, not ten thousand requests later."""


@dataclass(frozen=True, kw_only=True)
class Run:
    run: str
    tick: int | None  # scheduled time, Unix ms; None on demand
    trigger: str
    again: bool = False  # an earlier try died
    sanity: bool = False  # one batch is to be learnt by heart first

    @property
    def tick_text(self) -> str:
        """As records and manifests carry it: RFC 3339 UTC, "" on demand."""
        return "" if self.tick is None else iso(self.tick)


@dataclass(frozen=True, kw_only=True)
class NotDue:
    run: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """This request has its outcome on the topic already."""

    finished: Finished


@dataclass(frozen=True, kw_only=True)
class InRegistry:
    """The run's version is in the registry, only its `Finished` is missing: write that, do not train again."""

    run: str
    tick_text: str
    version: int
    seq: int  # of its promotion; 0 where it was published and not promoted


Decision = Run | NotDue | Answered | InRegistry


@dataclass(frozen=True, kw_only=True)
class Live:
    """What is counted since the newest run."""

    new_labels: int = 0
    drift_rows: int = 0
    drift: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # column → PSI, KS
    loss: LiveLoss | None = None  # of the champion


@dataclass(kw_only=True)
class PipelineRuns:
    """What is known of one pipeline's runs: a fold over `headrace.runs` from its beginning, and over the registry.

    Give `started` where the origin is known (a replay's first moment); otherwise it is the oldest request seen.
    """

    pipeline: str
    started: int | None = None  # Unix ms
    last_tick: int | None = None  # the newest tick used up
    _open: dict[str, Started] = field(default_factory=dict)
    _finished: dict[str, Finished] = field(default_factory=dict)
    _versions: dict[str, InRegistry] = field(default_factory=dict)
    _used: dict[int, str] = field(default_factory=dict)  # tick → the run that used it up
    paused: Paused | None = None  # who did, and why
    _last_end: int = 0
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=_TYPICAL))  # seconds, of the newest runs
    _origin: int | None = None  # the oldest request's time

    def apply(self, record: RunRecord) -> None:
        """Records of other pipelines are ignored; the same record twice changes nothing."""
        if record.pipeline != self.pipeline:
            return
        match record:
            case Requested(on_demand=False):
                self._origin = record.at if self._origin is None else min(self._origin, record.at)
            case Started() if record.run not in self._finished:
                self._open[record.run] = record
            case Finished() if record.run not in self._finished:
                self._finish(record)
            case Paused():
                self.paused = record if record.paused else None
            case _:
                pass

    def apply_version(self, *, run: str, tick: str, version: int, seq: int = 0) -> None:
        """A manifest in the registry (`run`, `tick`, `version`), and the seq of its promotion where there is one."""
        self._versions[run] = InRegistry(run=run, tick_text=tick, version=version, seq=seq)
        self._use(tick, run)
        _trim(self._versions)

    def numbers(self, now: int, live: Live = Live()) -> Numbers:
        """What triggers decide by. With no origin known, a pipeline is first seen now."""
        origin = self._origin if self.started is None else self.started
        return Numbers(
            last_tick=self.last_tick,
            started=now if origin is None else origin,
            new_labels=live.new_labels,
            drift_rows=live.drift_rows,
            drift=live.drift,
            live=live.loss,
        )

    @property
    def seen(self) -> bool:
        """Whether it is on record since when this pipeline's ticks count."""
        return self.started is not None or self._origin is not None

    @property
    def last_end(self) -> int:
        """When the newest run ended, by the clock, Unix ms; 0 where none did."""
        return self._last_end

    def outcome(self, run: str) -> Finished | None:
        return self._finished.get(run)

    def version_of(self, run: str) -> InRegistry | None:
        return self._versions.get(run)

    def died(self, run: str) -> Started | None:
        """The record of a run that started and has no outcome."""
        return self._open.get(run)

    @property
    def open(self) -> Sequence[str]:
        """Runs that started and have no outcome."""
        return tuple(self._open)

    @property
    def durations(self) -> Sequence[float]:
        """Seconds that the newest runs took, from the start of the attempt that made it."""
        return tuple(self._durations)

    def used_by(self, tick: int) -> str | None:
        """The run that used this tick up."""
        return self._used.get(tick)

    def _finish(self, record: Finished) -> None:
        started = self._open.pop(record.run, None)
        self._finished[record.run] = record
        _trim(self._finished)
        if started and record.outcome in _TRAINED:
            self._durations.append((_ms(record.at) - _ms(started.at)) / 1000)
        if record.outcome != NOT_DUE:
            self._last_end = max(self._last_end, _ms(record.at))
            self._use(record.tick or (started.tick if started else ""), record.run)

    def _use(self, tick: str, run: str) -> None:
        if not tick:
            return
        ms = to_ms(datetime.fromisoformat(tick))
        self._used.setdefault(ms, run)
        _trim(self._used)
        self.last_tick = ms if self.last_tick is None else max(self.last_tick, ms)


def decide(triggers: Sequence[Trigger], request: Requested, runs: PipelineRuns, live: Live = Live()) -> Decision:
    """What the leader does with `request`."""
    if (finished := runs.outcome(request.run)) is not None:
        return Answered(finished=finished)
    if (version := runs.version_of(request.run)) is not None:
        return version
    if (dead := runs.died(request.run)) is not None:
        return _again(dead, runs, sanity=request.sanity)
    if request.on_demand:
        why = f"on demand: {request.why}" if request.why else "on demand"
        return Run(run=request.run, tick=None, trigger=why, sanity=request.sanity)
    return _by_triggers(triggers, request, runs, live)


def _again(dead: Started, runs: PipelineRuns, *, sanity: bool) -> Decision:
    tick = to_ms(datetime.fromisoformat(dead.tick)) if dead.tick else None
    if tick is not None and (other := runs.used_by(tick)) is not None:
        return NotDue(run=dead.run, reason=f"tick {dead.tick} was run by {other}")
    return Run(run=dead.run, tick=tick, trigger=dead.trigger, again=True, sanity=sanity)


def _by_triggers(triggers: Sequence[Trigger], request: Requested, runs: PipelineRuns, live: Live) -> Decision:
    if (paused := runs.paused) is not None:
        by = f"the schedule is paused since {paused.at} by {paused.by}" + (f": {paused.why}" if paused.why else "")
        return NotDue(run=request.run, reason=by)
    why_not = []
    for reason in reasons_of(triggers, runs.numbers(request.at, live), request.at):
        if (other := runs.used_by(reason.tick)) is None:
            return Run(run=request.run, tick=reason.tick, trigger=reason.text)
        why_not.append(f"tick {iso(reason.tick)} was run by {other}")
    upcoming = next_of(triggers, request.at)
    if not why_not:
        why_not.append("no trigger is due")
    why_not.append("none is scheduled" if upcoming is None else f"the next is scheduled at {iso(upcoming)}")
    return NotDue(run=request.run, reason="; ".join(why_not))


def _ms(moment: str) -> int:
    return to_ms(datetime.fromisoformat(moment))


def _trim(remembered: dict[int, str] | dict[str, Finished] | dict[str, InRegistry]) -> None:
    """Dictionaries keep the order of insertion: the oldest goes."""
    while len(remembered) > _REMEMBERED:
        del remembered[next(iter(remembered))]  # type: ignore[arg-type]  # each dictionary's own key
