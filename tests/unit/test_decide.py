"""One version per tick (law 8), as lists of what happened: requests, decisions, crashes."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec
import pytest

from headrace.models.durations import iso
from headrace.models.protocols import Numbers, Reason, Trigger
from headrace.models.records import Finished, Requested, RunRecord, Started
from headrace.scheduler.decide import Answered, Decision, InRegistry, Live, NotDue, PipelineRuns, Run, decide
from headrace.scheduler.triggers import Cron, NewLabels

DAILY = Cron("0 3 * * *", timezone="UTC")
MONDAY, TUESDAY, WEDNESDAY = "2013-07-08T03:00:00Z", "2013-07-09T03:00:00Z", "2013-07-10T03:00:00Z"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@dataclass
class Leader:
    """What the real one does around `decide`: records in, records out. A crash leaves the records and nothing else."""

    triggers: list[Trigger]
    topic: list[RunRecord] = field(default_factory=list)
    trained: list[tuple[str, str]] = field(default_factory=list)  # (run, tick) each time a training ran

    def runs(self) -> PipelineRuns:
        runs = PipelineRuns(pipeline="flights", started=ms("2013-07-08T00:00Z"))
        for record in self.topic:
            runs.apply(record)
        return runs

    def handle(
        self,
        request: Requested,
        *,
        new_labels: int = 0,
        outcome: str = "promoted",
        crash: Literal["training"] | None = None,
    ) -> Decision:
        decision = decide(self.triggers, request, self.runs(), Live(new_labels=new_labels))
        match decision:
            case Run():
                self.topic.append(started(decision))
                self.trained.append((decision.run, decision.tick_text))
                if crash is None:
                    self.topic.append(finished(decision.run, outcome, decision.tick_text))
            case NotDue():
                self.topic.append(finished(decision.run, "not_due"))
            case Answered() | InRegistry():
                pass
        return decision


def request(run: str, at: str, *, on_demand: bool = False, why: str = "", pipeline: str = "flights") -> Requested:
    return Requested(run=run, pipeline=pipeline, at=ms(at), by="test", on_demand=on_demand, why=why)


def started(run: Run) -> Started:
    return Started(run=run.run, pipeline="flights", at=MONDAY, tick=run.tick_text, trigger=run.trigger, ranges=())


def finished(run: str, outcome: str, tick: str = "") -> Finished:
    return Finished(run=run, pipeline="flights", at=MONDAY, outcome=outcome, reason="", tick=tick)


class Stuck:
    """A user's own schedule that always gives the same tick."""

    def due(self, numbers: Numbers, now: int) -> Reason | None:  # noqa: ARG002  the protocol's
        return Reason(ms(MONDAY), "stuck")

    def next_after(self, after: int) -> int | None:  # noqa: ARG002  the protocol's
        return None


def test_a_request_at_a_tick_runs_under_it() -> None:
    leader = Leader([DAILY])
    assert leader.handle(request("a", MONDAY)) == Run(run="a", tick=ms(MONDAY), trigger='cron "0 3 * * *" UTC')


def test_a_request_before_the_tick_is_not_due_and_says_what_comes_next() -> None:
    decision = Leader([DAILY]).handle(request("a", "2013-07-08T02:59:59Z"))
    assert decision == NotDue(run="a", reason=f"no trigger is due; the next is scheduled at {MONDAY}")


def test_two_schedulers_that_ask_for_one_tick_get_one_training() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY))
    assert isinstance(leader.handle(request("b", "2013-07-08T03:00:01Z")), NotDue)
    assert leader.trained == [("a", MONDAY)]


@pytest.mark.parametrize("outcome", ["promoted", "rejected", "failed"])
def test_a_tick_is_used_up_by_whatever_came_of_its_run(outcome: str) -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY), outcome=outcome)
    assert isinstance(leader.handle(request("b", "2013-07-08T12:00Z")), NotDue)
    assert isinstance(leader.handle(request("c", TUESDAY)), Run)


