"""requests → decide → run → publish: the one writer of a pipeline's versions (law 8).

The leader is the owner of partition 0 of `headrace.runs` in the pipeline's group. What it writes goes out in
transactions that carry its group's offsets, so that the broker fences a leader that has lost the group without knowing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import Any, Protocol
from uuid import uuid4

from msgspec.structs import replace

from headrace.models.aliases import CHALLENGER, CHAMPION
from headrace.models.durations import iso
from headrace.models.errors import HeadraceError, RegistryRefused
from headrace.models.facts import Observer, Refused, RunEnded
from headrace.models.manifest import Blob, Manifest, OffsetRange
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Paired
from headrace.models.records import (
    Aliased,
    Asked,
    Finished,
    Progressed,
    Promoted,
    Published,
    RegistryRecord,
    Replied,
    Requested,
    RunRecord,
    Started,
)
from headrace.models.registry import Versions
from headrace.models.signing import Verify, accepted
from headrace.scheduler.decide import Answered, InRegistry, Live, NotDue, PipelineRuns, Run, decide
from headrace.scheduler.guard import Guard, Pairing, pairings
from headrace.scheduler.ledger import LeadershipLost, Ledger, Registry
from headrace.scheduler.replies import Replies
from headrace.scheduler.writer import Writer

_POLL_SECONDS = 0.02
_PROGRESS_SECONDS = 1.0  # between two progress records of a run
_INITIAL = Run(run="initial", tick=None, trigger="initial")


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


class Attempt(Protocol):
    """A training that is going on."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]: ...

    def wait(self, seconds: float) -> Candidate | None:
        """The candidate, or None while it goes on. Raises RunFailed."""

    def progress(self) -> tuple[str, dict[str, float]]:
        """The stage, and its newest facts."""

    def cancel(self) -> None: ...


class Training(Protocol):
    """Starts trainings, and brings a model that a user gave."""

    def start(self, run: Run, at: int, versions: Versions) -> Attempt: ...

    def initial(self, path: str) -> Candidate: ...


class RunsLog(Protocol):
    """`headrace.runs` as a member of the leader's group."""

    def poll(self, seconds: float) -> Sequence[RunRecord]: ...

    @property
    def leads(self) -> bool:
        """Owner of the partition, and at its end."""


class LiveNumbers(Protocol):
    def poll(self) -> None:
        """Takes what came since the last call, without waiting for more."""

    def now(self) -> Live:
        """Counted since the newest run ended, up to what is on the topics now."""

    def reset(self, since: int) -> None:
        """What was appended up to `since` (the clock, Unix ms) was there for the newest run already."""

    def watch(self, versions: Versions, compared: Sequence[Pairing]) -> None:
        """From now on the champion, and these versions beside each other."""

    def measured(self) -> Mapping[Pairing, Paired]: ...


