"""`headrace plan` on a real broker: a few weeks of flights, replayed under several schedules."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kit import Ends, produce, wait_for
from typer.testing import CliRunner

from headrace.infra.cli.app import app
from headrace.infra.demo.data import load_flights
from headrace.infra.kafka import admin
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.services.compare.plan import Options, plan
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models.errors import BadInput, RunFailed
from headrace.models.metrics import roc_auc
from headrace.models.session import Session
from headrace.scheduler.policies import policy_of
from headrace.streams.served import encode_served, served_batch, served_schema
from headrace.testing import replay
from headrace.trainer.dataset import to_columns
from headrace.trainer.past import Past
from headrace.trainer.past_file import write_past
from headrace.trainer.run import MODEL

HOUR, DAY = 3_600_000, 86_400_000
DEMO = Path(__file__).parents[2] / "infra" / "demo"
START = "2013-01-11T05:00:00Z"
START_MS = 1_357_880_400_000


def origin_of(path):
    file = read_pipelines(str(path))
    return Origin(file=file, pipeline=one_of(file, str(path)))


@pytest.fixture(scope="module")
def three_weeks():
    """Of flights, through the features as they are served."""
    rows = load_flights(21)
    pipeline = read_pipelines(str(DEMO / "flights.py")).pipelines["flight_delay"]
    found = replay(
        pipeline, rows["flights"].values, side_rows={name: rows[name].values for name in ("departures", "weather")}
    )
    return [record.value for record in found.records if record.topic.endswith(".served")], rows["arrivals"].values


@pytest.fixture
def flights(settings, tmp_path, three_weeks):
    """The demo's pipeline with a shorter holdout, and its past on the topics."""
    text = (DEMO / "flights.py").read_text().replace('holdout="7d"', 'holdout="2d"')
    (tmp_path / "few_flights.py").write_text(text)
    (tmp_path / "flight_net.py").write_text((DEMO / "flight_net.py").read_text())
    origin = origin_of(tmp_path / "few_flights.py")
    apply(settings, origin.pipeline)
    names = Names(settings.prefix, origin.pipeline)
    served, labels = three_weeks
    produce(settings, names.topics.served, [{"value": value} for value in served])
    produce(settings, names.labels, [{"value": value} for value in labels])
    return origin


def planned(settings, origin, *texts, **options):
    policies = [policy_of(text, origin.pipeline.retrain) for text in texts]
    return plan(settings, origin, policies, Options(jobs=2, **options), lambda _what, _counted: None)


def environment(settings):
    return {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "HEADRACE_PREFIX": settings.prefix,
        "HEADRACE_HOME": str(settings.home),
    }


def command(settings, origin, *options):
    return [str(origin.file.path), "--from", START, *options]


