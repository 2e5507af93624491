"""Triggers made of triggers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.errors import DeclarationError
from headrace.models.protocols import Numbers, Scheduled, Trigger
from headrace.scheduler.combined import AllOf, AnyOf, AtLeast, only_scheduled
from headrace.scheduler.next_ticks import next_of, slice_ends
from headrace.scheduler.triggers import Always, Cron, Every, Never, NewLabels, due_of

HOUR = 3_600_000
MONDAY = 1_373_241_600_000  # 2013-07-08T00:00Z
WEEKLY = Cron("0 3 * * mon", timezone="UTC")
AT_3 = WEEKLY.next_after(MONDAY)


def numbers(*, last=None, labels=0, started=AT_3 - 24 * HOUR):
    return Numbers(last_tick=last, started=started, new_labels=labels)


def test_a_cron_line_waits_for_its_labels_and_keeps_its_tick():
    both = AllOf(WEEKLY, NewLabels(1_000))
    assert both.due(numbers(labels=5_000), AT_3 - 1) is None
    assert both.due(numbers(labels=999), AT_3) is None
    late = both.due(numbers(labels=1_000), AT_3 + 50 * HOUR)
    assert late.tick == AT_3
    assert late.text == 'cron "0 3 * * mon" UTC and 1000 new labels, 1000 asked for'
    assert both.due(numbers(labels=9_000, last=AT_3), AT_3 + 51 * HOUR) is None


def test_one_of_several_is_enough_and_the_schedules_tick_wins():
    either = AnyOf(WEEKLY, NewLabels(10))
    assert either.due(numbers(labels=10), AT_3 - 5).tick == AT_3 - 5
    assert either.due(numbers(labels=10), AT_3 + 5).tick == AT_3


def test_no_run_sooner_after_another_than_the_interval():
    often = AnyOf(NewLabels(10), min_interval="6h")
    assert often.due(numbers(labels=99, last=AT_3), AT_3 + 6 * HOUR - 1) is None
    assert often.due(numbers(labels=99, last=AT_3), AT_3 + 6 * HOUR) is not None
    assert often.due(numbers(labels=99), AT_3) is not None  # the first one


@given(st.integers(1, 4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_at_least_counts(count, due):
    trigger = AtLeast(count, *[Always() if one else Never() for one in due])
    assert (trigger.due(numbers(), AT_3) is not None) == (sum(due) >= count)


def test_they_nest_and_are_triggers_with_times_where_a_part_has_them():
    nested = AllOf(AnyOf(WEEKLY, Every("1d")), AtLeast(1, NewLabels(5), Never()))
    assert isinstance(nested, Trigger)
    assert isinstance(nested, Scheduled)
    assert nested.next_after(AT_3 - 1) == AT_3
    assert nested.next_after(AT_3) == AT_3 + 21 * HOUR  # midnight
    assert nested.due(numbers(labels=5), AT_3).tick == AT_3
    assert AllOf(NewLabels(5)).next_after(AT_3) is None


def test_what_can_be_due_between_its_times_is_looked_at_all_the_time():
    assert only_scheduled([WEEKLY, AllOf(WEEKLY, Every("1h"))])
    assert not only_scheduled([AllOf(WEEKLY, NewLabels(5))])
    assert not only_scheduled([AnyOf(WEEKLY, min_interval="1h")])  # due when the interval is over


def test_a_replay_stops_at_the_times_of_a_part():
    ends = list(slice_ends([AllOf(WEEKLY, NewLabels(5))], AT_3 - HOUR, AT_3 + HOUR, 24 * HOUR))
    assert (AT_3, True) in ends
    assert next_of([AllOf(WEEKLY, NewLabels(5))], AT_3 - 1) == AT_3


def test_the_same_tick_wins_whoever_decides_and_whenever():
    triggers = [NewLabels(1), AllOf(WEEKLY, NewLabels(1))]
    assert {due_of(triggers, numbers(labels=3), AT_3 + late).tick for late in (1, HOUR, 50 * HOUR)} == {AT_3}


def test_they_read_as_they_are_written():
    assert repr(AllOf(NewLabels(count=5), min_interval="1h")) == "AllOf(NewLabels(count=5), min_interval='1h')"
    assert repr(AtLeast(1, Never())) == "AtLeast(1, Never())"


@pytest.mark.parametrize(
    "wrong",
    [
        AllOf,
        lambda: AnyOf("0 3 * * mon"),
        lambda: AtLeast(0, Never()),
        lambda: AtLeast(2, Never()),
        lambda: AtLeast(True, Never()),
        lambda: AtLeast(Never(), Never()),
        lambda: AllOf(Never(), min_interval="soon"),
    ],
)
def test_a_wrong_combination_fails_when_it_is_made(wrong):
    with pytest.raises(DeclarationError):
        wrong()
