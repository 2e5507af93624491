"""The benchmark, small: a real run, what its rows look like, and what its verifier refuses."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kit import produce

from headrace.infra.bench import workload
from headrace.infra.bench.plot import plotted
from headrace.infra.bench.report import Row, as_json
from headrace.infra.bench.run import GROUPS
from headrace.infra.bench.session import Session
from headrace.infra.bench.throughput import Entries, throughput
from headrace.infra.bench.verify import echoed, verified
from headrace.infra.bench.workload import Numbers

EVENTS = 20_000
FEW = 200
GRAPH = workload.model()


def test_a_run_measures_headrace_and_the_echo_and_gives_a_row_per_target(settings):
    said = []
    session = Session(settings=settings, servers={}, say=said.append)
    rows = throughput(session, Entries(settings.home, EVENTS, quick=True), rounds=1, only=["echo", "faust"])
    found = json.loads(json.dumps(as_json(rows, session, seconds=1.0)))
    row, absent = found["rows"]
    assert (absent["measured"], absent["met"]) == (None, False)
    assert "not installed" in absent["detail"]["skipped"]
    assert row.keys() >= {"name", "measured", "target", "met", "runs"}
    assert (row["name"], row["target"], len(row["runs"])) == ("echo", 0.5, 1), said
    assert row["measured"] == row["runs"][0] > 0
    assert row["met"] == (row["measured"] >= 0.5)
    for contender in ("headrace", "echo"):
        figures = row["detail"][contender]
        assert figures["events"] == EVENTS
        assert figures["events_per_second"] > 0
        assert figures["cpu_seconds_per_million"] > 0
        assert figures["peak_rss_mb"] > 10
    assert row["detail"]["headrace"]["worst_score_difference"] < 1e-5
    assert round(row["detail"]["headrace"]["record_bytes"]) == row["detail"]["echo"]["record_bytes"]
    assert found["harness"]["load_bytes_per_event"] == pytest.approx(156, abs=1)
    assert "echo" in plotted(rows)


def test_the_events_are_the_same_however_many_there_are():
    few, more = list(workload.events(FEW)), list(workload.events(FEW + 1))
    assert few == more[:FEW]
    row = msgspec.json.decode(few[7][1])
    numbers = np.array([[row[f"f{column}"] for column in range(8)]], np.float32)
    (score,) = Numbers(GRAPH).scores(np.array([7]))
    import onnxruntime

    assert onnxruntime.InferenceSession(GRAPH).run(None, {"numbers": numbers})[0][0] == pytest.approx(score, abs=1e-6)
    assert row["id"] == Numbers(GRAPH).id(7)


def right_answers(partitions=2):
    """One record per event, each in the partition of its event."""
    scores = Numbers(GRAPH).scores(np.arange(FEW))
    return [
        {
            "partition": number % partitions,
            "value": {
                "id": workload.event_id(number),
                "prediction": float(scores[number]),
                "version": 1,
                "source": ["events", number % partitions, number // partitions],
            },
        }
        for number in range(FEW)
    ]


def said_of(settings, topic, records):
    encoded = [record | {"value": msgspec.json.encode(record["value"])} for record in records]
    produce(settings, topic, encoded)
    return verified(settings, topic, "events", FEW, 2, Numbers(GRAPH))


def test_the_verifier_finds_nothing_where_all_is_right(settings, topic):
    verdict = said_of(settings, topic("predictions", 2), right_answers())
    assert verdict.ok
    assert verdict.delivered == FEW
    assert verdict.worst_difference < 1e-6


def changed(field, value):
    def change(records):
        records[50]["value"][field] = value

    return change


def repeated(records):
    records.append(records[50])


def swapped(records):
    records[50], records[52] = records[52], records[50]


def moved(records):
    records[50]["partition"] = 1


WRONG = {
    "a missing prediction": (lambda records: records.pop(50), "1 missing: e00000050"),
    "a duplicate": (repeated, "1 delivered twice or more: e00000050"),
    "a wrong score": (changed("prediction", 0.123), "1 further than 1e-05"),
    "a score that is none": (changed("prediction", "high"), "1 unreadable"),
    "another id": (changed("id", "e00000051"), "1 with the id of another event"),
    "another version": (changed("version", 0), "1 of another version"),
    "an event that never was": (changed("source", ["events", 0, 9_999]), "1 of no event"),
    "an event of another topic": (changed("source", ["others", 0, 25]), "1 of no event"),
    "another partition": (moved, "1 in another partition"),
    "another order": (swapped, "1 out of order"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_verifier_refuses(settings, topic, what):
    change, expected = WRONG[what]
    records = right_answers()
    change(records)
    verdict = said_of(settings, topic("predictions", 2), records)
    assert not verdict.ok
    assert any(fault.startswith(expected) for fault in verdict.faults), verdict.faults


def test_the_verifier_refuses_an_echo_that_lost_an_event(settings, topic):
    name = topic("echoes")
    values = [value + b"0000" for _, value in workload.events(FEW)]
    produce(settings, name, [{"value": value} for value in values])
    assert echoed(settings, name, FEW, 1).ok
    lossy = topic("lossy")
    produce(settings, lossy, [{"value": value} for value in values[:50] + values[51:]])
    assert not echoed(settings, lossy, FEW, 1).ok


def test_every_row_is_in_the_document():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [name for group in GROUPS for name in group.names if f"`{name}`" not in page] == []


def test_a_row_is_met_by_its_median_and_one_without_runs_is_not():
    assert Row(name="a", target=0.5, runs=[0.4, 0.6, 0.9]).met
    assert not Row(name="a", target=0.5, runs=[0.4, 0.4, 0.9]).met
    assert Row(name="a", target=1.15, runs=[1.1], better="lower").met
    skipped = Row(name="a", target=0.5, runs=[], detail={"skipped": "not installed"})
    assert (skipped.measured, skipped.met) == (None, False)
    assert skipped.as_json().keys() >= {"name", "measured", "target", "met", "runs"}
