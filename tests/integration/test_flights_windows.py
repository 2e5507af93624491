"""Two weeks of real flights, trained on through Kafka by other windows, with an anchor, checks, weights and balance."""

import pytest
from kit import produce
from test_cli import Cli

from headrace.infra.demo import run as demo
from headrace.infra.demo.data import load_flights
from headrace.infra.demo.flights import flight_delay
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.streams.served import encode_served
from headrace.testing import replay

LEARNER = "epochs=2, batch_size=1024, lr=3e-3"
WINDOW = 'train_on=Last("52w", holdout="7d"),'
NAMES = (
    "Aggregate, Anchor, Balance, Binary, Category, Checks, Cron, Datetime, Gate, LabelDelay, LastRows, Lookup, Number"
)
CHECKS = """
def plenty(train, holdout):
    return f"{len(train)} rows are plenty."


def enough_late(train, holdout):
    return f"{train.labels.mean():.3f} are late."
"""


class World:
    """What workers would have logged, on a topic that is kept for ever, and what came of it."""

    def __init__(self, settings, folder):
        self.settings, self.folder, self.cli = settings, folder, Cli(settings, folder)
        (folder / "flight_net.py").write_text(demo.FILE.with_name("flight_net.py").read_text())
        (folder / "flight_checks.py").write_text(CHECKS)
        self.declare("LastRows(4_000, holdout='1d')")
        names = Names(settings.prefix, flight_delay)
        apply(settings, flight_delay, 1)
        rows = load_flights(days=14)
        side = {topic: rows[topic].values for topic in ("weather", "departures")}
        served = replay(flight_delay, rows["flights"].values, side_rows=side).served
        produce(settings, names.topics.served, [{"value": v} for batch in served for v, _, _ in encode_served(batch)])
        produce(settings, names.labels, [{"value": value} for value in rows["arrivals"].values])

    def declare(self, window, more=""):
        source = demo.FILE.read_text()
        assert WINDOW in source
        source = source.replace(WINDOW, f"train_on={window}, anchor=Anchor(rows=1_000), {more}")
        source = source.replace(LEARNER, "epochs=6, batch_size=128, lr=3e-3")  # few rows want more steps
        imports = f"from headrace import {NAMES}, Pipeline, Rehearsal, Topic, Torch, Last\n"
        (self.folder / "flights.py").write_text(imports + source.partition("Torch\n")[2])

    def trained(self, at, *options, code=0):
        return self.cli("train", "flights.py", "--at", at, *options, "--output", "json", code=code).json

    def manifest(self, version):
        return self.cli("model", "show", "flights.py", str(version), "--output", "json").json["manifest"]


@pytest.fixture(scope="module")
def world(servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    told = {"bootstrap_servers": servers.bootstrap_servers, "redis_url": servers.redis_url}
    return World(Settings(**told, prefix=f"{folder.name}.", home=folder / "home"), folder)


@pytest.fixture(scope="module")
def first(world):
    return world.trained("2013-01-11T05:00:00Z", "--sanity")


@pytest.fixture(scope="module")
def second(world, first):
    """By another window, later, with all that changes what rows count."""
    assert first["version"] == 1
    checks = 'Checks(own=["flight_checks:plenty"], off=["drift"])'
    more = f"importance=LabelDelay(), balance=Balance(by='undersampling'), checks={checks},"
    world.declare('Rehearsal("3d", 2_000, holdout="1d")', more)
    return world.trained("2013-01-14T05:00:00Z")


def test_the_last_rows_are_trained_on_and_one_batch_was_learnt_by_heart_first(world, first):
    assert first["outcome"] == "promoted"
    assert (first["rows"], first["holdout_rows"] > 500) == (4_000, True)
    assert first["seconds"].keys() == {"load", "join", "check", "train", "evaluate"}
    (sane,) = [found for found in first["findings"] if found["name"] == "sanity"]
    assert sane["severity"] == "note"
    assert sane["text"].startswith("one batch of 64 rows was learnt by heart: loss 0.")
    manifest = world.manifest(1)
    assert manifest["findings"] == first["findings"]
    numbers = manifest["numbers"]
    assert numbers["anchor_rows"] == 1_000
    assert numbers["anchor_roc_auc"] == numbers["anchor_candidate"] > 0.5 == numbers["anchor_champion_roc_auc"]
    assert 0 < numbers["calibration_error"] < 0.3


def test_another_window_later_is_judged_on_the_same_anchor_and_its_probabilities_are_the_streams(world, second):
    assert second["outcome"] == "promoted", second["reason"]
    fresh = second["rows"] - 2_000
    assert 1_000 < fresh < 3_000
    one, other = world.manifest(1), world.manifest(2)
    assert one["anchor_sha256"] == other["anchor_sha256"] != ""
    assert one["dataset_sha256"] != other["dataset_sha256"]
    assert other["hyperparameters"]["balance"].startswith("undersampling, ")
    assert other["hyperparameters"]["prior_odds"] > 1.5
    assert other["numbers"]["calibration_error"] < 0.2  # a tenth is late, as was half of what it was trained on
    assert other["numbers"]["gain"] > 0 > other["numbers"]["anchor_gain"]  # what it won that day it won by forgetting
    assert other["trained_from"] < "2013-01-10"


def test_findings_are_shown_with_the_run_the_version_and_the_comparison(world, second):
    assert [found["name"] for found in second["findings"]].count("plenty") == 1
    show = " ".join(world.cli("runs", "show", "flights.py", second["run"]).out.split())
    assert f"warning {second['rows']} rows are plenty. (plenty)" in show
    said = " ".join(world.cli("model", "show", "flights.py", "1").out.split())
    assert "anchor 1,000 rows, sha256" in said
    assert "learnt by heart" in said
    report = world.cli("model", "diff", "flights.py", "1", "2", "--output", "json").json
    assert report["second"]["numbers"]["anchor_rows"] == 1_000
    assert all(0 < error < 0.3 for error in report["difference"]["calibration"])


def test_a_finding_that_is_declared_an_error_fails_the_run_by_its_name(world, second):
    assert second["version"] == 2
    checks = 'Checks(own=["flight_checks:enough_late"], errors=["enough_late"])'
    world.declare("LastRows(4_000, holdout='1d')", f"checks={checks},")
    failed = world.trained("2013-01-14T05:00:00Z", code=1)
    assert failed["outcome"] == "failed"
    assert failed["reason"].startswith("enough_late: 0.")