def finished(settings):
    """Those that are on disk, by the moment at which they were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in settings.home.glob("plan/*/trainings/*/result.json")}


def ends(settings):
    """Of every topic that has a record; the broker makes one of its own, and empty, for whoever asks for a group."""
    topics = admin(settings).list_topics(timeout=30).topics
    return {name: end for name in sorted(topics) if (end := Ends(settings, name)())}


def test_a_plan_publishes_nothing_and_never_is_the_first_model_frozen(settings, flights, tmp_path, monkeypatch):
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    before, page = ends(settings), tmp_path / "plan.html"
    texts = [part for text in ("never", "every:3d", "labels:4000") for part in ("--schedule", text)]
    arguments = ["plan", *command(settings, flights, *texts, "--html", str(page), "--output", "json")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    never, every, labels = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert ends(settings) == before
    keys = ["policy", "live_metric", "ci_low", "ci_high", "trainings", "training_seconds", "recommended"]
    assert list(never)[: len(keys)] == keys
    assert [row["policy"] for row in (never, every, labels)] == ["never", "every:3d", "labels:4000"]
    assert [row["trainings"] for row in (never, every, labels)] == [1, 5, 3]
    assert len(finished(settings)) == 7, "of 9 trainings, the first one is shared by three policies"
    assert sum(row["recommended"] for row in (never, every, labels)) == 1
    assert never["ci_low"] < never["live_metric"] < never["ci_high"]
    assert max(row["live_metric"] for row in (every, labels)) > never["live_metric"]
    assert "never" in page.read_text()

    past = whole_past(settings, flights, tmp_path)
    first = min(settings.home.glob("plan/*/trainings/*"), key=trained_through)
    session = Session((first / MODEL).read_bytes(), flights.pipeline.schema)
    later = (past.times > START_MS) & np.isfinite(past.labels)
    scores = session.predict(to_columns(past.rows, flights.pipeline.schema), len(past))
    assert never["rows"] == later.sum()
    assert never["live_metric"] == pytest.approx(roc_auc(past.labels[later], scores[later]), abs=1e-6)


def trained_through(folder):
    return msgspec.json.decode((folder / "result.json").read_bytes())["trained_through"]


def whole_past(settings, origin, tmp_path):
    from headrace.infra.dataset_files import DatasetFiles

    files = DatasetFiles(settings, Names(settings.prefix, origin.pipeline), tmp_path / "all")
    files.fetch()
    (tmp_path / "scratch").mkdir()
    write_past(files.folder, tmp_path / "scratch", tmp_path / "past.arrow", origin.pipeline.label.within_ms)
    return Past(tmp_path / "past.arrow")


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_a_plan_that_was_ended_goes_on_with_what_was_finished(settings, flights, ended_by):
    arguments = command(settings, flights, "--schedule", "every:1d", "--schedule", "never", "--output", "json")
    run = [sys.executable, "-m", "headrace.infra.cli", "plan", *arguments, "--jobs", "1"]
    going = subprocess.Popen(run, env=os.environ | environment(settings), stderr=subprocess.PIPE)
    wait_for("two finished trainings", lambda: len(finished(settings)) >= 2)
    going.send_signal(ended_by)
    _, said = going.communicate(timeout=180)
    assert (b"the same command goes on from there" in said) == (ended_by == signal.SIGINT), said.decode()
    killed = finished(settings)
    assert len(killed) < 10, "the kill came too late to say anything"
    report = planned(settings, flights, "every:1d", "never", start=START_MS)
    after = finished(settings)
    assert {name: after[name] for name in killed} == killed
    assert len(after) == report.policies[0].trainings == 12
    assert report.found >= len(killed)
    assert list(settings.home.glob("plan/*/unfinished/*")) == []
    assert list(settings.home.glob("plan/*/scratch-*")) == []


def test_drift_is_counted_against_the_policys_own_champion(settings, flights):
    report = planned(settings, flights, "never", "drift:0.3", "drift:50", start=START_MS)
    never, drift, hardly = report.policies
    assert (never.trainings, hardly.trainings) == (1, 1)
    assert drift.trainings > 1
    assert hardly.live_metric == never.live_metric


# ── labels that come late ─────────────────────────────────────────────────────────────────────────────────────────────

TWO_MINDS = """
from headrace import Binary, Gate, Last, Number, Pipeline, Topic, Torch

delay = Pipeline(
    name="two-minds",
    events=Topic("events", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("outcomes", id="id", time="at"), "late", within="12h", if_absent="drop"),
    learner=Torch("minds_net:build", epochs=8, batch_size=64),
    train_on=Last("6d", holdout="1d"),
    gate=Gate("roc_auc", max_loss=1.0),
)
"""
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(1, 1)

    def forward(self, numbers, categories=None):
        return self.last(numbers).squeeze(1)


def build(inputs):
    return Net()
"""
HOURS = 14 * 24


OWN = """
class Own:
    def train(self, dataset, context):
        return Torch("minds_net:build", epochs=2, batch_size=64).train(dataset, context)


delay = Pipeline("""


