"""Two versions compared on the rows that were served, on a real broker, with a swap among the rows."""

import dataclasses
import re

import msgspec
import numpy as np
import pytest
from kit import Facts, linear, produce, wait_for
from scipy.stats import kendalltau
from sklearn.metrics import roc_auc_score
from test_cli import Cli
from test_explain_replay import log, needs, served_rows
from test_source import worker_of
from test_swap import Publisher, predicted

from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.services.compare.diff_page import page
from headrace.infra.services.compare.live_table import live_table
from headrace.infra.services.compare.model_diff import compare
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.models.calibration import calibration_error
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.facts import Swapped
from headrace.models.features import Number
from headrace.models.metrics import OF_TASK
from headrace.models.records import Aliased

AT = 1_372_935_600_000  # 2013-07-04T11:00:00Z; the events are a second apart
EVENTS = 3_000
HOSTILE = '<script>alert("x")</script> & Söhne'
FILE = """
from headrace import Binary, Category, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind"), Category("carrier", nullable=True)],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", decide_at=0.4),
)
"""
WEIGHTS = {1: ([1.0, 0.1], -0.5), 2: ([0.8, -0.4], -0.2)}
TWO = (Number("distance"), Number("wind"))


NUMBERS = {"gain": -0.02, "calibration_error": 0.031, "anchor_gain": -0.11}


def judged(manifest):
    said = {
        "verdict": "roc_auc 0.7 <against> 0.72 of version 1",
        "numbers": NUMBERS,
        "parent": 1,
        "dataset_sha256": "ab",
    }
    return msgspec.structs.replace(needs(*TWO)(manifest), **said)


