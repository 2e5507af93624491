"""What somebody should look at, worst first: by numbers alone."""

import pytest

from headrace.infra.services.watch.alerts import Condition, alerts


def of(**known):
    return [(alert.level, alert.text) for alert in alerts(Condition(pipeline="delay", **known))]


WELL = {"lag": 0, "partitions": 3, "workers": 2, "schedulers": 1, "retrains": True, "events_per_second": 10.0}


def test_a_pipeline_that_is_well_has_no_alert():
    assert of(**WELL, predictions_per_second=10.0, newest_run="promoted") == []


def test_what_is_not_known_is_no_alert():
    assert of() == []


def test_without_a_worker_it_is_bad_as_soon_as_events_wait():
    assert of(lag=0, workers=0) == [("warn", "No worker runs.")]
    assert of(lag=None, workers=0) == [("warn", "No worker runs.")]
    assert of(lag=1_200, workers=0) == [("bad", "No worker runs, and 1,200 events wait.")]


def test_a_transactions_mark_at_each_partitions_end_is_nothing_that_waits():
    assert of(lag=3, partitions=3, workers=0) == [("warn", "No worker runs.")]
    assert of(lag=3, partitions=3, workers=1, stood_seconds=600.0) == []


def test_a_position_that_stands_while_events_wait_is_bad():
    assert of(lag=500, workers=1, stood_seconds=10.0, predictions_per_second=0.0) == []
    ((level, text),) = of(lag=500, workers=1, stood_seconds=45.0)
    assert (level, text) == ("bad", "500 events wait, and none was predicted for 45 s.")


def test_a_lag_that_grows_asks_for_workers_and_one_that_is_worked_off_does_not():
    growing = of(lag=5_000, workers=1, events_per_second=300.0, predictions_per_second=100.0)
    assert growing == [("warn", "5,000 events wait, and more come than are predicted.")]
    assert of(lag=5_000, workers=1, events_per_second=100.0, predictions_per_second=300.0) == []
    assert of(lag=500, workers=1, events_per_second=300.0, predictions_per_second=100.0) == []  # five seconds' worth


@pytest.mark.parametrize(("share", "level"), [(0.005, None), (0.05, "warn"), (0.5, "bad")])
def test_parked_records_count_by_their_share(share, level):
    assert [found for found, _ in of(dead_share=share)] == ([level] if level else [])


def test_a_scheduler_is_missed_only_where_something_is_retrained():
    assert of(schedulers=0, retrains=False) == []
    assert of(schedulers=0, retrains=True) == [("warn", "No scheduler runs: nothing is retrained.")]


def test_a_tick_that_nobody_ran_is_said_unless_the_schedule_is_paused():
    assert of(schedulers=1, overdue_seconds=1_800.0) == [("warn", "A scheduled training is 30 min late.")]
    assert of(schedulers=1, overdue_seconds=1_800.0, paused_by="anna") == [("info", "The schedule is paused, by anna.")]


def test_a_failed_training_is_bad_and_a_rejected_candidate_is_news():
    assert of(newest_run="failed", newest_run_reason="out of memory") == [
        ("bad", "The newest training failed: out of memory")
    ]
    assert of(newest_run="rejected", newest_run_reason="worse") == [
        ("info", "The newest candidate was rejected: worse")
    ]


def test_what_was_refused_and_what_was_taken_back_are_named():
    assert of(refused=(4,)) == [
        ("bad", "Version 4 was refused by a process on this machine, which goes on with what it had.")
    ]
    both, record = of(refused=(0, 3, 4))
    assert both[1].startswith("Versions 3, 4 were refused")
    assert record == ("bad", "A registry record was refused by a process on this machine in the last 24 hours.")
    assert of(guarded=4) == [("bad", "Live labels took version 4 back, and none was promoted since.")]


def test_drift_names_the_farthest_columns():
    assert of(drift=0.05, drifted=("a",)) == []
    ((level, text),) = of(drift=0.15, drifted=("a", "b", "c", "d", "e"))
    assert level == "info"
    assert "a, b, c and 2 more (PSI up to 0.15)" in text
    assert of(drift=0.4, drifted=("a",))[0][0] == "warn"


def test_the_worst_comes_first():
    found = of(pinned=True, schedulers=0, retrains=True, newest_run="failed", newest_run_reason="x", guarded=1)
    assert [level for level, _ in found] == ["bad", "bad", "warn", "info"]


def test_a_broker_that_is_away_is_bad_and_says_so_first():
    (first, *_) = alerts(Condition(pipeline="delay", failure="no answer", workers=0, lag=100))
    assert (first.level, first.text) == ("bad", "no answer")
    assert "may be old" in first.remedy
