"""numbers in, ticks out; and which policy is taken."""

from types import SimpleNamespace

import pytest

from headrace.infra.services.compare.plan import Options, plan
from headrace.infra.settings import Settings
from headrace.models.bootstrap import Estimate
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.features import Number, Topic
from headrace.models.labels import Multiclass
from headrace.models.pipeline import Pipeline
from headrace.scheduler.combined import AllOf, AnyOf
from headrace.scheduler.decide import Live
from headrace.scheduler.plan import Outcome, cheapest, known_before, ticks
from headrace.scheduler.policies import policy_of
from headrace.scheduler.triggers import Always, Cron, Degraded, Drift, Every, Never, NewLabels

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_372_939_200_000  # 2013-07-04T12:00Z, a Thursday


def labels_each_hour(since, at):
    """Ten an hour."""
    return Live(new_labels=10 * ((at - since) // HOUR))


def walked(*triggers, live=labels_each_hour, end=START + 28 * DAY, step=HOUR):
    return [tick.at for tick in ticks(triggers, live, start=START, end=end, step_ms=step)]


def test_a_cron_line_ticks_at_its_times_and_at_no_other():
    found = walked(Cron("0 3 * * mon", timezone="America/New_York"))
    assert [iso(at) for at in found] == [f"2013-07-{day:02}T07:00:00Z" for day in (8, 15, 22, 29)]


def test_never_has_no_tick_and_always_has_one_at_each_look():
    assert walked(Never()) == []
    assert walked(Always(), end=START + 5 * HOUR) == [START + n * HOUR for n in (1, 2, 3, 4)]


def test_labels_are_counted_since_the_tick_before():
    assert walked(NewLabels(500)) == [START + n * 50 * HOUR for n in range(1, 14)]
    assert walked(NewLabels(500), step=DAY) == [START + 12 * HOUR + n * DAY for n in range(2, 28, 3)]


def test_each_look_is_at_the_numbers_since_the_tick_before():
    seen = []

    def live(since, at):
        seen.append((since - START, at - START))
        return Live(drift_rows=10, drift={"wind": (0.5, 0.1)} if at == START + 3 * HOUR else {})

    assert walked(Drift(rows=10), live=live, end=START + 6 * HOUR) == [START + 3 * HOUR]
    assert seen == [(0, HOUR), (0, 2 * HOUR), (0, 3 * HOUR), (3 * HOUR, 4 * HOUR), (3 * HOUR, 5 * HOUR)]


def test_of_several_triggers_each_makes_its_ticks():
    hours = [100, 156, 256, 324, 424, 492, 592, 660]  # weeks begin on Thursday at midnight
    for triggers in ([Every("7d"), NewLabels(1_000)], [AnyOf(Every("7d"), NewLabels(1_000))]):
        assert walked(*triggers) == [START + hour * HOUR for hour in hours]
    assert walked(AnyOf(Always(), min_interval="10d"), end=START + 25 * DAY)[1:] == [
        START + HOUR + 10 * DAY,
        START + HOUR + 20 * DAY,
    ]


def test_what_depends_on_time_and_labels_alone_is_known_before():
    assert known_before([Cron("@daily", timezone="UTC"), AllOf(Every("1d"), NewLabels(3))])
    assert not known_before([Every("1d"), AnyOf(NewLabels(3), Drift())])

    class Own:
        def due(self, _numbers, _now):
            return None

    assert not known_before([Own()])


def outcome(policy, seconds, behind, high):
    return Outcome(policy=policy, training_seconds=seconds, behind=Estimate(value=behind, low=None, high=high))


def test_the_cheapest_that_is_surely_within_the_tolerance_is_taken():
    found = [
        outcome("daily", 300.0, 0.0, 0.0),
        outcome("weekly", 50.0, 0.002, 0.004),
        outcome("monthly", 12.0, 0.004, 0.006),  # perhaps
        outcome("never", 1.0, 0.06, 0.07),
    ]
    assert cheapest(found, 0.005) == "weekly"
    assert cheapest(found, 0.001) == "daily"
    assert cheapest(found, 0.006) == "monthly"
    assert cheapest(found, 1.0) == "never"


def test_where_no_interval_can_be_said_the_value_counts_and_where_no_value_can_nothing_is_taken():
    assert cheapest([outcome("a", 2.0, 0.0, None), outcome("b", 1.0, 0.004, None)], 0.005) == "b"
    assert cheapest([outcome("a", 2.0, None, None)], 0.005) is None


@pytest.mark.parametrize(
    ("text", "triggers"),
    [
        ("never", [Never()]),
        ("always", [Always()]),
        ("drift", [Drift()]),
        ("drift:0.35", [Drift(psi=0.35)]),
        ("degraded", [Degraded()]),
        ("degraded:0.02", [Degraded(by=0.02)]),
        ("every:90m", [Every("90m")]),
        ("labels:20_000", [NewLabels(20_000)]),
        ("0 3 * * *", [Cron("0 3 * * *", timezone="Europe/Lisbon")]),
        (" @daily ", [Cron("@daily", timezone="Europe/Lisbon")]),
    ],
)
def test_a_policy_is_read_as_it_is_typed(text, triggers):
    assert policy_of(text, [], "Europe/Lisbon").triggers == triggers


def test_a_cron_line_without_a_timezone_takes_that_of_the_pipelines_own():
    declared = [NewLabels(5), AnyOf(Cron("0 3 * * mon", timezone="America/New_York"), Drift())]
    (cron,) = policy_of("0 3 * * *", declared).triggers
    assert cron.timezone == "America/New_York"
    assert policy_of("declared", declared).triggers is declared
    with pytest.raises(BadInput, match="in which timezone"):
        policy_of("0 3 * * *", [NewLabels(5)])


@pytest.mark.parametrize("text", ["daily", "drift:much", "labels:0", "every:day", "61 3 * * *", "", "labels"])
def test_what_is_no_policy_is_refused_with_what_is(text):
    with pytest.raises(BadInput, match=r"expected never|Expected never"):
        policy_of(text, [], "UTC")


def test_several_classes_are_refused_before_anything_is_read():
    arrivals = Topic("arrivals", id="id", time="at")
    pipeline = Pipeline(
        name="delay",
        events=Topic("flights", id="id", time="at"),
        features=[Number("distance")],
        label=Multiclass(arrivals, "carrier", classes=["AA", "UA"], within="1h", if_absent="drop"),
    )
    with pytest.raises(BadInput, match="plan: expected a Binary or Regression label"):
        plan(Settings(), SimpleNamespace(pipeline=pipeline), [], Options(), lambda *_: None)
