"""One version per tick, whatever dies between any two steps of it, with two schedulers and over clock changes (law 8).

The crash points are not written down here: a run that lives counts the steps, and each of them is died at once.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
import steps as steps_module
from kit import Facts, linear, produce, wait_for
from steps import PRELOAD, Killed, Plan, Steps
from test_leader import HOUR, NOON, NothingLive, finished, registry, started

from headrace.infra.leadership import KafkaRegistry, KafkaRunsLog, KafkaWriter
from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.services.changes.ask import leads_anyone
from headrace.infra.topics import apply
from headrace.infra.training import LocalTraining, Origin
from headrace.models.durations import iso
from headrace.models.records import Published
from headrace.scheduler.leader import Leader
from headrace.streams.served import encode_served, served_batch, served_schema
from headrace.trainer.process import Trainer
from headrace.trainer.run_folder import is_worked_on

FILE = """
import os
import pathlib
import threading
from headrace import Binary, Cron, Every, Last, Number, Pipeline, RunLimits, Topic, Trained

HERE = pathlib.Path(__file__).parent


class Quick:
    def train(self, dataset, context):
        with (HERE / "trainings").open("a") as file:
            file.write(f"{len(dataset)}\\n")
        print("it trains in", os.getpid(), flush=True)
        pause = threading.Event()
        while (HERE / "hold").exists():
            context.progress({"epoch": 1, "epochs": 3, "loss": 0.5})
            pause.wait(0.1)
        return Trained(onnx=(HERE / "quick.onnx").read_bytes(), hyperparameters={}, curves={"loss": [0.5, 0.25]})


delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    learner=Quick(),
    train_on=Last("52w", holdout="1d", min_rows=50),
    run=RunLimits(time="1m", backoff="1s"),
    retrain=[RETRAIN],
)
"""
BEGIN = NOON + 300 * HOUR


@pytest.fixture
def place(settings, tmp_path):
    """Makes the pipeline's file, its topics, and hourly rows with labels in [first, end)."""

    def make(retrain, first=NOON, end=NOON + 400 * HOUR):
        folder = tmp_path / "pipeline"
        folder.mkdir()
        (folder / "quick.onnx").write_bytes(linear([1.0, 0.0]))
        (folder / "delay.py").write_text(FILE.replace("RETRAIN", retrain))
        file = read_pipelines(str(folder / "delay.py"))
        pipeline = file.pipelines["delay"]
        apply(settings, pipeline)
        serve(settings, pipeline, first, end)
        return Origin(file=file, pipeline=pipeline)

    yield make
    runs = settings.home.absolute() / "training"
    left = [folder for folder in runs.glob("*/runs/*/") if is_worked_on(folder)]
    for folder in left:
        (folder / "stop").touch()
    wait_for("every training to end", lambda: not any(is_worked_on(folder) for folder in left))


