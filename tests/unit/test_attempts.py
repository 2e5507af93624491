"""One run's attempts, without a broker: how often what is tried, and what is written of it."""

import pytest
from kit import Facts

from headrace.models.errors import BrokerUnavailable, RunFailed
from headrace.models.facts import RunTriedAgain
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.limits import RunLimits
from headrace.models.pipeline import Pipeline
from headrace.models.records import Progressed, Requested, Started
from headrace.models.registry import Versions
from headrace.scheduler.attempts import Attempts, Failure
from headrace.scheduler.decide import Run

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    run=RunLimits(attempts=3, backoff="10s"),
)
RUN = Run(run="r", tick=None, trigger="on demand")
ASKED = Requested(run="r", pipeline="delay", at=0, by="test", on_demand=True)


class Training:
    """Each attempt fails; `left` says whether what it has come to is still there."""

    host = "here"

    def __init__(self, error, left=False):
        self.error, self.left, self.started, self.taken_up = error, left, 0, 0

    def fetch(self, ranges):
        return ranges

    def start(self, *_):
        self.started += 1
        return self

    def take_up(self, *_, failed):
        if not self.left or failed:
            return None
        self.taken_up += 1
        return self

    def wait(self, _seconds):
        raise self.error


class Records(list):
    def record(self, *records):
        self.extend(records)


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by the test."""
    now = [100.0]
    monkeypatch.setattr("headrace.scheduler.attempts.monotonic", lambda: now[0])
    return now


def until_it_fails(training, clock, earlier=None):
    records, facts = Records(), Facts()
    attempts = Attempts(PIPELINE, records, training, facts, lambda: ())
    failure = attempts.start(RUN, ASKED, Versions(), earlier)
    waits = []
    for _ in range(100):
        if isinstance(failure, Failure):
            assert attempts.run is None
            return failure.reason, records, [fact.seconds for fact in facts.of(RunTriedAgain)]
        if (said := [one for one in records if isinstance(one, Progressed) and one.stage == "retry"])[len(waits) :]:
            waits.append(said[-1].facts["seconds"])
            clock[0] += waits[-1] - 0.1
            assert attempts.look() is None  # not yet
            clock[0] += 0.2
        failure = attempts.look()
    raise AssertionError("it goes on for ever")


def test_a_process_that_is_killed_each_time_is_begun_three_times(clock):
    training = Training(RunFailed("killed", "by SIGKILL"))
    reason, records, waits = until_it_fails(training, clock)
    assert reason == "killed: by SIGKILL; attempt 3 of 3"
    assert (training.started, waits) == (3, [10, 20])
    assert [(one.attempt, one.after) for one in records if isinstance(one, Started)] == [
        (1, ""),
        (2, "killed: by SIGKILL"),
        (3, "killed: by SIGKILL"),
    ]


def test_a_result_that_cannot_be_handed_on_is_not_trained_again_and_given_up_after_as_many_tries(clock):
    training = Training(BrokerUnavailable("the store does not answer"), left=True)
    reason, records, waits = until_it_fails(training, clock)
    assert reason == "the store does not answer; attempt 3 of 3"
    assert (training.started, training.taken_up, waits) == (1, 2, [10, 20])
    assert len([one for one in records if isinstance(one, Started)]) == 1


def test_what_took_its_machine_down_each_time_is_not_begun_a_fourth_time(clock):
    training = Training(RunFailed("killed", "…"))
    last = Started(run="r", pipeline="delay", at="2026-01-01T00:00:00Z", tick="", trigger="", ranges=(), attempt=3)
    reason, records, _ = until_it_fails(training, clock, last)
    assert reason == "gone: its leader ended, and it with it; attempt 3 of 3"
    assert training.started == 0
    assert records == []


def test_a_bad_model_is_tried_once(clock):
    training = Training(RunFailed("parity", "0.1"))
    assert until_it_fails(training, clock)[0] == "parity: 0.1"
    assert training.started == 1
