"""Where the time went, from two scrapes with known numbers; and how a live process is found."""

import sys

import msgspec
import numpy as np
import psutil
import pytest
from prometheus_client import generate_latest

from headrace import Aggregate, Binary, Function, Number, Pipeline, Topic
from headrace.infra.local.detached import Process
from headrace.infra.observe import Metrics
from headrace.infra.processes.registered import living, registered
from headrace.infra.services.watch import flame
from headrace.infra.services.watch.live_process import chosen
from headrace.infra.services.watch.profile import profile
from headrace.infra.services.watch.scrape import read
from headrace.models.errors import BadInput, HeadraceError
from headrace.models.facts import Acknowledged, Predicted, SideRowsApplied
from headrace.streams.infer import score
from headrace.streams.memory_store import MemoryFeatureStore
from headrace.streams.model import Baseline, live_model

CHUNK = {"wait": 0.3, "decode": 0.02, "features": 0.2, "infer": 0.05, "encode": 0.03, "feature_store": 0.04}


def predicted(rows=1000, **seconds):
    return Predicted(pipeline="orders", version=1, rows=rows, seconds=CHUNK | seconds, newest_event=1)


def acknowledged(agent="infer"):
    seconds = {"produce": 0.02, "acknowledge": 0.1, "commit": 0.002}
    return Acknowledged(agent=agent, topic="orders", rows=1000, latency_seconds=0.5, seconds=seconds)


class Watched:
    """Metrics, as they are scraped: `at(seconds)`."""

    def __init__(self, *facts):
        self.metrics = Metrics()
        self.saw(*facts)

    def saw(self, *facts):
        for fact in facts:
            self.metrics(fact)
        return self

    def at(self, seconds):
        return read(generate_latest(self.metrics.registry).decode(), seconds)


# ── two scrapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


BEFORE = (predicted(encode=9.0), acknowledged())


def between(*facts, seconds=2.0, already=BEFORE):
    process = Watched(*already)
    before = process.at(100.0)
    return profile(before, process.saw(*facts).at(100.0 + seconds))


def by_name(found):
    return {(one.agent, one.stage): one for one in found.stages}


def test_only_what_came_between_the_two_counts():
    found = between(predicted(), predicted(encode=0.05), acknowledged(), seconds=4.0)
    assert (found.events, found.events_per_second, found.seconds) == (2000, 500.0, 4.0)
    encode = by_name(found)["infer", "encode"]
    assert (encode.calls, encode.seconds) == (2, pytest.approx(0.08))
    assert encode.share == pytest.approx(0.02)
    assert encode.mean == pytest.approx(0.04)
    assert encode.us_per_event == pytest.approx(40.0)


def test_the_rows_follow_the_flow_and_parts_stand_behind_their_whole_the_largest_first():
    found = between(predicted(**{"function:quick": 0.01, "function:slow": 0.1}), acknowledged())
    assert [one.stage for one in found.stages] == [
        *["wait", "decode", "features", "function:slow", "feature_store", "function:quick", "infer", "encode"],
        *["produce", "acknowledge", "commit"],
    ]
    assert {one.stage for one in found.stages if one.within == "features"} == {
        *["function:slow", "feature_store", "function:quick"]
    }


def test_a_stage_with_parts_is_largest_only_by_what_is_not_in_them():
    assert between(predicted()).largest.stage == "features"
    assert between(predicted(**{"function:slow": 0.15})).largest.stage == "function:slow"


def test_waiting_for_the_chunk_before_is_no_work():
    found = between(predicted(wait=5.0))
    assert by_name(found)["infer", "wait"].share is None
    assert found.largest.stage != "wait"
    assert found.busy == {"infer": pytest.approx(0.15)}  # decode, features, infer, encode: parts do not count again


def test_agents_and_their_threads_are_told_apart():
    found = between(predicted(), acknowledged(), acknowledged("features"), SideRowsApplied(topic="weather", rows=10))
    assert by_name(found)["features", "commit"].thread == "source-features"
    assert by_name(found)["infer", "commit"].calls == by_name(found)["features", "commit"].calls == 1
    assert by_name(found)["features", "commit"].us_per_event == pytest.approx(200.0)
    assert (found.events, found.side_rows) == (1000, 10)
    assert set(found.busy) == {"infer", "source-infer", "source-features"}


def test_nothing_between_the_two_is_no_stage_and_nothing_largest():
    found = between()
    assert (found.events, found.stages, found.largest, found.busy) == (0, [], None, {})


def test_a_process_that_began_anew_is_not_subtracted():
    with pytest.raises(HeadraceError, match="started again"):
        profile(Watched(predicted(), predicted()).at(1.0), Watched(predicted()).at(2.0))


# ── percentiles ───────────────────────────────────────────────────────────────────────────────────────────────────────


def infer_times(*seconds):
    found = between(*[predicted(infer=one) for one in seconds], already=())
    return by_name(found)["infer", "infer"]


def test_percentiles_lie_where_prometheus_puts_them():
    found = infer_times(*[0.0008] * 50, *[0.003] * 49, 0.2)  # buckets (0.65, 1], (2.5, 4] and (150, 250] ms
    assert found.p50 == pytest.approx(0.001)
    assert found.p99 == pytest.approx(0.004)
    assert infer_times(*[0.0008] * 4).p50 == pytest.approx(0.00065 + 0.00035 / 2)


@pytest.mark.parametrize("seconds", [12e-6, 100e-6, 3e-3, 0.4, 7.0, 60.0])
def test_from_microseconds_to_a_minute_a_percentile_is_off_by_no_more_than_a_bucket(seconds):
    found = infer_times(*[seconds] * 10)
    assert found.mean == pytest.approx(seconds)
    assert seconds / 1.7 <= found.p50 <= seconds * 1.7
    assert seconds / 1.7 <= found.p99 <= seconds * 1.7