def serve(settings, pipeline, first, end):
    names, random = Names(settings.prefix, pipeline), np.random.default_rng(3)
    times = np.arange(first, end, HOUR)
    ids, distance = [f"e{n}" for n in range(len(times))], random.normal(0, 1, len(times))
    batch = served_batch(
        served_schema(pipeline.columns),
        ids=ids,
        times=times.astype(np.int64),
        partition=0,
        offsets=range(len(times)),
        version=0,
        scores=np.full(len(times), 0.5),
        columns={"distance": distance, "wind": random.normal(0, 1, len(times))},
    )
    produce(settings, names.topics.served, [{"value": value} for value, _, _ in encode_served(batch)])
    labels = [
        {"value": msgspec.json.encode({"id": i, "at": int(time) + HOUR // 2, "late": bool(late)})}
        for i, time, late in zip(ids, times, distance > 0, strict=True)
    ]
    produce(settings, names.labels, labels)


class Scheduler:
    """A real leader in this process, step by step; where it dies, its consumer leaves the group as after a timeout."""

    def __init__(self, settings, origin, trainer, fatal=""):
        names, self.step, self.trainer = (
            Names(settings.prefix, origin.pipeline),
            Steps(fatal, end=lambda: None),
            trainer,
        )
        self.log, self.registry = KafkaRunsLog(settings, names), KafkaRegistry(settings)
        self.writer = KafkaWriter(settings, names, self.log)
        self.leader = Leader(
            origin.pipeline,
            name=f"leader-{id(self)}",
            log=self.log,
            registry_log=self.registry,
            writer=self.writer,
            training=LocalTraining(settings, names, origin, trainer, self.registry),
            live=NothingLive(),
            observer=Facts(),
            started=BEGIN - HOUR // 2,
        )
        self.step.around(self.leader, names)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """A transaction that was open stays so, until whoever leads next takes it back."""
        del self.trainer.start
        self.leader.close()
        self.log.consumer.close()
        self.registry.close()

    def until_made(self, tick):
        """The clock wakes it at the tick."""
        self.leader.wake(tick)

        def made():
            self.leader.step()
            return self.leader._attempts.run is None and self.leader._runs.used_by(tick)

        wait_for(f"a run under {iso(tick)}", made)


def trainings(origin):
    """How often the learner ran."""
    file = origin.file.path.parent / "trainings"
    return len(file.read_text().splitlines()) if file.exists() else 0


def check_law_8(settings, ticks):
    """Every tick has one outcome and one version, in one line."""
    records = registry(settings)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    published = [record for record in records if isinstance(record, Published)]
    assert [record.tick for record in published] == [iso(tick) for tick in ticks]
    assert [record.version for record in published] == list(range(1, len(ticks) + 1))
    outcomes = Counter(record.tick for record in finished(settings) if record.outcome == "promoted")
    assert outcomes == Counter(iso(tick) for tick in ticks)


def test_a_tick_has_one_version_whatever_step_its_leader_dies_at(settings, place, record_property):
    origin = place('Every("1h")')
    with Trainer(PRELOAD, detached=True) as trainer:
        with Scheduler(settings, origin, trainer) as alive:
            alive.until_made(BEGIN)
        points = list(dict.fromkeys(alive.step.seen))
        for number, point in enumerate(points, 1):
            tick, before = BEGIN + number * HOUR, trainings(origin)
            with Scheduler(settings, origin, trainer, fatal=point) as first, pytest.raises(Killed):
                first.until_made(tick)
            with Scheduler(settings, origin, trainer) as second:
                second.until_made(tick)
            assert (point, trainings(origin) - before) == (point, 1)  # what was trained is not trained again
    record_property("crash points", points)
    sys.stdout.write("\n  ".join([f"{len(points)} crash points:", *points, ""]))
    assert len(points) > 20
    check_law_8(settings, [BEGIN + number * HOUR for number in range(len(points) + 1)])


class Processes:
    """Schedulers of one pipeline as processes, woken by the test: the clock is replayed."""

    def __init__(self, settings, origin, stack):
        self.settings, self.origin, self.stack = settings, origin, stack
        self.all = []

    def start(self, *, fatal="", time=1, started=None):
        plan = Plan(
            bootstrap_servers=self.settings.bootstrap_servers,
            prefix=self.settings.prefix,
            home=str(self.settings.home.absolute()),
            kafka={"session.timeout.ms": "2000", "heartbeat.interval.ms": "500"},
            file=str(self.origin.file.path),
            name="delay",
            started=started,
            fatal=fatal,
            time=time,
        )
        script = Path(steps_module.__file__)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, str(script), msgspec.json.encode(plan).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.all.append(process)
        self.stack.callback(self._end, process)
        return process

    def wake(self, now):
        """Every living one; until the one that leads has looked, and done what was due."""

        def one_led():
            return "woken leads" in [self._woken(process, now) for process in self.living()]

        wait_for(f"a leader at {iso(now)}", one_led)

    def is_member(self, names):
        return leads_anyone(self.settings, names)

    def until_it_dies_of(self, process, now):
        def dead():
            self._woken(process, now)
            return process.poll() is not None

        wait_for("its death", dead)

    def living(self):
        return [process for process in self.all if process.poll() is None]

    @staticmethod
    def _woken(process, now):
        try:
            process.stdin.write(f"{now}\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        for line in process.stdout:
            if line.startswith("woken"):
                return line.strip()
        process.wait()  # it died of it
        return ""

    @staticmethod
    def _end(process):
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_a_scheduler_killed_at_any_of_these_points_is_followed_by_one_that_ends_the_tick_once(settings, place):
    points = [
        "before: started committed",
        "after: process forked",
        "before: candidate made",
        "before: graph produced",
        "before: published committed",
        "after: published committed",
    ]
    origin = place('Every("1h")')
    ticks = [BEGIN + number * HOUR for number in range(len(points))]
    for point, tick in zip(points, ticks, strict=True):
        with ExitStack() as stack:
            processes = Processes(settings, origin, stack)
            killed = processes.start(fatal=point, started=BEGIN - HOUR // 2)
            processes.until_it_dies_of(killed, tick)
            assert killed.returncode == -signal.SIGKILL
            processes.start(started=BEGIN - HOUR // 2)
            processes.wake(tick)
    check_law_8(settings, ticks)
    assert trainings(origin) == len(ticks)


def utc(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def wall(begin, end, minutes):
    """Every so many minutes from a local time to another, in New York, as the clock of the world goes."""
    zone = ZoneInfo("America/New_York")
    first, last = (int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000) for text in (begin, end))
    return list(range(first, last + 1, minutes * 60_000))


FOLDS = [
    *wall("2013-11-02T01:00", "2013-11-02T03:00", 30),
    *wall("2013-11-03T00:30", "2013-11-03T03:00", 10),  # 01:30 comes twice
    *wall("2013-11-04T01:00", "2013-11-04T03:00", 30),
    *wall("2014-03-08T01:00", "2014-03-08T03:30", 30),  # after months without a scheduler
    *wall("2014-03-09T01:00", "2014-03-09T04:00", 10),  # 02:30 does not come
    *wall("2014-03-10T01:00", "2014-03-10T03:00", 30),
]
TICKS = [
    *("2013-11-02T05:30Z", "2013-11-02T06:30Z"),
    *("2013-11-03T05:30Z", "2013-11-03T07:30Z"),  # the first 01:30, of summer time; then 02:30 of winter time
    *("2013-11-04T06:30Z", "2013-11-04T07:30Z"),
    "2014-03-07T07:30Z",  # one for all that were missed
    *("2014-03-08T06:30Z", "2014-03-08T07:30Z"),
    *("2014-03-09T06:30Z", "2014-03-09T07:00Z"),  # 02:30 is at the end of the gap, 03:00 of summer time
    *("2014-03-10T05:30Z", "2014-03-10T06:30Z"),
]


def test_two_schedulers_over_both_clock_changes_make_every_tick_once_though_one_is_killed_in_the_fold(settings, place):
    begin = utc("2013-10-20T00:00Z")
    origin = place('Cron("30 1,2 * * *", timezone="America/New_York")', begin, utc("2014-03-11T00:00Z"))
    with ExitStack() as stack:
        processes = Processes(settings, origin, stack)
        since = utc("2013-11-02T04:00Z")
        first = processes.start(fatal="before: published committed", time=3, started=since)  # of the fold's 01:30
        wait_for("the first to lead", lambda: processes.is_member(Names(settings.prefix, origin.pipeline)))
        processes.start(started=since)
        for now in FOLDS:
            processes.wake(now)
            processes.wake(now - 7_200_000)  # a clock that is set back asks again for what was
        assert first.returncode == -signal.SIGKILL
    check_law_8(settings, [utc(tick) for tick in TICKS])
    caught_up = [record.trigger for record in started(settings) if record.tick == "2014-03-07T07:30:00Z"]
    assert [text.partition("(")[2] for text in caught_up] == ["and for 100 or more missed before it)"]
    assert trainings(origin) == len(TICKS)
