"""The benchmark of latency, small: real runs and what their rows look like, and that events meet their own answers."""

import json
import time
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from kit import produce, read_all

from headrace.infra.bench import latency as bench
from headrace.infra.bench import pairs, swaps, sweep
from headrace.infra.bench.curve import drawn
from headrace.infra.bench.open_loop import OpenLoop
from headrace.infra.bench.pairs import Answers
from headrace.infra.bench.report import as_json
from headrace.infra.bench.session import Session
from headrace.infra.bench.throughput import Entries
from headrace.models.errors import HeadraceError

COUNT = 40


@pytest.fixture
def session(settings, monkeypatch):
    for module in (bench, swaps, sweep):
        monkeypatch.setattr(module, "warm", lambda *_: None)
    said = []
    yield Session(settings=settings, servers={}, say=said.append)
    print("\n".join(said))  # noqa: T201  shown where a test fails


@pytest.fixture
def peerless(tmp_path):
    """Nobody is installed there."""
    return Entries(tmp_path, 1_000, quick=True)


def rows_of(session, rows):
    return {row["name"]: row for row in json.loads(msgspec.json.encode(as_json(rows, session, seconds=1.0)))["rows"]}


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_steady_load_gives_a_row_per_comparison_and_says_why_one_is_missing(session, peerless):
    names = [comparison.name for comparison in bench.COMPARISONS]
    found = rows_of(session, bench.latency(session, peerless, rounds=1, names=names, seconds=1.0))
    assert list(found) == names
    for name in ("latency_p50_2000", "latency_p99_2000"):
        row = found[name]
        (ours,), (echo,) = row["detail"]["headrace"], row["detail"]["echo"]
        assert ours["unanswered"] == echo["unanswered"] == 0
        assert 0 < ours["p50_ms"] <= ours["p95_ms"] <= ours["p99_ms"] <= ours["worst_ms"]
        assert ours["generator_late_ms"].keys() == {"p50", "p99", "worst"}
        assert {"worker", "generator", "others"} <= ours["cores"].keys()
        assert len(row["runs"]) == 1
    ratio = found["latency_p50_2000"]
    assert ratio["measured"] == pytest.approx(
        ratio["detail"]["headrace"][0]["p50_ms"] / ratio["detail"]["echo"][0]["p50_ms"], rel=0.01
    )
    assert (found["eos_added_latency"]["unit"], len(found["eos_added_latency"]["runs"])) == ("ms", 1)
    skipped = found["latency_200_vs_faust"]
    assert (skipped["measured"], skipped["met"]) == (None, False)
    assert skipped["detail"]["skipped"].startswith("faust: ")


def test_swaps_under_load_give_delays_by_size_and_the_memory_along_the_way(session, peerless):
    found = rows_of(session, swaps.swaps(session, peerless, rounds=1, names=swaps.TARGETS, seconds=1.0, few=6, many=60))
    assert list(found) == list(swaps.TARGETS)
    detail = found["swap_p99"]["detail"]["round 1"]
    sizes = [int(size) for size in detail["publish_to_first_ms_by_bytes"]]
    assert sizes == pytest.approx([2_000, 330_000, 1_000_000], rel=0.15)
    assert len(detail["steady"]) == 2
    assert found["swap_publish_to_first_p95"]["measured"] >= found["swap_publish_to_first_p50"]["measured"] > 0
    memory = found["swap_memory"]
    assert memory["detail"]["swaps"] == 60
    assert memory["detail"]["bytes_published"] == 20 * sum(sizes)
    assert 0.5 < memory["measured"] < 2


def test_a_sweep_gives_a_curve_for_each_contender(session, peerless, monkeypatch):
    monkeypatch.setattr(sweep, "_FIRST_RATE", 100.0)
    monkeypatch.setattr(sweep, "_LAST_RATE", 100.0)
    (row,) = rows_of(session, [sweep.sweep(session, peerless, seconds=0.5)]).values()
    assert row["detail"]["skipped"].startswith("faust: ")
    curves = session.reports["latency_sweep"]
    assert curves.keys() == row["detail"]["highest_rates"].keys() == {"echo", "headrace", "headrace exactly once"}
    picture = drawn(curves, 50.0)
    assert picture.count("<polyline") == 2 * len(curves)
    assert all(name in picture for name in curves)


