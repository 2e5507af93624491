"""How a pipeline is doing now: runs, ticks, rates, counts."""

from collections import deque
from time import time
from types import SimpleNamespace

from prometheus_client import generate_latest

from headrace.infra.names import Names
from headrace.infra.observe import Metrics
from headrace.infra.services.versions.book import Book, RunFacts
from headrace.infra.services.watch.recent import Recently, within
from headrace.infra.services.watch.scrape import read
from headrace.infra.services.watch.status import Watcher, _runs, _schedule, _taken_back
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.facts import Refused, Swapped
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.records import Promoted
from headrace.models.registry import Versions
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


def refused(metrics, aliases, hours_later=0.0):
    scrape = read(generate_latest(metrics.registry).decode(), 0.0)
    return Recently("delay", [deque([scrape])]).refused(aliases, time() + hours_later * 3600)


def test_a_version_that_was_refused_is_trouble_as_long_as_it_is_named_and_does_not_serve_and_for_a_day():
    metrics = Metrics()
    for version in (2, 3):
        metrics(Refused(pipeline="delay", reason="wrong_hash", detail="", version=version))
    metrics(Swapped(pipeline="delay", seq=2, version=1, seconds=0.1))
    assert refused(metrics, {"champion": 3, "frozen": 2}) == (2, 3)
    assert refused(metrics, {"champion": 4, "frozen": 2}) == (2,)  # a later promotion
    assert refused(metrics, {"champion": 1}) == ()  # a rollback
    assert refused(metrics, {"champion": 3}, hours_later=23.9) == (3,)
    assert refused(metrics, {"champion": 3}, hours_later=24.1) == ()
    metrics(Swapped(pipeline="delay", seq=4, version=3, seconds=0.1))  # its artifact is there after all
    assert refused(metrics, {"champion": 3}) == ()


def test_a_record_that_was_refused_is_said_for_a_day_whatever_serves():
    metrics = Metrics()
    metrics(Refused(pipeline="delay", reason="not_signed", detail=""))
    metrics(Refused(pipeline="other", reason="not_signed", detail=""))
    metrics(Swapped(pipeline="delay", seq=9, version=9, seconds=0.1))
    assert refused(metrics, {"champion": 9}, hours_later=23.9) == (0,)
    assert refused(metrics, {"champion": 9}, hours_later=24.1) == ()


def test_times_of_refusals_are_of_the_newest_versions_alone():
    metrics = Metrics()
    for version in range(1, 100):
        metrics(Refused(pipeline="delay", reason="wrong_hash", detail="", version=version))
    found = read(generate_latest(metrics.registry).decode(), 0.0).refused
    assert sorted(version for _, version in found) == list(range(80, 100))


def moved(known, version, hours_ago, by="guard", move="rollback"):
    at = iso(NOW - round(hours_ago * HOUR))
    known.promotions.append(Promoted(pipeline="delay", seq=1, at=at, by=by, why="", version=version, move=move))
    return known


def test_what_live_labels_took_back_is_trouble_until_the_champion_is_moved_again_and_for_a_day():
    assert _taken_back(Versions(), NOW) == 0
    known = moved(moved(Versions(), 4, 9, "leader", "promote"), 5, 8, "leader", "promote")
    assert _taken_back(known, NOW) == 0
    moved(known, 4, 7)
    assert _taken_back(known, NOW) == 5
    assert _taken_back(known, NOW + 16 * HOUR) == 5
    assert _taken_back(known, NOW + 18 * HOUR) == 0
    assert _taken_back(moved(known, 6, 1, "leader", "promote"), NOW) == 0
    assert _taken_back(moved(known, 5, 0.5, "tess@desk"), NOW) == 0  # by hand
    assert _taken_back(moved(Versions(), 0, 1), NOW) == 0  # before the oldest record that is known


def test_predictions_are_counted_by_what_workers_committed_partition_by_partition(tmp_path):
    watcher = Watcher(Settings(home=tmp_path), [NAMES], None)
    for at, answered in ((0.0, {0: 100}), (4.0, {0: 180, 1: 5_000})):
        watcher._looks.append(SimpleNamespace(at=at, answered={"delay": answered}))
    assert watcher._answered("delay") == 20.0  # where the other partition began, nobody knows
    watcher._looks.append(SimpleNamespace(at=8.0, answered={"delay": {}}))
    assert watcher._answered("delay") is None
