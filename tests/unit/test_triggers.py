"""When a retraining is due, where a replay stops for it, and that the clock asks in time."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from queue import Queue
from threading import Event

import pytest

from headrace.models.durations import iso
from headrace.models.errors import BadInput, DeclarationError
from headrace.models.protocols import Numbers, Reason, Scheduled, Trigger
from headrace.scheduler.clock import Clock
from headrace.scheduler.next_ticks import next_of, slice_ends
from headrace.scheduler.triggers import Always, Cron, Every, Never, NewLabels, due_of

HOUR = 3_600_000
DAY = 24 * HOUR
WEEKLY = Cron("0 3 * * mon", timezone="America/New_York")
SOON = 30.0  # seconds: only a broken test waits as long


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def since(text: str, *, new_labels: int = 0) -> Numbers:
    return Numbers(last_tick=ms(text), started=0, new_labels=new_labels)


# ── cron and every ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cron_is_due_at_its_time_and_not_a_millisecond_before() -> None:
    tick = ms("2013-07-08T03:00-04:00")
    last = since("2013-07-01T03:00-04:00")
    assert WEEKLY.due(last, tick - 1) is None
    assert WEEKLY.due(last, tick) == Reason(tick, 'cron "0 3 * * mon" America/New_York')


def test_cron_is_not_due_twice_for_one_tick() -> None:
    assert WEEKLY.due(since("2013-07-08T03:00-04:00"), ms("2013-07-08T03:00:05-04:00")) is None


def test_several_missed_ticks_are_one_run_under_the_newest() -> None:
    reason = WEEKLY.due(since("2013-07-01T03:00-04:00"), ms("2013-07-30T12:00Z"))
    assert reason is not None
    assert iso(reason.tick) == "2013-07-29T07:00:00Z"
    assert reason.text.endswith("(and for 3 missed before it)")


def test_a_year_of_missed_minutes_is_counted_only_so_far() -> None:
    reason = Cron("* * * * *", timezone="UTC").due(since("2013-01-01T00:00Z"), ms("2014-01-01T00:00Z"))
    assert reason is not None
    assert iso(reason.tick) == "2014-01-01T00:00:00Z"
    assert "100 or more missed" in reason.text


def test_where_no_run_ever_was_ticks_count_from_when_the_pipeline_was_first_seen() -> None:
    numbers = Numbers(last_tick=None, started=ms("2013-07-08T03:00-04:00"))
    assert WEEKLY.due(numbers, ms("2013-07-15T02:59-04:00")) is None
    assert WEEKLY.due(numbers, ms("2013-07-15T03:00-04:00")) is not None


def test_a_clock_that_was_set_back_makes_nothing_due() -> None:
    assert WEEKLY.due(since("2013-07-08T03:00-04:00"), ms("2013-07-01T03:00-04:00")) is None
    assert Every("1h").due(since("2013-07-08T03:00Z"), ms("2013-07-08T02:30Z")) is None


def test_two_schedulers_mean_the_same_ticks_by_every() -> None:
    every = Every("15m")
    first = every.due(since("2013-07-08T03:07Z"), ms("2013-07-08T03:15:01Z"))
    other = every.due(since("2013-07-08T02:59Z"), ms("2013-07-08T03:29Z"))
    assert first is not None
    assert other is not None
    assert iso(first.tick) == iso(other.tick) == "2013-07-08T03:15:00Z"
    assert first.text == "every 15m"
    assert other.text == "every 15m (and for 1 missed before it)"


@pytest.mark.parametrize("trigger", [WEEKLY, Every("15m"), Every("1d")])
def test_what_a_schedule_announces_comes_due_then(trigger: Cron | Every) -> None:
    at = ms("2013-03-01T12:34:56Z")
    for _ in range(50):
        announced = trigger.next_after(at)
        assert announced is not None
        assert announced > at
        numbers = Numbers(last_tick=at, started=0)
        assert trigger.due(numbers, announced - 1) is None
        reason = trigger.due(numbers, announced)
        assert reason is not None
        assert reason.tick == announced
        at = announced


# ── volume, baselines, errors ─────────────────────────────────────────────────────────────────────────────────────────


def test_new_labels_are_due_when_there_are_enough_and_the_tick_is_now() -> None:
    trigger = NewLabels(20_000)
    now = ms("2013-07-08T03:00Z")
    assert trigger.due(since("2013-07-01T03:00Z", new_labels=19_999), now) is None
    assert trigger.due(since("2013-07-01T03:00Z", new_labels=20_000), now) == Reason(
        now, "20000 new labels, 20000 asked for"
    )


def test_never_is_never_and_always_is_always() -> None:
    numbers = since("2013-07-01T03:00Z")
    assert Never().due(numbers, 7) is None
    assert Always().due(numbers, 7) == Reason(7, "always")


@pytest.mark.parametrize("trigger", [WEEKLY, Every("1h"), NewLabels(1), Never(), Always()])
def test_built_in_triggers_keep_the_protocol_and_compare_by_what_they_say(trigger: Trigger) -> None:
    assert isinstance(trigger, Trigger)
    assert isinstance(trigger, Scheduled) == isinstance(trigger, Cron | Every | Never)
    assert hash(trigger) == hash(trigger)
    assert Cron("0 3 * * mon", timezone="America/New_York") == WEEKLY
    assert repr(WEEKLY) == "Cron(expr='0 3 * * mon', timezone='America/New_York')"


def test_a_cron_without_a_timezone_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="timezone"):
        Cron("0 3 * * mon")  # type: ignore[call-arg]


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "20000"])
def test_new_labels_want_a_whole_number(count: int) -> None:
    with pytest.raises(DeclarationError, match=r"NewLabels\.count"):
        NewLabels(count)


@pytest.mark.parametrize("period", ["0m", "90", "1.5h", "1h30m", 3600])
def test_every_wants_a_duration(period: str) -> None:
    with pytest.raises(DeclarationError, match=r"Every\.period"):
        Every(period)


def test_triggers_are_read_without_a_scheduler_library() -> None:
    code = (
        "import sys, headrace.scheduler.triggers as t, headrace.scheduler.decide;"
        "heavy = {'apscheduler', 'torch', 'faust', 'confluent_kafka', 'redis', 'onnxruntime'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ── several triggers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_schedules_that_came_due_the_newest_tick_runs_for_both() -> None:
    three, four = Cron("0 3 * * *", timezone="UTC"), Cron("0 4 * * *", timezone="UTC")
    reason = due_of([three, four], since("2013-07-08T00:00Z"), ms("2013-07-08T05:00Z"))
    assert reason is not None
    assert iso(reason.tick) == "2013-07-08T04:00:00Z"
    assert due_of([three, four], Numbers(last_tick=reason.tick, started=0), ms("2013-07-08T05:00Z")) is None


def test_a_schedule_wins_over_volume_and_ties_are_in_the_order_of_declaration() -> None:
    now = ms("2013-07-08T03:00Z")
    numbers = since("2013-07-08T00:00Z", new_labels=10)
    by_cron, by_hour = Cron("0 3 * * *", timezone="UTC"), Every("1h")
    first = due_of([NewLabels(5), by_hour, by_cron], numbers, now)
    other = due_of([NewLabels(5), by_cron, by_hour], numbers, now)
    assert first is not None
    assert other is not None
    assert (first.text.split()[0], other.text.split()[0]) == ("every", "cron")
    assert due_of([NewLabels(5), Never()], numbers, now) == Reason(now, "10 new labels, 5 asked for")


def test_without_triggers_nothing_is_due_or_upcoming() -> None:
    assert due_of([], since("2013-07-08T00:00Z"), ms("2014-07-08T00:00Z")) is None
    assert next_of([], 0) is None
    assert next_of([NewLabels(1), Never()], 0) is None


def test_the_next_of_several_schedules_is_the_earliest() -> None:
    assert next_of([WEEKLY, Every("1d"), Never(), NewLabels(1)], ms("2013-07-08T01:00Z")) == ms("2013-07-08T07:00Z")


# ── the slices of a replay ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replay_stops_at_every_tick_and_at_least_once_a_day() -> None:
    found = [
        (iso(end), tick) for end, tick in slice_ends([WEEKLY], ms("2013-07-07T01:00Z"), ms("2013-07-09T12:00Z"), DAY)
    ]
    assert found == [
        ("2013-07-08T00:00:00Z", False),
        ("2013-07-08T07:00:00Z", True),
        ("2013-07-09T00:00:00Z", False),
        ("2013-07-09T12:00:00Z", False),
    ]


def test_one_day_slices_are_unions_of_one_hour_slices_with_the_same_ticks() -> None:
    start, end = ms("2013-01-01T05:17Z"), ms("2013-12-31T23:00Z")
    by_day, by_hour = (list(slice_ends([WEEKLY], start, end, longest)) for longest in (DAY, HOUR))
    assert set(by_day) <= set(by_hour)
    assert [slice_ for slice_ in by_day if slice_[1]] == [slice_ for slice_ in by_hour if slice_[1]]
    assert sum(tick for _, tick in by_day) == 52
    assert all(earlier < later for (earlier, _), (later, _) in pairwise(by_hour))
    assert by_day[-1] == by_hour[-1] == (end, False)


def test_a_tick_at_the_very_end_is_a_tick_and_one_at_the_start_belongs_to_what_was_before() -> None:
    first, second = ms("2013-07-08T07:00Z"), ms("2013-07-15T07:00Z")
    found = list(slice_ends([WEEKLY], first, second, 52 * 7 * DAY))
    assert found == [(second, True)]


def test_an_empty_span_has_no_slices_and_slices_have_a_length() -> None:
    assert list(slice_ends([WEEKLY], 5, 5, DAY)) == []
    with pytest.raises(DeclarationError):
        list(slice_ends([WEEKLY], 0, DAY, 0))


# ── the wall clock ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EveryTenth:
    """Every 100 ms: a schedule that a test can wait for."""

    def due(self, numbers: Numbers, now: int) -> Reason | None:  # noqa: ARG002  the protocol's
        return Reason(now, "a tenth of a second")

    def next_after(self, after: int) -> int | None:
        return after - after % 100 + 100


@dataclass
class Fired:
    """Collects what the clock fires."""

    facts: Queue[tuple[str, int]] = field(default_factory=Queue)

    def __call__(self, pipeline: str, now: int) -> None:
        self.facts.put((pipeline, now))

    def next(self) -> tuple[str, int]:
        return self.facts.get(timeout=SOON)


@contextmanager
def running(clock: Clock) -> Iterator[Clock]:
    clock.start()
    try:
        yield clock
    finally:
        clock.stop()


FAR = 3600.0  # seconds: a poll that no test lives to see


def test_the_clock_fires_at_the_start_and_at_every_scheduled_time() -> None:
    fired = Fired()
    with running(Clock({"flights": [EveryTenth()]}, fired, poll_seconds=FAR)):
        moments = [fired.next() for _ in range(4)]
    assert {pipeline for pipeline, _ in moments} == {"flights"}
    tenths = [now // 100 for _, now in moments]
    assert all(earlier < later for earlier, later in pairwise(tenths))


def test_the_clock_fires_once_at_the_start_for_what_was_missed_and_then_waits_for_the_schedule() -> None:
    fired = Fired()
    with running(Clock({"flights": [WEEKLY], "clicks": [EveryTenth()]}, fired, poll_seconds=0.05)):
        seen = [fired.next()[0] for _ in range(6)]
    assert seen.count("flights") == 1


def test_a_trigger_without_a_schedule_is_asked_every_few_seconds() -> None:
    fired = Fired()
    with running(Clock({"flights": [NewLabels(5)]}, fired, poll_seconds=0.05)):
        assert [fired.next()[0] for _ in range(4)] == ["flights"] * 4


def test_a_tick_whose_fire_raised_is_fired_again_at_the_next_wake_up() -> None:
    fired = Fired()
    tries = iter([True, True, False])

    def fire(pipeline: str, now: int) -> None:
        if next(tries):
            raise ConnectionError("the broker is away")
        fired(pipeline, now)

    with running(Clock({"flights": [WEEKLY]}, fire, poll_seconds=0.05)):
        assert fired.next()[0] == "flights"


def test_a_pipeline_whose_fire_takes_long_is_not_fired_beside_it_and_the_tick_is_fired_after_it() -> None:
    fired, release = Fired(), Event()

    def fire(pipeline: str, now: int) -> None:
        fired(pipeline, now)
        if pipeline == "slow":
            assert release.wait(SOON)

    with running(Clock({"slow": [EveryTenth()], "quick": [EveryTenth()]}, fire, poll_seconds=FAR)):
        seen: list[str] = []
        while seen.count("quick") < 4 or "slow" not in seen:
            seen.append(fired.next()[0])
        assert seen.count("slow") == 1
        release.set()
        while fired.next()[0] != "slow":
            pass


def test_a_paused_pipeline_is_not_fired_and_a_resumed_one_is_fired_for_what_it_missed() -> None:
    fired = Fired()
    clock = Clock({"flights": [EveryTenth()], "clicks": [EveryTenth()]}, fired, poll_seconds=FAR)
    clock.pause("flights")
    with running(clock):
        assert [fired.next()[0] for _ in range(3)] == ["clicks"] * 3
        assert clock.next_times()["flights"] is None
        clock.pause("clicks")
        clock.resume("flights")
        while fired.next()[0] != "flights":  # what clicks still had under way
            pass
        assert clock.next_times()["clicks"] is None


def test_the_clock_says_when_each_pipeline_fires_next() -> None:
    clock = Clock({"flights": [WEEKLY], "clicks": [NewLabels(5)], "frozen": []}, Fired())
    before = int(time.time() * 1000)
    times = clock.next_times()
    after = int(time.time() * 1000)
    assert times["flights"] in {WEEKLY.next_after(before), WEEKLY.next_after(after)}
    assert (times["clicks"], times["frozen"]) == (None, None)


def test_pausing_an_unknown_pipeline_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match="flights"):
        Clock({"flights": [WEEKLY]}, Fired()).pause("flight")
