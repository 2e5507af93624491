"""What a run may take, whose fault a failure is, and whether a run ends before its next tick."""

import pytest

from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.training import run_folder
from headrace.models.errors import BadInput, BrokerUnavailable, DeclarationError, RegistryRefused, RunFailed
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.limits import RunLimits
from headrace.models.pipeline import Pipeline
from headrace.scheduler.overrun import schedule_of, sentence
from headrace.scheduler.retries import TRIED_AGAIN, is_tried_again, reason_of, seconds_before
from headrace.scheduler.triggers import Every, NewLabels
from headrace.trainer.eta import Eta

HOUR = 3_600_000
MIDNIGHT = 1_372_896_000_000  # 2013-07-04T00:00Z


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("time", wrong) for wrong in ("", "1 hour", "0s", 3600, None)),
        *(("backoff", wrong) for wrong in ("soon", 10)),
        *(("memory_mb", wrong) for wrong in (0, 63, 1.5, True, "8GB", 1 << 30)),
        *(("cpus", wrong) for wrong in (0, -1, 0.5, 2048)),
        *(("nice", wrong) for wrong in (-1, 20, "low")),
        *(("attempts", wrong) for wrong in (0, 101, None)),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(name, wrong):
    with pytest.raises(DeclarationError, match=f"RunLimits.{name}"):
        RunLimits(**{name: wrong})


@pytest.mark.parametrize("reason", sorted(TRIED_AGAIN))
def test_what_the_machine_is_to_blame_for_is_tried_again(reason):
    assert is_tried_again(RunFailed(reason, "…"))


@pytest.mark.parametrize(
    "error",
    [
        BrokerUnavailable("no answer"),
        OSError(28, "No space left on device"),
        ConnectionResetError("by peer"),
        RegistryRefused("unavailable", "the store does not answer"),
    ],
)
def test_a_broker_a_disk_or_a_store_that_is_away_is_tried_again(error):
    assert is_tried_again(error)


@pytest.mark.parametrize(
    "error",
    [
        *(
            RunFailed(reason, "…")
            for reason in (
                *("no_rows", "too_few_rows", "one_class", "no_learner", "pipeline_unreadable", "declaration"),
                *("learner_raised", "wrong_shape", "loss_not_finite", "raised", "export", "parity", "operator"),
                *("timeout", "memory", "crashed", "cancelled", "too_many_ids", "a reason of tomorrow"),
            )
        ),
        RegistryRefused("bad_hash", "the champion's graph"),
        BadInput("an artifact that is too large"),
    ],
    ids=reason_of,
)
def test_what_would_fail_again_is_not(error):
    assert not is_tried_again(error)


def test_it_waits_twice_as_long_each_time_and_never_longer_than_ten_minutes():
    limits = RunLimits(backoff="10s")
    assert [seconds_before(attempt, limits) for attempt in range(2, 10)] == [10, 20, 40, 80, 160, 320, 600, 600]


def test_a_run_that_takes_longer_than_to_the_next_tick_is_seen_when_it_begins():
    began = MIDNIGHT + 10 * 60_000
    typical = schedule_of([Every("1h")], at=MIDNIGHT, began=began, durations=[60, 4_000, 3_100])
    assert typical.next_tick == MIDNIGHT + HOUR
    assert typical.overrun(began) == MIDNIGHT + HOUR  # 00:10 and the median, 3,100 s
    quick = schedule_of([Every("1h")], at=MIDNIGHT, began=began, durations=[60, 70])
    assert quick.overrun(began) is None


def test_its_own_estimate_counts_more_than_the_runs_before_and_the_clock_most():
    schedule = schedule_of([Every("1h")], at=MIDNIGHT, began=MIDNIGHT, durations=[60])
    assert schedule.overrun(MIDNIGHT, eta_seconds=3_601) == MIDNIGHT + HOUR
    slow = schedule_of([Every("1h")], at=MIDNIGHT, began=MIDNIGHT, durations=[7_200])
    assert slow.overrun(MIDNIGHT, eta_seconds=10) is None
    unknown = schedule_of([Every("1h")], at=MIDNIGHT, began=MIDNIGHT, durations=[])
    assert unknown.overrun(MIDNIGHT + HOUR) is None
    assert unknown.overrun(MIDNIGHT + HOUR + 1) == MIDNIGHT + HOUR
    assert "has not ended" in sentence(MIDNIGHT + HOUR, None)
    assert "2013-07-04T01:00:00Z" in sentence(MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR)


def test_a_replay_and_a_pipeline_without_a_schedule_have_no_next_tick():
    replayed = schedule_of([Every("1h")], at=MIDNIGHT, began=MIDNIGHT + 90 * 24 * HOUR, durations=[9_999])
    assert replayed.overrun(MIDNIGHT + 91 * 24 * HOUR) is None
    counted = schedule_of([NewLabels(10)], at=MIDNIGHT, began=MIDNIGHT, durations=[9_999])
    assert counted.overrun(MIDNIGHT + HOUR) is None


def test_an_estimate_is_as_fast_as_so_far():
    now = iter([100.0, 110.0, 120.0, 130.0])
    eta = Eta(lambda: next(now))
    assert eta.added({"epoch": 1, "epochs": 5, "loss": 0.5})["eta_seconds"] == 40
    assert eta.added({"step": 20, "steps": 40})["eta_seconds"] == 20
    assert eta.added({"epochs": 5}) == {"epochs": 5}
    assert eta.added({"rows": 10}) == {"rows": 10}


@pytest.mark.parametrize("run", ["../../etc", "/etc/passwd", "..", ".hidden", "a/b", "", "x" * 300, "a\x00b"])
def test_a_run_whose_id_is_no_plain_name_has_its_folder_among_the_others(run, tmp_path):
    topic = Topic("flights", id="id", time="at")
    label = Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop")
    names = Names("", Pipeline(name="delay", events=topic, features=[Number("distance")], label=label))
    folder = run_folder(Settings(home=tmp_path), names, run)
    assert folder.parent == run_folder(Settings(home=tmp_path), names, "plain").parent
    assert len(folder.name) == 64
