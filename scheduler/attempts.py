"""a run that is due → attempts to train → a candidate, or why there is none.

Nothing here waits: the leader goes on reading, answering and guarding while a training goes on. A training outlives its
leader: the next one on the same machine takes it up, with the same id, tick and ranges; where it is gone it is run
again from the ranges on record.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Protocol

from headrace.models.durations import iso, to_ms
from headrace.models.errors import HeadraceError, RunFailed
from headrace.models.facts import Observer, RunOverruns, RunTakenUp, RunTriedAgain
from headrace.models.findings import Finding
from headrace.models.manifest import Blob, Manifest, OffsetRange
from headrace.models.pipeline import Pipeline
from headrace.models.records import Progressed, Requested, Started
from headrace.models.registry import Versions
from headrace.scheduler.decide import Run
from headrace.scheduler.outcomes import clock_ms, now
from headrace.scheduler.overrun import Schedule, schedule_of, sentence
from headrace.scheduler.retries import is_tried_again, seconds_before
from headrace.scheduler.writer import Writer

ATTACHED, RETRY = "attached", "retry"  # stages of a run beside those of its training
_PROGRESS_SECONDS = 1.0  # between two progress records of a run
_ETA = "eta_seconds"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a training came to: the verdict, and all that is needed to publish it."""

    promote: bool
    reason: str
    onnx: bytes | Blob  # a Blob lies in an object store already
    manifest: Callable[[int, Blob], Manifest]  # by version and the place of the ONNX bytes
    rows: int = 0
    holdout_rows: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    champion_metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class Attempt(Protocol):
    """A training that goes on, whoever started it."""

    def wait(self, seconds: float) -> Candidate | None:
        """The candidate, or None while it goes on. Raises RunFailed, OSError, BrokerUnavailable."""

    def progress(self) -> tuple[str, dict[str, float]]:
        """The stage, and its newest facts."""