class Leader:
    """One pipeline's. `step` does one thing at a time and returns soon; any exception ends the leadership."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        name: str,
        log: RunsLog,
        registry_log: Registry,
        writer: Writer,
        training: Training,
        live: LiveNumbers,
        observer: Observer,
        started: int | None = None,
        verify: Verify = accepted,
    ) -> None:
        self._pipeline, self._name = pipeline, name
        self._log, self._writer, self._training = log, writer, training
        self._live, self._observer = live, observer
        self._runs = PipelineRuns(pipeline=pipeline.name, started=started)
        self._ledger = Ledger(pipeline.name, registry_log, observer, verify)
        self._replies = Replies(pipeline.name, self._ledger, writer, _clock_ms)
        self._guard = Guard(pipeline, observer, new_run_id, _clock_ms)
        self._waiting: dict[str, Requested] = {}  # by run, oldest first
        self._begun = False
        self._due_at: int | None = None  # the clock woke us at this time, Unix ms

    def wake(self, now: int) -> None:
        """From the clock, in any thread: see whether a run is due."""
        self._due_at = now

    def answered(self, run: str) -> Finished | None:
        return self._runs.outcome(run)

    def step(self) -> None:
        self._read(_POLL_SECONDS)
        if not self._log.leads:
            return
        if self._pipeline.initial and not self._ledger.begun:
            self._publish_initial(self._pipeline.initial)
        self._look_after_what_serves()
        self._ask_for_what_is_due()
        for request in list(self._waiting.values()):
            self._handle(request)
            self._waiting.pop(request.run, None)

    def _read(self, seconds: float) -> None:
        for record in self._log.poll(seconds):
            try:
                if not isinstance(record, Requested) or self._is_past(record):
                    self._runs.apply(record)
            except (ValueError, OverflowError) as error:  # a tick that no calendar holds
                self._refused(RegistryRefused("bad_record", f"{record}: {error}"))
                continue
            if isinstance(record, Requested) and record.pipeline == self._pipeline.name:
                self._waiting[record.run] = record
            elif isinstance(record, Finished):
                self._waiting.pop(record.run, None)
            elif isinstance(record, Asked | Replied):
                self._replies.heard(record)

    def _follow_registry(self) -> None:
        for record in self._ledger.follow():
            if isinstance(record, Published | Promoted) and record.version:  # the baseline has no run
                made = self._ledger.versions.published[record.version]
                seq = record.seq if isinstance(record, Promoted) else 0
                self._runs.apply_version(run=made.run, tick=made.tick, version=record.version, seq=seq)
        versions = self._ledger.versions
        self._live.watch(versions, pairings(self._pipeline, versions))

    def _look_after_what_serves(self) -> None:
        """Live numbers, what follows from them, and what anybody asked: a rollback does not wait for a training."""
        if not self._ledger.up_to_date:  # before a live number: which versions it is of
            self._follow_registry()
        self._live.poll()
        if asked := self._guard.asks(self._ledger.versions, self._live.measured()):
            self._writer.record(*asked)
        self._replies.give(self._follow_registry)

    def _refused(self, error: RegistryRefused) -> None:
        self._observer(Refused(pipeline=self._pipeline.name, reason=error.reason, detail=error.detail))

    def _ask_for_what_is_due(self) -> None:
        """The clock's wake-up becomes a request on the topic only where there is something to do."""
        now, self._due_at = self._due_at, None
        if now is None:
            return
        if not self._begun:
            self._live.reset(self._runs.last_end)
            self._begun = True
        self._follow_registry()
        request = Requested(run=new_run_id(now), pipeline=self._pipeline.name, at=now, by=f"clock of {self._name}")
        decision = decide(self._pipeline.retrain, request, self._runs, self._live.now())
        if isinstance(decision, Run) or not self._runs.seen:  # the first request says since when ticks count
            self._writer.record(request)
            self._waiting[request.run] = request

    def _is_past(self, request: Requested) -> bool:
        """A tick in the future would use up all before it."""
        return 0 <= request.at <= _clock_ms() + self._pipeline.max_future_ms

    def _handle(self, request: Requested) -> None:
        if not self._is_past(request):
            reason = f"bad_time: expected a time from 1970 to now, got {iso(request.at)}"
            self._end(self._finished(request.run, "failed", reason))
            return
        self._follow_registry()  # the request before this one may have published
        decision = decide(self._pipeline.retrain, request, self._runs, self._live.now())
        if isinstance(decision, Run):
            self._train(decision, request)
            self._live.reset(self._runs.last_end)
        else:
            self._answer(request, decision)

    def _answer(self, request: Requested, decision: NotDue | Answered | InRegistry) -> None:
        match decision:
            case Answered():
                return
            case NotDue(reason=reason):
                self._end(self._finished(request.run, "not_due", reason))
            case InRegistry() as known:
                self._end(
                    self._finished(
                        request.run,
                        "promoted" if known.seq else "published",
                        "published before its outcome was written",
                        tick=known.tick_text,
                        version=known.version,
                        seq=known.seq,
                    )
                )

    def _train(self, run: Run, request: Requested) -> None:
        begun = monotonic()
        try:
            attempt = self._training.start(run, request.at, self._ledger.versions)
            self._writer.record(
                Started(
                    run=run.run,
                    pipeline=self._pipeline.name,
                    at=_now(),
                    tick=run.tick_text,
                    trigger=run.trigger,
                    ranges=attempt.ranges,
                )
            )
            candidate = self._await(run, attempt)
        except (HeadraceError, OSError) as error:  # RunFailed; a champion that cannot be read; a full disk
            self._end(self._finished(run.run, "failed", str(error), tick=run.tick_text), monotonic() - begun)
            return
        if candidate.promote:
            self._publish_once(run, request, candidate)
        else:
            self._end(self._of(candidate, run, "rejected"), monotonic() - begun)

    def _await(self, run: Run, attempt: Attempt) -> Candidate:
        """Keeps reading the log, so that the group keeps this member; a lost group cancels the training."""
        reported = monotonic()
        while (candidate := attempt.wait(_POLL_SECONDS)) is None:
            self._read(0)
            if not self._log.leads:
                attempt.cancel()
                raise LeadershipLost(self._pipeline.name)
            self._look_after_what_serves()
            if monotonic() - reported >= _PROGRESS_SECONDS:
                reported = monotonic()
                stage, facts = attempt.progress()
                self._writer.record(
                    Progressed(run=run.run, pipeline=self._pipeline.name, at=_now(), stage=stage, facts=facts)
                )
        return candidate

    def _publish_once(self, run: Run, request: Requested, candidate: Candidate) -> None:
        """`Started` fenced whoever led before us: what it published last is on record by now, and is not done twice."""
        self._follow_registry()
        known = self._runs.version_of(run.run)
        other = None if run.tick is None else self._runs.used_by(run.tick)
        if known is not None:
            self._answer(request, known)
        elif other is not None and other != run.run:
            self._answer(request, NotDue(run=run.run, reason=f"tick {run.tick_text} was run by {other}"))
        else:
            self._publish(run, candidate)

    def _publish(self, run: Run, candidate: Candidate) -> None:
        """Beside a pinned champion the new version is published and does not serve; nor does it where it has to prove
        itself in shadow first, one version at a time."""
        versions = self._ledger.versions
        version, seq, place, why = versions.newest + 1, versions.seq, CHAMPION, ""
        if versions.pinned:
            place, why = "", f"; not promoted: version {versions.aliases[CHAMPION]} is pinned"
        elif self._pipeline.shadow is not None and versions.champion is not None:
            waiting = versions.aliases.get(CHALLENGER)
            place = CHALLENGER if waiting is None else ""
            why = "; the challenger now" if place else f"; not the challenger: version {waiting} is, undecided"
        reason = candidate.reason + why
        finished = replace(
            self._of(
                candidate,
                run,
                "promoted" if place == CHAMPION else "published",
                version=version,
                seq=seq + 1 + bool(place),
            ),
            reason=reason,
        )
        self._writer.publish(
            candidate.onnx,
            lambda onnx: candidate.manifest(version, onnx),
            lambda manifest: [*self._records(run, version, seq, manifest, reason, place=place), finished],
        )
        self._ledger.wrote(finished.seq)
        self._ended(finished)

    def _publish_initial(self, path: str) -> None:
        self._follow_registry()
        versions = self._ledger.versions
        if versions.newest:
            return
        candidate = self._training.initial(path)
        seq, place = versions.seq, "" if versions.pinned else CHAMPION
        self._writer.publish(
            candidate.onnx,
            lambda onnx: candidate.manifest(1, onnx),
            lambda manifest: self._records(_INITIAL, 1, seq, manifest, candidate.reason, place=place),
        )
        self._ledger.wrote(seq + 1 + bool(place))
        self._follow_registry()

    def _records(
        self, run: Run, version: int, seq: int, manifest: Blob, why: str, *, place: str
    ) -> list[RegistryRecord]:
        """`place` is the alias that it gets, "" for none."""
        name, now = self._pipeline.name, _now()
        published = Published(
            pipeline=name,
            seq=seq + 1,
            version=version,
            manifest=manifest,
            run=run.run,
            tick=run.tick_text,
            at=now,
            by=self._name,
            why=why,
        )
        said: dict[str, Any] = {"pipeline": name, "seq": seq + 2, "version": version, "at": now, "by": self._name}
        if not place:
            return [published]
        moved = Promoted(**said, why=why) if place == CHAMPION else Aliased(**said, why=why, alias=place)
        return [published, moved]

    def _of(self, candidate: Candidate, run: Run, outcome: str, version: int = 0, seq: int = 0) -> Finished:
        return Finished(
            run=run.run,
            pipeline=self._pipeline.name,
            at=_now(),
            outcome=outcome,
            reason=candidate.reason,
            tick=run.tick_text,
            version=version,
            seq=seq,
            rows=candidate.rows,
            holdout_rows=candidate.holdout_rows,
            metrics=dict(candidate.metrics),
            champion_metrics=dict(candidate.champion_metrics),
            seconds=dict(candidate.seconds),
        )

    def _finished(
        self, run: str, outcome: str, reason: str, *, tick: str = "", version: int = 0, seq: int = 0
    ) -> Finished:
        return Finished(
            run=run,
            pipeline=self._pipeline.name,
            at=_now(),
            outcome=outcome,
            reason=reason,
            tick=tick,
            version=version,
            seq=seq,
        )

    def _end(self, finished: Finished, seconds: float = 0.0) -> None:
        self._writer.record(finished)
        self._ended(finished, seconds)

    def _ended(self, finished: Finished, seconds: float = 0.0) -> None:
        self._runs.apply(finished)
        self._observer(
            RunEnded(
                pipeline=finished.pipeline,
                run=finished.run,
                outcome=finished.outcome,
                reason=finished.reason,
                version=finished.version,
                seconds=finished.seconds or {"all": seconds},
            )
        )


def new_run_id(at: int) -> str:
    """Sorts by time, and meets no other."""
    return f"{iso(at).replace(':', '')}-{uuid4().hex[:8]}"


def _clock_ms() -> int:
    return time_ns() // 1_000_000


def _now() -> str:
    return iso(_clock_ms())