def two_minds(settings, tmp_path, label_delay, text=TWO_MINDS):
    """Two weeks that are over now, served as they happened. Of ten labels one comes after an hour; the other nine,
    which say the opposite, have such times, too, and are appended `label_delay` after their events."""
    (tmp_path / "minds.py").write_text(text)
    (tmp_path / "minds_net.py").write_text(NET)
    origin = origin_of(tmp_path / "minds.py")
    names = Names(settings.prefix, origin.pipeline)
    apply(settings, origin.pipeline)
    random = np.random.default_rng(5)
    now = int(np.datetime64("now", "ms").astype(np.int64))
    times = now - 15 * DAY + np.repeat(np.arange(HOURS), 20) * HOUR
    distance, at_once = random.normal(size=len(times)), np.arange(len(times)) % 10 == 0
    for hour in range(HOURS):
        part = slice(20 * hour, 20 * hour + 20)
        batch = served_batch(
            served_schema(origin.pipeline.columns),
            ids=[f"e{n}" for n in range(part.start, part.stop)],
            times=times[part],
            partition=0,
            offsets=np.arange(part.start, part.stop),
            version=0,
            scores=np.full(20, 0.5),
            columns={"distance": distance[part]},
        )
        ((value, _, _),) = encode_served(batch)
        produce(settings, names.topics.served, [{"value": value, "timestamp": int(times[part.start])}])
    late = ((distance > 0) == at_once).tolist()
    appended = np.minimum(times + np.where(at_once, HOUR, label_delay), now).tolist()
    labels = [
        {"value": msgspec.json.encode({"id": f"e{n}", "at": time + HOUR, "late": late[n]}), "timestamp": appended[n]}
        for n, time in enumerate(times.tolist())
    ]
    produce(settings, names.labels, labels)
    return origin, int(times[0])


@pytest.mark.parametrize(("label_delay", "learnt"), [(2 * HOUR, True), (13 * DAY, False)], ids=["at once", "late"])
def test_a_label_is_learnt_from_when_it_was_appended_and_not_before(settings, tmp_path, label_delay, learnt):
    """Seen early, by their own times, the late ones would outvote the others."""
    origin, first = two_minds(settings, tmp_path, label_delay)
    (never,) = planned(settings, origin, "never", start=first + 9 * DAY + HOUR // 2).policies
    assert (never.live_metric > 0.8) == learnt
    assert (never.live_metric < 0.2) == (not learnt)


def test_a_learner_that_may_go_on_from_the_champion_is_trained_along_each_policys_own_line(settings, tmp_path):
    text = TWO_MINDS.replace("delay = Pipeline(", OWN).replace(
        'learner=Torch("minds_net:build", epochs=8, batch_size=64)', "learner=Own()"
    )
    assert "learner=Own()" in text
    origin, first = two_minds(settings, tmp_path, 2 * HOUR, text)
    report = planned(settings, origin, "every:2d", "every:1d", start=first + 9 * DAY + HOUR // 2)
    two_days, daily = (row.trainings for row in report.policies)
    assert daily > two_days > 2
    # of each day only the first one's model was trained from the same champion
    assert len(finished(settings)) == daily + two_days - 1 - (first_ticks_are_one(first) and 1)
    assert [row.failures for row in report.policies] == [0, 0]


def first_ticks_are_one(first):
    """Whether the first midnight after the first training is a tick of both."""
    midnight = (first + 9 * DAY + HOUR // 2) // DAY + 1
    return midnight % 2 == 0


# ── what cannot be planned ────────────────────────────────────────────────────────────────────────────────────────────


def test_too_little_past_is_said_and_so_is_none(settings, flights, tmp_path):
    with pytest.raises(BadInput, match=r"too little past: rows are served from 2013-01-01T.* It takes two holdouts"):
        planned(settings, flights, "never", start=START_MS + 30 * DAY)
    with pytest.raises(RunFailed, match=r"too_few_rows: the first training, as of 2013-01-01T12:00:00Z: .* --from"):
        planned(settings, flights, "never", start=START_MS - 10 * DAY + 7 * HOUR)
    with pytest.raises(BadInput, match="expected a folder with served"):
        planned(settings, flights, "never", past=str(tmp_path))
    other = settings.model_copy(update={"prefix": settings.prefixed("other.")})
    apply(other, flights.pipeline)
    with pytest.raises(BadInput, match=r"no past to plan on: .*nothing was served yet"):
        planned(other, flights, "never")