# ── pairs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_event_meets_its_own_answer_in_whatever_order_they_come(settings, topic):
    events, predictions = topic("events"), topic("predictions")
    pairs.stamped_by_broker(settings, predictions)
    now = time.time()
    at = [datetime.fromtimestamp(now - number / 100, UTC).isoformat() for number in range(COUNT)]  # 10 ms apart
    produce(settings, events, [{"value": msgspec.json.encode({"id": f"e{n:08}", "time": t})} for n, t in enumerate(at)])
    reordered = np.random.default_rng(1).permutation(COUNT).tolist()
    said = [{"id": f"e{n:08}", "prediction": 0.5, "version": 7, "source": ["events", 0, n]} for n in reordered]
    produce(settings, predictions, [{"value": msgspec.json.encode(one)} for one in said])

    created, messages = pairs.created(settings, events, 0), read_all(settings, predictions)
    answered = pairs.answers(messages, pairs.prediction)
    appended = {number: message.timestamp()[1] for number, message in zip(reordered, messages, strict=True)}
    assert created == pytest.approx([1e3 * now - 10 * number for number in range(COUNT)], abs=0.01)
    assert answered.numbers.tolist() == reordered
    assert set(answered.versions.tolist()) == {7}
    for number in range(COUNT):
        one = pairs.latencies(created, answered, 0, number, number + 1)
        known = appended[number] + 0.5 - 1e3 * now + 10 * number  # the middle of the append's millisecond
        assert one.percentiles["p50"] == pytest.approx(known, abs=0.01)


def test_an_echo_is_known_by_the_id_at_its_beginning(settings, topic):
    name = topic("echoes")
    produce(settings, name, [{"value": b'{"id":"e%08d","time":"2025-0000' % number} for number in (3, 1, 2)])
    assert pairs.answers(read_all(settings, name), pairs.echo).numbers.tolist() == [3, 1, 2]


def taken(numbers, at, created=(1_000.0,) * 4, begin=10):
    columns = np.array(numbers), np.zeros(len(numbers), np.int64), np.array(at, float)
    answered = Answers(numbers=columns[0], versions=columns[1], at=columns[2])
    return pairs.latencies(np.array(created), answered, 10, begin, 14)


def test_latencies_are_of_the_first_answer_and_only_of_the_events_asked_for():
    found = taken([13, 9, 12, 12, 11, 10], [1_004, 1_900, 1_003, 1_800, 1_002, 1_001])
    assert (found.unanswered, found.percentiles["p50"], found.percentiles["worst"]) == (0, 3, 4)
    assert taken([13, 12, 11, 10], [1_004, 1_003, 1_002, 1_700], begin=11).percentiles["worst"] == 4


def test_an_event_without_an_answer_took_for_ever():
    found = taken([10, 11, 13], [1_001, 1_002, 1_003])
    assert (found.unanswered, found.percentiles["worst"]) == (1, np.inf)


def test_a_broker_with_another_clock_is_refused():
    with pytest.raises(HeadraceError, match="before it was created"):
        taken([10, 11, 12, 13], [900, 1_001, 1_001, 1_001])


# ── the load ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_load_is_made_when_it_leaves_and_goes_on_where_the_topic_ends(settings, topic):
    name, begun = topic("events"), []
    before = time.time()
    first = OpenLoop(settings, name).send(first=0, rate=1_000, events=50, begun=lambda: begun.append(1))
    OpenLoop(settings, name).send(first=50, rate=1_000, events=50)
    after = time.time()
    messages = read_all(settings, name)
    events = [msgspec.json.decode(message.value()) for message in messages]
    assert [event["id"] for event in events] == [f"e{message.offset():08}" for message in messages]
    assert len(events) == 100
    times = [datetime.fromisoformat(event["time"]).timestamp() for event in events]
    assert times == sorted(times)
    assert before - 1e-3 < times[0] <= times[-1] < after
    assert (first.events, begun) == (50, [1])
    assert 0 <= first.late_ms["p50"] <= first.late_ms["worst"]


# ── the sweep ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def limited(limit, tried):
    def measure(rate):
        tried.append(rate)
        return {"rate": rate, "in_time": rate <= limit}

    return measure


@pytest.mark.parametrize("limit", [300.0, 1_000.0, 77_000.0])
def test_a_sweep_finds_the_highest_rate_to_a_tenth(limit):
    points = sweep.climbed(limited(limit, []))
    best = max(point["rate"] for point in points if point["in_time"])
    assert limit / 1.1 < best <= limit
    assert [point["rate"] for point in points] == sorted(point["rate"] for point in points)


def test_a_rate_is_lost_after_a_second_try_and_none_may_be_left():
    tried = []
    assert not any(point["in_time"] for point in sweep.climbed(limited(1.0, tried)))
    assert tried[:2] == [250.0, 250.0]
    disturbed = iter([False])
    points = sweep.climbed(lambda rate: {"rate": rate, "in_time": next(disturbed, rate <= 500)})
    assert max(point["rate"] for point in points if point["in_time"]) == 500