def test_a_request_that_was_not_due_uses_no_tick_up() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", "2013-07-08T02:00Z"))
    assert isinstance(leader.handle(request("b", MONDAY)), Run)


def test_the_same_request_again_gets_the_same_answer() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY), outcome="rejected")
    leader.handle(request("b", MONDAY))
    again, not_due = leader.handle(request("a", MONDAY)), leader.handle(request("b", TUESDAY))
    assert isinstance(again, Answered)
    assert again.finished.outcome == "rejected"
    assert isinstance(not_due, Answered)
    assert not_due.finished.outcome == "not_due"
    assert leader.trained == [("a", MONDAY)]


def test_a_run_that_died_runs_again_under_the_same_tick() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY), crash="training")
    decision = leader.handle(request("a", MONDAY))
    assert decision == Run(run="a", tick=ms(MONDAY), trigger='cron "0 3 * * *" UTC', again=True)
    assert isinstance(leader.handle(request("b", "2013-07-08T03:00:05Z")), NotDue)


def test_a_run_that_died_keeps_its_tick_though_the_next_one_has_passed_meanwhile() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY), crash="training")
    leader.handle(request("a", MONDAY))
    leader.handle(request("b", TUESDAY))
    assert leader.trained == [("a", MONDAY), ("a", MONDAY), ("b", TUESDAY)]


def test_another_request_takes_the_tick_of_a_dead_run_over_and_the_dead_one_is_then_not_due() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY), crash="training")
    taken = leader.handle(request("b", "2013-07-08T03:10Z"))
    assert isinstance(taken, Run)
    assert taken.tick_text == MONDAY
    assert leader.handle(request("a", MONDAY)) == NotDue(run="a", reason=f"tick {MONDAY} was run by b")


def test_ticks_missed_while_no_scheduler_lived_are_one_run() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY))
    decision = leader.handle(request("b", "2013-07-20T12:00Z"))
    assert isinstance(decision, Run)
    assert decision.tick_text == "2013-07-20T03:00:00Z"
    assert "11 missed" in decision.trigger
    assert isinstance(leader.handle(request("c", "2013-07-20T12:01Z")), NotDue)


def test_a_run_on_demand_always_runs_has_no_tick_and_uses_none_up() -> None:
    leader = Leader([DAILY])
    asked = request("a", "2013-07-08T03:00:30Z", on_demand=True, why="new carrier")
    assert leader.handle(asked) == Run(run="a", tick=None, trigger="on demand: new carrier")
    assert leader.trained == [("a", "")]
    assert isinstance(leader.handle(request("b", "2013-07-08T03:00:31Z")), Run)
    assert isinstance(leader.handle(request("c", "2013-07-08T03:00:32Z", on_demand=True)), Run)


def test_a_run_on_demand_that_died_runs_again() -> None:
    leader = Leader([])
    leader.handle(request("a", MONDAY, on_demand=True), crash="training")
    assert leader.handle(request("a", MONDAY, on_demand=True)) == Run(
        run="a", tick=None, trigger="on demand", again=True
    )


def test_a_batch_that_is_to_be_learnt_by_heart_first_is_so_in_every_try() -> None:
    leader, asked = Leader([]), msgspec.structs.replace(request("a", MONDAY, on_demand=True), sanity=True)
    leader.handle(asked, crash="training")
    decision = leader.handle(asked)
    assert isinstance(decision, Run)
    assert (decision.sanity, decision.again) == (True, True)


def test_volume_runs_once_for_one_moment_and_a_later_tick_is_still_its_own() -> None:
    leader = Leader([NewLabels(100), DAILY])
    at = "2013-07-08T02:59:00Z"
    assert isinstance(leader.handle(request("a", at), new_labels=100), Run)
    assert leader.handle(request("b", at), new_labels=100) == NotDue(
        run="b", reason=f"tick {at} was run by a; the next is scheduled at {MONDAY}"
    )
    assert isinstance(leader.handle(request("c", MONDAY)), Run)
    assert leader.trained == [("a", at), ("c", MONDAY)]


