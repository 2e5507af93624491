"""requests → decide → run → publish: the one writer of a pipeline's versions (law 8).

The leader is the owner of partition 0 of `headrace.runs` in the pipeline's group. What it writes goes out in
transactions that carry its group's offsets, so that the broker fences a leader that has lost the group without knowing.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import uuid4

from headrace.models.durations import iso
from headrace.models.errors import RegistryRefused
from headrace.models.facts import Observer, Refused, RunEnded
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Paired
from headrace.models.records import Asked, Finished, Promoted, Published, Replied, Requested, RunRecord
from headrace.models.registry import Versions
from headrace.models.signing import Verify, accepted
from headrace.scheduler.attempts import Attempts, Candidate, Training
from headrace.scheduler.decide import Answered, InRegistry, Live, NotDue, PipelineRuns, Run, decide
from headrace.scheduler.guard import Guard, Pairing, pairings
from headrace.scheduler.ledger import LeadershipLost, Ledger, Registry
from headrace.scheduler.outcomes import answer, clock_ms, finished
from headrace.scheduler.publisher import Publisher
from headrace.scheduler.replies import Replies
from headrace.scheduler.writer import Writer

_POLL_SECONDS = 0.02


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
        trains: bool = True,
    ) -> None:
        """Without `trains` it answers requests for moves, and leaves the runs to the next leader."""
        self._pipeline, self._name = pipeline, name
        self._log, self._writer, self._training = log, writer, training
        self._live, self._observer = live, observer
        self._runs = PipelineRuns(pipeline=pipeline.name, started=started)
        self._attempts = Attempts(pipeline, writer, training, observer, lambda: self._runs.durations)
        self._ledger = Ledger(pipeline.name, registry_log, observer, verify)
        self._publisher = Publisher(pipeline.name, name, self._ledger, writer, pipeline.shadow)
        self._replies = Replies(pipeline.name, self._ledger, writer, clock_ms, self._cancel)
        self._replays = started is not None  # then it decides at the replay's requests alone, and not in between
        self._guard = Guard(pipeline, observer, new_run_id, clock_ms)
        self._waiting: dict[str, Requested] = {}  # by run, oldest first
        self._trains = trains
        self._begun = self._swept = False
        self._due_at: int | None = None  # the clock woke us at this time, Unix ms

    def wake(self, now: int) -> None:
        """From the clock, in any thread: see whether a run is due."""
        self._due_at = now

    def answered(self, run: str) -> Finished | None:
        return self._runs.outcome(run)

    def step(self) -> None:
        """Whoever is to have a say while a training goes on stands between the replies and the run."""
        led = self._log.leads  # all that there is was read, if it led before
        self._read(_POLL_SECONDS)
        if not (led and self._log.leads):
            if self._attempts.run is not None:
                raise LeadershipLost(self._pipeline.name)
            return
        if self._pipeline.initial and not self._ledger.begun:
            self._publish_initial(self._pipeline.initial)
        self._look_after_what_serves(guards=not self._replays)
        if self._trains:
            self._train()

    def close(self) -> None:
        """It leads no more, whatever the reason; a training goes on as long as its process may."""
        self._attempts.let_go()

    def _train(self) -> None:
        if not self._swept:
            self._training.stop_others(self._runs.open)
            self._swept = True
        if self._attempts.run is not None:
            self._look_after_training(self._attempts.run)
        else:
            self._take_up_requests()
        if self._attempts.run is None:
            self._ask_for_what_is_due()

    def _take_up_requests(self) -> None:
        """One after the other, up to one that trains."""
        for request in list(self._waiting.values()):
            self._handle(request)
            self._waiting.pop(request.run, None)
            if self._attempts.run is not None:
                return

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
        self._live.watch(self._versions, pairings(self._pipeline, self._versions))

    def _look_after_what_serves(self, *, guards: bool = True) -> None:
        """Live numbers, what follows from them, and what anybody asked."""
        if not self._ledger.up_to_date:  # before a live number: which versions it is of
            self._follow_registry()
        self._live.poll()
        if guards and (asked := self._guard.asks(self._versions, self._live.measured())):
            self._writer.record(*asked)
            for one in asked:
                self._replies.heard(one)
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
        return 0 <= request.at <= clock_ms() + self._pipeline.max_future_ms

    def _handle(self, request: Requested) -> None:
        name = self._pipeline.name
        if not self._is_past(request):
            reason = f"bad_time: expected a time from 1970 to now, got {iso(request.at)}"
            self._end(finished(name, request.run, "failed", reason))
            return
        self._follow_registry()  # the request before this one may have published
        live = self._live.now()
        self._look_after_what_serves()  # by the same numbers: a replay waits for what follows from them
        decision = decide(self._pipeline.retrain, request, self._runs, live)
        if isinstance(decision, Run):
            failure = self._attempts.start(decision, request, self._versions, self._runs.died(decision.run))
            if failure is not None:
                self._end(finished(name, decision.run, "failed", failure.reason, tick=decision.tick_text))
                self._live.reset(self._runs.last_end)
        else:
            self._answer(decision)

    @property
    def _versions(self) -> Versions:
        return self._ledger.versions

    def _answer(self, decision: NotDue | Answered | InRegistry) -> None:
        known = answer(self._pipeline.name, decision)
        if known is not None:
            self._end(known)

    def _look_after_training(self, run: Run) -> None:
        came_to = self._attempts.look()
        if came_to is None:
            return
        if isinstance(came_to, Candidate) and came_to.promote:
            self._publish_once(run, came_to)
        elif isinstance(came_to, Candidate):
            self._end(self._publisher.of(came_to, run, "rejected"))
        else:
            failed = finished(self._pipeline.name, run.run, "failed", came_to.reason, tick=run.tick_text)
            self._end(failed, self._attempts.seconds)
        self._live.reset(self._runs.last_end)

    def _cancel(self, asked: Asked, reply: Replied) -> None:
        """(1) the process is told to end, (2) outcome and reply are on record. Between them, it comes again."""
        goes_on = self._attempts.run is not None and self._attempts.run.run == asked.target
        if not goes_on and asked.target not in self._waiting:
            ended = self._runs.outcome(asked.target)
            if ended is None:
                raise RegistryRefused("unknown_run", f"no run {asked.target!r} waits or goes on")
            raise RegistryRefused("ended", f"run {asked.target} is {ended.outcome} since {ended.at}")
        run, started = self._attempts.run, self._runs.died(asked.target)
        tick = run.tick_text if goes_on and run is not None else started.tick if started is not None else ""
        self._training.stop(asked.target)
        why = f"by {asked.by}" + (f": {asked.why}" if asked.why else "")
        outcome = finished(self._pipeline.name, asked.target, "cancelled", why, tick=tick)
        self._writer.record(outcome, reply)
        self._waiting.pop(asked.target, None)
        if goes_on:
            self._attempts.let_go()
        self._ended(outcome)

    def _publish_once(self, run: Run, candidate: Candidate) -> None:
        """What began the run here fenced whoever led before: what that one published is on record, not done twice."""
        self._follow_registry()
        known = self._runs.version_of(run.run)
        other = None if run.tick is None else self._runs.used_by(run.tick)
        if known is not None:
            self._answer(known)
        elif other is not None and other != run.run:
            self._answer(NotDue(run=run.run, reason=f"tick {run.tick_text} was run by {other}"))
        else:
            self._ended(self._publisher.publish(run, candidate))

    def _publish_initial(self, path: str) -> None:
        self._follow_registry()
        if not self._versions.newest:
            self._publisher.publish_initial(self._training.initial(path))
            self._follow_registry()

    def _end(self, outcome: Finished, seconds: float = 0.0) -> None:
        self._writer.record(outcome)
        self._ended(outcome, seconds)

    def _ended(self, outcome: Finished, seconds: float = 0.0) -> None:
        self._runs.apply(outcome)
        self._observer(
            RunEnded(
                pipeline=outcome.pipeline,
                run=outcome.run,
                outcome=outcome.outcome,
                reason=outcome.reason,
                version=outcome.version,
                seconds=outcome.seconds or {"all": seconds},
            )
        )


def new_run_id(at: int) -> str:
    """Sorts by time, and meets no other."""
    return f"{iso(at).replace(':', '')}-{uuid4().hex[:8]}"