def test_below_and_beyond_the_buckets_the_nearest_bound_is_said():
    assert infer_times(1e-6).p99 == pytest.approx(1e-5, rel=0.02)
    assert infer_times(500.0).p99 == 65.0


# ── what is scraped ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["<html>", "python_info 1\n", ""])
def test_what_is_not_ours_is_refused_in_a_sentence(text):
    with pytest.raises(HeadraceError, match="expected a worker's metrics"):
        read(text, 0.0)


# ── where the parts come from ─────────────────────────────────────────────────────────────────────────────────────────


def doubled(weight):
    return weight * 2


def picky(weight):
    if (weight > 1).any():
        raise ValueError(weight)
    return weight


def events(*weights):
    return [b'{"id":"%d","time":"2025-01-01T00:00:00Z","weight":%d}' % (n, w) for n, w in enumerate(weights)]


def test_every_function_and_the_feature_store_are_timed_under_their_own_names():
    pipeline = Pipeline(
        name="orders",
        events=Topic("orders", id="id", time="time"),
        features=[
            Number("weight"),
            Aggregate(Topic("scans", time="time"), "size", "mean", over="1h", by="weight"),
            Function(doubled, inputs=["weight"]),
            Function(picky, inputs=["weight"], name="named"),
        ],
        label=Binary(Topic("labels", id="id", time="time"), "late", within="1h", if_absent="drop"),
    )
    scored = score(live_model(pipeline, Baseline(pipeline)), MemoryFeatureStore(), events(1, 2, 0), 1_800_000_000_000)
    assert len(scored.scores) == 2  # the second is parked, and the others are computed again
    stages = {"decode", "features", "infer", "feature_store", "function:doubled", "function:named"}
    assert scored.seconds.keys() == stages
    parts = [scored.seconds[stage] for stage in stages - {"decode", "features", "infer"}]
    assert sum(parts) < scored.seconds["features"]
    np.testing.assert_array_equal(scored.columns["doubled"], [2.0, 0.0])


# ── which process ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_process_is_found_while_it_runs(tmp_path):
    with registered(tmp_path, role="worker", pipelines=["orders"], metrics_port=9400):
        (found,) = living(tmp_path)
        assert (found.role, found.pipelines, found.metrics_port) == ("worker", ("orders",), 9400)
        assert chosen(tmp_path, None, None)[0].pid == found.process.pid == psutil.Process().pid
    assert living(tmp_path) == []
    assert list((tmp_path / "processes").iterdir()) == []


def test_a_demos_process_is_found_from_the_home_that_the_demo_is_in(tmp_path):
    with registered(tmp_path / "demo-1", role="worker", pipelines=["flights"], metrics_port=9400):
        assert [one.pipelines for one in living(tmp_path)] == [("flights",)]


def test_one_that_was_killed_is_known_by_its_start_and_its_file_goes_with_the_next(tmp_path):
    folder = tmp_path / "processes"
    with registered(tmp_path, role="worker", pipelines=["orders"], metrics_port=9400):
        (ours,) = living(tmp_path)
    reused = Process(pid=ours.process.pid, created=ours.process.created - 60)
    killed, elsewhere = folder / "killed.json", folder / "elsewhere.json"
    told = msgspec.to_builtins(ours) | {"process": msgspec.to_builtins(reused)}
    killed.write_bytes(msgspec.json.encode(told))
    elsewhere.write_bytes(msgspec.json.encode(told | {"host": "another"}))
    (folder / "rubbish.json").write_text("rubbish")
    assert living(tmp_path) == []
    with registered(tmp_path, role="worker", pipelines=["orders"], metrics_port=9400):
        assert len(living(tmp_path)) == 1
        assert not killed.exists()
        assert elsewhere.exists()


def test_without_a_worker_a_sentence_says_how_one_is_named(tmp_path):
    with registered(tmp_path, role="scheduler", pipelines=["orders"], metrics_port=9400):
        with pytest.raises(HeadraceError, match="--pid, or --port"):
            chosen(tmp_path, None, None)
        assert chosen(tmp_path, psutil.Process().pid, None)[0].role == "scheduler"
    with pytest.raises(BadInput, match="no metrics of headrace"):
        chosen(tmp_path, psutil.Process().pid, None)
    with pytest.raises(BadInput, match="there is none"):
        chosen(tmp_path, 2**22 + 1, None)


# ── without a flame graph ─────────────────────────────────────────────────────────────────────────────────────────────


def recorded(place):
    with flame.recording(1, 0.1, place) as recording:
        recording.done()


def test_without_py_spy_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(flame, "_py_spy", lambda: None)
    with pytest.raises(HeadraceError, match=r"pip install 'headrace\[profile\]'"):
        recorded(tmp_path / "profile.svg")


@pytest.mark.parametrize(
    ("said", "expected"),
    [("Error: Permission Denied: Try again with sudo", "sysctl kernel.yama.ptrace_scope=0"), ("Error: odd", "odd")],
)
def test_where_py_spy_may_not_look_the_sentence_says_what_to_allow(tmp_path, monkeypatch, said, expected):
    refuses = tmp_path / "py-spy"
    refuses.write_text(f"#!{sys.executable}\nraise SystemExit({said!r})\n")
    refuses.chmod(0o755)
    monkeypatch.setattr(flame, "_py_spy", lambda: str(refuses))
    with pytest.raises(HeadraceError, match=expected):
        recorded(tmp_path / "new" / "profile.svg")