def test_a_used_tick_does_not_stand_in_the_way_of_another_reason() -> None:
    leader = Leader([Stuck(), NewLabels(1)])
    leader.handle(request("a", MONDAY))
    decision = leader.handle(request("b", "2013-07-08T04:00:00Z"), new_labels=5)
    assert isinstance(decision, Run)
    assert decision.tick_text == "2013-07-08T04:00:00Z"


def test_a_version_in_the_registry_whose_outcome_is_missing_is_not_trained_again() -> None:
    leader = Leader([DAILY])
    leader.handle(request("a", MONDAY), crash="training")
    runs = leader.runs()
    runs.apply_version(run="a", tick=MONDAY, version=4, seq=9)
    assert decide([DAILY], request("a", MONDAY), runs) == InRegistry(run="a", tick_text=MONDAY, version=4, seq=9)
    assert isinstance(decide([DAILY], request("b", "2013-07-08T12:00Z"), runs), NotDue)


def test_with_the_runs_topic_gone_the_registry_still_says_which_ticks_were_run() -> None:
    runs = PipelineRuns(pipeline="flights", started=0)
    runs.apply_version(run="a", tick=MONDAY, version=3)
    runs.apply_version(run="", tick="", version=1)  # imported by hand
    assert isinstance(decide([DAILY], request("b", "2013-07-08T12:00Z"), runs), NotDue)


def test_other_pipelines_are_none_of_ours_and_a_record_twice_changes_nothing() -> None:
    runs = PipelineRuns(pipeline="flights")
    runs.apply(request("z", "2013-01-01T00:00Z", pipeline="clicks"))
    assert runs.numbers(ms(MONDAY)).started == ms(MONDAY)
    run = Run(run="a", tick=ms(MONDAY), trigger="")
    records: list[RunRecord] = [request("a", MONDAY), started(run), finished("a", "promoted", MONDAY), started(run)]
    for record in records * 2:
        runs.apply(record)
    assert isinstance(decide([DAILY], request("a", MONDAY), runs), Answered)
    assert runs.last_tick == ms(MONDAY)


def test_a_pipeline_is_first_seen_with_its_oldest_request() -> None:
    runs = PipelineRuns(pipeline="flights")
    assert isinstance(decide([DAILY], request("a", "2013-07-08T12:00Z"), runs), NotDue)
    runs.apply(request("a", "2013-07-08T12:00Z"))
    decision = decide([DAILY], request("b", "2013-07-09T12:00Z"), runs)
    assert isinstance(decision, Run)
    assert decision.tick_text == TUESDAY


def test_a_clock_that_was_set_back_runs_no_tick_again() -> None:
    leader = Leader([DAILY])
    for run, at in [("a", MONDAY), ("b", TUESDAY), ("c", MONDAY), ("d", "2013-07-09T02:00Z"), ("e", TUESDAY)]:
        leader.handle(request(run, at))
    leader.handle(request("f", WEDNESDAY))
    assert leader.trained == [("a", MONDAY), ("b", TUESDAY), ("f", WEDNESDAY)]


def test_one_version_per_tick_in_a_month_with_two_schedulers_and_a_crash_a_day() -> None:
    leader = Leader([DAILY])
    for day in range(30):
        tick = ms("2013-07-08T03:00Z") + day * 86_400_000
        asks = [request(f"{name}{day}", iso(tick + late)) for name, late in (("left", 3), ("right", 7_000))]
        leader.handle(asks[day % 2], crash="training" if day % 3 else None)
        for ask in [*asks, *reversed(asks)]:
            leader.handle(ask)
    ticks = [record.tick for record in leader.topic if isinstance(record, Finished) and record.outcome == "promoted"]
    assert len(ticks) == len(set(ticks)) == 30


def test_what_is_remembered_is_bounded() -> None:
    runs = PipelineRuns(pipeline="flights")
    for number in range(10_050):
        runs.apply(finished(str(number), "not_due"))
    assert runs.outcome("0") is None
    assert runs.outcome("10049") is not None
