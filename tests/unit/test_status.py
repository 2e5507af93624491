"""How a pipeline is doing now: runs, ticks, rates, counts."""

from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from headrace.infra.names import Names
from headrace.infra.observe import Metrics
from headrace.infra.services.versions.book import Book, RunFacts
from headrace.infra.services.watch.recent import within
from headrace.infra.services.watch.scrape import read
from headrace.infra.services.watch.status import Watcher, _runs, _schedule
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.facts import Guarded
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.scheduler.triggers import Every

HOUR = 3_600_000
NOW = 500_000 * HOUR + HOUR // 2
NAMES = Names(
    "",
    Pipeline(
        name="delay",
        events=Topic("flights", id="id", time="at"),
        features=[Number("distance")],
        label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
        retrain=[Every("1h")],
    ),
)


def book(*runs):
    found = Book(Settings(), NAMES)
    found._runs = {one.run: one for one in runs}
    return found


def run(name, state, hours_ago=None, **said):
    tick = "" if hours_ago is None else iso(500_000 * HOUR - hours_ago * HOUR)
    finished = "" if state in ("requested", "started") else iso(NOW)
    return RunFacts(run=name, state=state, tick=tick, finished_at=finished, **said)


def overdue(*runs):
    return _schedule(NAMES, _runs(book(*runs))[2], NOW)[1]


def test_a_tick_whose_training_goes_on_is_not_late_however_long_it_takes():
    assert overdue(run("a", "promoted", hours_ago=1), run("b", "started", hours_ago=0)) == 0
    assert overdue(run("a", "promoted", hours_ago=1)) == 25 * 60  # the grace is five minutes


def test_a_training_on_demand_hides_no_tick_that_nobody_ran():
    assert overdue(run("a", "promoted", hours_ago=1), run("b", "promoted")) == 25 * 60
    assert (
        overdue(run("a", "promoted", hours_ago=1), run("b", "requested"), run("c", "not_due", hours_ago=0)) == 25 * 60
    )


def test_what_goes_on_and_what_ended_are_told_apart():
    first, second, third = run("a", "failed", hours_ago=1), run("b", "promoted"), run("c", "started", hours_ago=0)
    assert _runs(book(first, second, third)) == (third, second, third)
    assert _runs(book()) == (None, None, None)


def test_a_rate_is_over_the_last_seconds_and_over_more_where_looks_are_farther_apart():
    looks = [SimpleNamespace(at=at) for at in (0.0, 10.0, 20.0)]
    assert within(looks, 22.0, 12.0).at == 10.0
    assert within(looks, 40.0, 12.0).at == 20.0


@pytest.mark.parametrize(("action", "counted"), [("rolled_back", 1), ("promoted", None), ("dropped", None)])
def test_only_what_the_guard_took_back_is_counted(action, counted):
    metrics = Metrics()
    metrics(Guarded(pipeline="delay", action=action, version=2, other=1, reason="", rows=1, scored=1))
    found = read(generate_latest(metrics.registry).decode(), 0.0)
    assert found.counts.get(("delay", "guarded")) == counted


def test_predictions_are_counted_by_what_workers_committed_partition_by_partition(tmp_path):
    watcher = Watcher(Settings(home=tmp_path), [NAMES], None)
    for at, answered in ((0.0, {0: 100}), (4.0, {0: 180, 1: 5_000})):
        watcher._looks.append(SimpleNamespace(at=at, answered={"delay": answered}))
    assert watcher._answered("delay") == 20.0  # where the other partition began, nobody knows
    watcher._looks.append(SimpleNamespace(at=8.0, answered={"delay": {}}))
    assert watcher._answered("delay") is None