class World:
    """Version 1 served half of the events, version 2 the rest; two of three have a label."""

    def __init__(self, settings, folder):
        (folder / "diffs.py").write_text(FILE)
        self.settings, self.folder, self.cli = settings, folder, Cli(settings, folder)
        self.pipeline = read_pipeline(f"{folder / 'diffs.py'}:delay")
        self.names, random = Names(settings.prefix, self.pipeline), np.random.default_rng(5)
        apply(settings, self.pipeline, 2)
        self.numbers = random.normal(size=(EVENTS, 2)).round(2)
        self.carriers = random.choice(["UA", "B6", HOSTILE, None], EVENTS, p=[0.5, 0.3, 0.15, 0.05]).tolist()
        self.labels = (self.numbers[:, 0] + random.normal(size=EVENTS) > 0).astype(float)
        self.labels[::3] = np.nan
        self.publisher, facts = Publisher(settings, self.pipeline), Facts()
        with worker_of(settings, self.pipeline, facts):
            for version in (1, 2):
                weights, bias = WEIGHTS[version]
                self.publisher.publish(linear(weights, bias), change=judged if version == 2 else needs(*TWO))
                facts.wait(Swapped, lambda fact, version=version: fact.version == version)
                half = EVENTS // 2 * version
                produce(settings, self.names.events, [self.event(n) for n in range(half - EVENTS // 2, half)])
                wait_for("its half", lambda half=half: predicted(facts) == half)
        produce(settings, self.names.labels, [self.label(n) for n in range(EVENTS) if n % 3])
        self.publisher.producer.begin_transaction()
        self.publisher._write(Aliased(**self.publisher._record() | {"version": 1}, alias="challenger"))

    def event(self, n):
        distance, wind = self.numbers[n].tolist()
        value = {"id": f"e{n}", "at": AT + 1_000 * n, "distance": distance, "wind": wind, "carrier": self.carriers[n]}
        return {"value": msgspec.json.encode(value), "partition": n % 2}

    def label(self, n):
        value = {"id": f"e{n}", "at": AT + 1_000 * n + 60_000, "late": bool(self.labels[n])}
        return {"value": msgspec.json.encode(value)}

    def scores(self, version):
        weights, bias = WEIGHTS[version]
        return 1 / (1 + np.exp(-(self.numbers @ weights + bias)))

    def compare(self, *which, **options):
        return compare(self.settings, self.names, *which, **options)


@pytest.fixture(scope="module")
def world(servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffs")
    return World(
        Settings(bootstrap_servers=servers.bootstrap_servers, prefix=f"{folder.name}.", home=folder / "home"), folder
    )


def test_both_are_compared_on_the_same_rows_with_the_labels_that_came(world):
    report = world.compare()
    found, first, second = report.difference, world.scores(1), world.scores(2)
    labelled = np.isfinite(world.labels)
    assert (report.first.version, report.first.aliases) == (1, ("challenger",))
    assert (report.second.version, report.second.aliases) == (2, ("champion",))
    assert (found.rows, found.labelled) == (EVENTS, labelled.sum())
    assert report.event_times == (iso(AT), iso(AT + 1_000 * (EVENTS - 1)))
    assert found.tau == pytest.approx(kendalltau(first, second).statistic, abs=1e-4)  # scores are float32
    assert found.changed_decisions == pytest.approx(np.mean((first >= 0.4) != (second >= 0.4)))
    assert found.shift.mean == pytest.approx(np.mean(second - first), abs=1e-6)
    assert [one.metric for one in found.metrics] == list(OF_TASK["binary"])
    auc = found.metrics[0]
    for estimate, scores in ((auc.first, first), (auc.second, second)):
        assert estimate.value == pytest.approx(roc_auc_score(world.labels[labelled], scores[labelled]), abs=1e-4)
        assert estimate.low < estimate.value < estimate.high
    assert auc.difference.high < 0  # version 2 weighs the wind, which says nothing
    assert (report.lacking, report.unanswered) == ({}, 0)


def test_calibration_and_what_each_ones_own_gate_said_are_there(world):
    report = world.compare()
    labelled = np.isfinite(world.labels)
    expected = [calibration_error(world.labels[labelled], world.scores(version)[labelled]) for version in (1, 2)]
    assert report.difference.calibration == pytest.approx(expected, abs=1e-3)
    assert (report.first.verdict, report.first.judged_against) == ("", None)
    assert (report.second.judged_against, report.second.numbers) == (1, NUMBERS)
    said = world.cli("model", "diff", "diffs.py").out
    for part in ("calibration error", "verdict on 2", "of version 1, against version 1", "anchor_gain -0.11"):
        assert part in " ".join(said.split()), part
    html = page(report)
    assert "roc_auc 0.7 &lt;against&gt; 0.72" in html
    assert "<td>anchor_gain</td>" in html


def test_rows_that_moved_most_come_with_both_scores_their_label_and_their_features(world):
    report = world.compare()
    change = world.scores(2) - world.scores(1)
    order = [int(one.id[1:]) for one in report.moved]
    assert np.abs(change[order]) == pytest.approx(np.sort(np.abs(change))[::-1][:20], abs=1e-6)
    for n, one in zip(order, report.moved, strict=True):
        assert one.source == f"{world.names.events}/{n % 2}/{n // 2}"
        assert (one.event_time, one.served_version) == (iso(AT + 1_000 * n), 1 if n < EVENTS // 2 else 2)
        assert (one.first, one.second) == pytest.approx((world.scores(1)[n], world.scores(2)[n]), abs=1e-6)
        assert one.label == (world.labels[n] if n % 3 else None)
        distance, wind = world.numbers[n]
        assert one.features == {"distance": distance, "wind": wind, "carrier": world.carriers[n]}


def test_segments_are_the_values_of_category_columns_with_enough_rows(world):
    segments = {one.value: one for one in world.compare(segment_rows=200).difference.segments}
    assert list(segments) == ["UA", "B6", HOSTILE]  # most rows first; what is missing has 150
    for value, segment in segments.items():
        rows = np.array([carrier == value for carrier in world.carriers])
        assert (segment.column, segment.rows) == ("carrier", rows.sum())
        assert segment.labelled == (rows & np.isfinite(world.labels)).sum()
        assert segment.mean_difference == pytest.approx(np.mean((world.scores(2) - world.scores(1))[rows]), abs=1e-6)
    assert None in {one.value for one in world.compare(segment_rows=1).difference.segments}


def test_fewer_rows_are_the_newest_by_event_time(world):
    report = world.compare(rows=500)
    assert report.difference.rows == 500
    assert report.event_times == (iso(AT + 1_000 * (EVENTS - 500)), iso(AT + 1_000 * (EVENTS - 1)))


def test_of_a_range_so_many_rows_are_drawn_and_the_same_every_time(world):
    since, until = AT + 1_000 * 1_000, AT + 1_000 * 2_000
    whole = world.compare(since=since, until=until)
    assert (whole.difference.rows, whole.event_times) == (1_000, (iso(since), iso(until - 1_000)))
    some = world.compare(since=since, until=until, rows=200)
    assert some.difference.rows == 200
    assert some == world.compare(since=since, until=until, rows=200)
    assert iso(since) <= some.event_times[0] < iso(since + 60_000)  # from all of the range
    assert iso(until - 60_000) < some.event_times[1]
    assert some.difference.shift.mean == pytest.approx(whole.difference.shift.mean, abs=0.05)


def test_versions_are_numbers_or_aliases_and_one_alone_stands_beside_the_champion(world):
    report = world.compare("challenger")
    assert (report.first.version, report.second.version) == (2, 1)
    report = world.compare("0", "challenger")
    assert (report.first.version, report.second.version) == (0, 1)
    assert (report.difference.tau, report.difference.metrics[0].first.value) == (None, 0.5)  # it answers one number
    with pytest.raises(BadInput, match="are both version 2"):
        world.compare("champion", "2")
    with pytest.raises(BadInput, match="expected one of 0, 1, 2, or champion, challenger; got '9'"):
        world.compare("9")


def test_nothing_to_compare_is_said(settings, world):
    apply(settings, world.pipeline, 1)
    names, publisher = Names(settings.prefix, world.pipeline), Publisher(settings, world.pipeline)
    with pytest.raises(BadInput, match="the baseline is the only one"):
        compare(settings, names)
    publisher.publish(linear([1.0, 1.0]), change=needs(*TWO))
    with pytest.raises(BadInput, match="expected served rows"):
        compare(settings, names)
    short = dataclasses.replace(world.pipeline, features=[Number("distance")])
    log(settings, names, served_rows(short, 0, 10))
    with pytest.raises(BadInput, match="version 1 needs wind, which 10 rows lack"):
        compare(settings, names)
    whole = dataclasses.replace(world.pipeline, features=TWO)
    log(settings, names, served_rows(whole, 10, 30), served_rows(whole, 20, 40))  # the second from after a crash
    report = compare(settings, names)
    assert (report.difference.rows, report.difference.labelled) == (30, 0)
    assert report.lacking == {"version 1 needs wind": 10}
    assert report.difference.metrics[0].first.value is None
    assert "no labels came for these rows" in page(report)


def test_the_page_needs_nothing_else_and_runs_nothing_of_users(world):
    html = page(world.compare(segment_rows=1))
    assert "<script" not in html
    assert not re.search(r"(https?:)?//|\bsrc=|url\(|@import|<link|javascript:", html)
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; Söhne" in html
    assert html.count("<svg") == html.count("</svg>") >= 3
    assert "nan" not in html.lower().replace("tenant", "")
    assert "version 1 (challenger)" in html


def test_the_command_shows_a_table_gives_json_and_writes_the_page(world):
    said = world.cli("model", "diff", "diffs.py", "challenger", "champion", "--html", "report.html")
    for part in ("Kendall's tau", "changed decisions", "roc_auc", "carrier = UA", "worse", "report.html"):
        assert part in said.out + said.err, part
    assert (world.folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    report = world.cli("model", "diff", "diffs.py", "--rows", "1000", "--output", "json").json
    assert (report["difference"]["rows"], report["second"]["version"]) == (1_000, 2)
    assert "expected one of 0, 1, 2" in world.cli.refused("model", "diff", "diffs.py", "9")


# ── live metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_live_metrics_are_of_what_each_version_really_served(world):
    first, second = live_table(world.settings, world.names)
    assert [(one.version, one.rows, one.segment, one.begin) for one in (first, second)] == [
        (1, EVENTS // 2, "", ""),
        (2, EVENTS // 2, "", ""),
    ]
    half, labelled = slice(EVENTS // 2, None), np.isfinite(world.labels)
    rows = np.flatnonzero(labelled[half]) + EVENTS // 2
    auc = second.metrics["roc_auc"]
    assert second.labelled == len(rows)
    assert auc.value == pytest.approx(
        roc_auc_score(world.labels[rows], world.scores(2)[rows]), abs=1e-3
    )  # float32 has ties
    assert auc.low < auc.value < auc.high


def test_live_metrics_by_span_and_segment_add_up(world):
    spans = live_table(world.settings, world.names, every_ms=600_000, segments=["carrier"])
    assert sum(one.rows for one in spans if not one.segment) == EVENTS
    assert {one.segment for one in spans} == {"", "carrier=UA", "carrier=B6", f"carrier={HOSTILE}"}
    assert spans[0].begin == iso(AT - AT % 600_000)
    some = live_table(world.settings, world.names, since=AT + 1_000 * 100, until=AT + 1_000 * 200)
    assert sum(one.rows for one in some) == 100
    with pytest.raises(BadInput, match="--segment: expected one of carrier, got wind"):
        live_table(world.settings, world.names, segments=["wind"])


def test_the_command_shows_them(world):
    lines = world.cli("metrics", "diffs.py", "--every", "1d", "--output", "json").lines
    assert [line["version"] for line in lines] == [1, 2]
    shown = world.cli("metrics", "diffs.py").out
    assert "roc_auc" in shown
    assert "labelled" in shown