class Training(Protocol):
    """Trainings on this machine, and a model that a user gave."""

    @property
    def host(self) -> str: ...

    def fetch(self, ranges: tuple[OffsetRange, ...]) -> tuple[OffsetRange, ...]:
        """What is trained on: what is there now, or exactly these ranges where there are some."""

    def start(self, run: Run, at: int, versions: Versions, ranges: tuple[OffsetRange, ...]) -> Attempt:
        """With what was fetched. Returns soon."""

    def take_up(self, run: str, versions: Versions, *, failed: bool) -> Attempt | None:
        """A training of this run that still goes on here, or has left its result; or, where `failed`, its failure."""

    def stop(self, run: str) -> None:
        """Ends its process, where one goes on here."""

    def stop_others(self, runs: Sequence[str]) -> None:
        """Ends the processes of all but these runs."""

    def initial(self, path: str) -> Candidate: ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that ends without a candidate."""

    reason: str


class Attempts:
    """Of the one run of a pipeline that may go on at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        writer: Writer,
        training: Training,
        observer: Observer,
        durations: Callable[[], Sequence[float]],
    ) -> None:
        self._pipeline, self._writer, self._training, self._observer = pipeline, writer, training, observer
        self._durations = durations
        self._going: Attempt | None = None  # None while the next attempt is waited for
        self.run: Run | None = None  # that goes on

    @property
    def seconds(self) -> float:
        """Since the run began here."""
        return monotonic() - self._begun

    def start(self, run: Run, request: Requested, versions: Versions, earlier: Started | None = None) -> Failure | None:
        """`earlier` is the newest attempt on record of a run whose leader died."""
        self.run, self._request, self._versions = run, request, versions
        self._begun = self._reported = monotonic()
        self._again_at, self._said_late = 0.0, False
        self._attempt, self._after = (earlier.attempt, "its leader ended, and it with it") if earlier else (0, "")
        self._ranges = earlier.ranges if earlier else ()
        began = to_ms(datetime.fromisoformat(earlier.at)) if earlier else clock_ms()
        self._schedule = self._scheduled(began)
        if earlier is not None and self._taken_up(run, failed=True):
            return None
        return self._try(run)

    def look(self) -> Candidate | Failure | None:
        """What the run came to, or None while it goes on."""
        assert self.run is not None  # noqa: S101  whoever looks has seen that there is one
        if self._going is None:
            if monotonic() < self._again_at:
                return None
            if not self._taken_up(self.run, failed=False):
                return self._try(self.run)
            self._attempt += 1  # to hand on what it has come to
            return None
        try:
            candidate = self._going.wait(0)
        except (HeadraceError, OSError) as error:
            return self._failed(self.run, error)
        if candidate is not None:
            self.let_go()
        elif monotonic() - self._reported >= _PROGRESS_SECONDS:
            self._report(self.run, self._going)
        return candidate

    def cancel(self) -> None:
        """The process is told to end."""
        if self.run is not None:
            self._training.stop(self.run.run)
        self.let_go()

    def let_go(self) -> None:
        """It is over, or another one's now."""
        self._going = self.run = None

    def _taken_up(self, run: Run, *, failed: bool) -> bool:
        """What is written here fences whoever led before, as `Started` does."""
        self._going = self._training.take_up(run.run, self._versions, failed=failed)
        if self._going is None:
            return False
        self._write(run, ATTACHED, {"attempt": self._attempt})
        self._observer(RunTakenUp(pipeline=self._pipeline.name, run=run.run))
        return True

    def _try(self, run: Run) -> Failure | None:
        if self._attempt >= self._pipeline.run.attempts:
            return self._failed(run, RunFailed("gone", self._after))
        self._attempt += 1
        try:
            self._ranges = self._training.fetch(self._ranges)
            self._schedule = self._scheduled(clock_ms())
            self._writer.record(self._started(run))
            self._going = self._training.start(run, self._request.at, self._versions, self._ranges)
        except (HeadraceError, OSError) as error:  # a champion that cannot be read; a full disk
            return self._failed(run, error)
        return None

    def _failed(self, run: Run, error: HeadraceError | OSError) -> Failure | None:
        """The end, or another attempt in a while."""
        self._going = None
        limits, last = self._pipeline.run, self._attempt
        if not is_tried_again(error) or last >= limits.attempts:
            self.let_go()
            return Failure(reason=f"{error}; attempt {last} of {limits.attempts}" if last > 1 else str(error))
        self._after, seconds = str(error), seconds_before(last + 1, limits)
        self._again_at = monotonic() + seconds
        self._write(run, RETRY, {"attempt": last + 1, "seconds": seconds}, why=self._after)
        self._observer(
            RunTriedAgain(
                pipeline=self._pipeline.name, run=run.run, attempt=last + 1, seconds=seconds, reason=self._after
            )
        )
        return None

    def _scheduled(self, began: int) -> Schedule:
        return schedule_of(self._pipeline.retrain, at=self._request.at, began=began, durations=self._durations())

    def _started(self, run: Run) -> Started:
        limits = self._pipeline.run
        return Started(
            run=run.run,
            pipeline=self._pipeline.name,
            at=now(),
            tick=run.tick_text,
            trigger=run.trigger,
            ranges=self._ranges,
            attempt=self._attempt,
            after=self._after,
            host=self._training.host,
            limits={
                "seconds": limits.time_s,
                "memory_mb": limits.memory_mb,
                "cpus": limits.cpus,
                "nice": limits.nice,
                "attempts": limits.attempts,
            },
            overruns=self._overrun(run, None),
        )

    def _report(self, run: Run, going: Attempt) -> None:
        self._reported = monotonic()
        stage, facts = going.progress()
        end = self._schedule.expected_end(clock_ms())
        if _ETA not in facts and end is not None:
            facts = {**facts, _ETA: max(0.0, (end - clock_ms()) / 1000)}
        self._write(run, stage, facts, overruns=self._overrun(run, facts.get(_ETA)))

    def _overrun(self, run: Run, eta_seconds: float | None) -> str:
        """The next tick, where this run takes longer than until then; said once."""
        at = clock_ms()
        tick = self._schedule.overrun(at, eta_seconds)
        if tick is not None and not self._said_late:
            self._said_late = True
            detail = sentence(tick, self._schedule.expected_end(at, eta_seconds))
            self._observer(RunOverruns(pipeline=self._pipeline.name, run=run.run, detail=detail))
        return "" if tick is None else iso(tick)

    def _write(self, run: Run, stage: str, facts: dict[str, float], *, why: str = "", overruns: str = "") -> None:
        name = self._pipeline.name
        self._writer.record(
            Progressed(run=run.run, pipeline=name, at=now(), stage=stage, facts=facts, why=why, overruns=overruns)
        )
