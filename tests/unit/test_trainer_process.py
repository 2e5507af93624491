"""A training in its own process: what it gives back, and what becomes of its accidents."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pytest
from kit import wait_for

from headrace.models.errors import RunFailed
from headrace.models.limits import RunLimits
from headrace.scheduler.retries import is_tried_again
from headrace.trainer.messages import Champion, Failed, RunRequest, RunResult, champion_of
from headrace.trainer.process import Run, Trainer
from headrace.trainer.run import train_candidate
from headrace.trainer.run_folder import has_outcome, is_worked_on, logs, said

HOUR = 3_600_000
START = 1_372_896_000_000  # 2013-07-04T00:00Z
ROWS = 800

PIPELINES = """
import ctypes, errno, os, pathlib, signal, sys, threading
from headrace.models.features import Category, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.reweighting import Balance, LabelDelay
from headrace.models.windows import Anchor, Last, Rehearsal
from headrace.trainer.gate import Gate
from headrace.trainer.learners import Torch


def net(inputs):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(inputs.categories[0], 4)
            self.last = torch.nn.Linear(inputs.numbers + 4, 1)

        def forward(self, numbers, categories):
            return self.last(torch.cat([numbers, self.embedding(categories[:, 0])], 1)).squeeze(1)

    return Net()


def nan(inputs):
    module = net(inputs)
    module.last.weight.data.fill_(float("nan"))
    return module


def deep(inputs):
    import torch

    module = net(inputs)
    module.last = torch.nn.Sequential(torch.nn.Linear(inputs.numbers + 4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    return module


def deaf(inputs):
    module = net(inputs)
    module.last.weight.data.fill_(0.0)
    module.last.weight.requires_grad_(False)
    return module


class Own:
    def __init__(self, accident):
        self.train = lambda dataset, context: accident()


def killed():
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def patient():
    pause = threading.Event()
    while not (pathlib.Path(__file__).parent / "go").exists():
        pause.wait(0.02)
    raise RuntimeError("it went on")


def says_who():
    print(os.getpid(), os.getppid(), flush=True)
    threading.Event().wait()


def share():
    group = pathlib.Path("/proc/self/autogroup")
    print(f"session nice {group.read_text().split()[-1] if group.exists() else os.nice(0)}", flush=True)
    print(f"nice {os.nice(0)}, cpus {len(os.sched_getaffinity(0))}", flush=True)
    raise RuntimeError("share")


def disk_full():
    raise OSError(errno.ENOSPC, "No space left on device")


LEARNERS = {
    "patient": Own(patient),
    "says_who": Own(says_who),
    "share": Own(share),
    "disk_full": Own(disk_full),
    "good": Torch(net, epochs=4, batch_size=64, lr=0.02),
    "chosen": Torch(net, epochs=4, batch_size=64, lr=0.02),
    "deep": Torch(deep, epochs=4, batch_size=64, lr=0.02),
    "deaf": Torch(deaf),
    "nan": Torch(nan),
    "killed": Own(killed),
    "segfault": Own(lambda: ctypes.string_at(0)),
    "exit": Own(lambda: os._exit(3)),
    "forever": Own(lambda: threading.Event().wait()),
    "greedy": Own(lambda: bytearray(1 << 40)),
    "raises": Own(lambda: 1 / 0),
    "sys_exit": Own(lambda: sys.exit("enough")),
    "none": None,
}


def load(name):
    labels, events = Topic("arrivals", id="id", time="at"), Topic("flights", id="id", time="at")
    return Pipeline(
        name="flights",
        events=events,
        features=[Number("distance"), Number("wind", nullable=True), Category("carrier")],
        label=Binary(labels, "late", within="36h", if_absent="drop"),
        learner=LEARNERS[name],
        gate=Gate("roc_auc", max_loss=0.005),
        **(CHOSEN if name == "chosen" else {"train_on": Last("8w", holdout="5d")}),
    )


CHOSEN = {
    "train_on": Rehearsal("10d", 200, holdout="1d"),
    "anchor": Anchor(rows=60),
    "importance": LabelDelay(),
    "balance": Balance(positives=0.3, by="undersampling"),
}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A module of pipelines and a directory with what was served and labelled."""
    path = tmp_path_factory.mktemp("world")
    (path / "trainer_pipelines.py").write_text(PIPELINES)
    random = np.random.default_rng(0)
    distance, wind = random.normal(900, 200, ROWS), random.normal(10, 4, ROWS)
    ids = [f"flight{i}" for i in range(ROWS)]
    served = pa.RecordBatch.from_pydict(
        {
            "id": pa.array(ids),
            "event_time": pa.array([START + i * HOUR for i in range(ROWS)], pa.timestamp("ms", "UTC")),
            "partition": pa.array([i % 3 for i in range(ROWS)], pa.int32()),
            "offset": pa.array([i // 3 for i in range(ROWS)], pa.int64()),
            "version": pa.array([0] * ROWS, pa.int32()),
            "score": pa.array([0.5] * ROWS),
            "distance": pa.array(distance),
            "wind": pa.array(np.where(random.random(ROWS) < 0.1, np.nan, wind), from_pandas=True),
            "carrier": pa.array(random.choice(["UA", "AA"], ROWS)),
        }
    )
    late = (distance + random.normal(0, 100, ROWS) > 900).astype(float)
    times = pa.array([START + (i + 2) * HOUR for i in range(ROWS)], pa.int64())
    labels = pa.RecordBatch.from_pydict({"id": pa.array(ids), "time": times, "value": pa.array(late)})
    for name, batch in (("served-0", served.slice(0, 300)), ("served-1", served.slice(300)), ("labels", labels)):
        with pa.ipc.new_stream(path / f"{name}.arrow", batch.schema) as stream:
            stream.write_batch(batch)
    return path


@pytest.fixture(scope="module")
def trainer():
    with Trainer() as trainer:
        yield trainer


@pytest.fixture
def request_for(world, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(world))

    def request(learner, out="out", **more):
        return RunRequest(
            run="r1",
            loader="trainer_pipelines:load",
            pipeline=learner,
            at_ms=START + ROWS * HOUR,
            data=str(world),
            out=str(tmp_path / out),
            cache=str(tmp_path / "cache"),
            import_path=(str(world),),
            **more,
        )

    return request


def test_a_run_gives_a_model_a_verdict_and_where_both_come_from(trainer, request_for, tmp_path):
    stages = []
    result = trainer.start(request_for("good", snapshots=str(tmp_path / "snapshots"))).wait(
        on_progress=lambda stage, facts: stages.append((stage, facts))
    )
    assert result.promote
    assert "against 0.5 of version 0" in result.verdict
    assert result.metrics["roc_auc"] > 0.8
    assert (result.rows, result.holdout_rows, result.counts["joined"], result.counts["open"]) == (680, 119, 799, 1)
    assert result.trained_from == "2013-07-04T00:00:00Z"
    assert result.null_shares == {"wind": pytest.approx(0.1, abs=0.05)}
    assert result.libraries.keys() >= {"torch", "onnx", "onnxruntime", "numpy"}
    assert result.seconds.keys() == {"load", "join", "check", "train", "evaluate"}
    assert [stage for stage, facts in stages if not facts] == ["load", "join", "check", "train", "evaluate"]
    assert [facts["epoch"] for _, facts in stages if "epoch" in facts] == [1, 2, 3, 4]
    written = msgspec.json.decode((tmp_path / "out" / "result.json").read_bytes(), type=RunResult)
    assert written == result
    assert len((tmp_path / "out" / "model.onnx").read_bytes()) == result.onnx_bytes
    assert [path.stem for path in (tmp_path / "snapshots").iterdir()] == [result.dataset_sha256[:32]]


def test_the_same_data_and_seed_give_the_same_bytes_in_any_process(trainer, request_for, tmp_path):
    first = trainer.start(request_for("good", "first")).wait()
    again = train_candidate(request_for("good", "again"))
    assert again.dataset_sha256 == first.dataset_sha256
    assert (tmp_path / "again/model.onnx").read_bytes() == (tmp_path / "first/model.onnx").read_bytes()


@pytest.mark.parametrize("name", ["good", "chosen"])
def test_a_dataset_larger_than_memory_trains_to_the_same_bytes(request_for, tmp_path, world, monkeypatch, name):
    memory = train_candidate(request_for(name, "memory"))
    monkeypatch.setattr("headrace.trainer.ready.memory_left", lambda: 200_000)
    monkeypatch.delattr("headrace.trainer.ready.join")  # the one in memory
    monkeypatch.setattr("headrace.trainer.torch_training._BLOCK_ROWS", 96)
    champion = Champion(version=1, onnx=str(tmp_path / "memory/model.onnx"))
    disk = train_candidate(request_for(name, "disk", champion=champion))
    assert (tmp_path / "disk/model.onnx").read_bytes() == (tmp_path / "memory/model.onnx").read_bytes()
    assert disk.champion_metrics == memory.metrics
    for field in (
        "dataset_sha256",
        "anchor_sha256",
        "findings",
        "hyperparameters",
        "rows",
        "holdout_rows",
        "trained_from",
        "counts",
        "lacking",
        "null_shares",
        "curves",
    ):
        assert getattr(disk, field) == getattr(memory, field), field
    assert not list(world.glob("scratch-*"))
    if name == "chosen":
        assert memory.rows == 200 + 9 * 24 - 20  # of ten fresh days one is held out; 20 of the draw are the anchor's
        assert memory.numbers["anchor_rows"] == 60
        assert int(memory.hyperparameters["balance"].split()[1]) < memory.rows
        assert memory.hyperparameters["prior_odds"] < 1
        given = champion_of(1, tmp_path / "memory/model.onnx", None, memory)
        assert given.positives == memory.hyperparameters["balance_positives"]
        assert (given.trained_through, given.anchor_sha256) == (memory.trained_through, memory.anchor_sha256)


def test_the_champion_is_judged_by_its_own_schema_on_the_same_rows(trainer, request_for, tmp_path, world):
    first = trainer.start(request_for("good", "first")).wait()
    champion = Champion(version=4, onnx=str(tmp_path / "first/model.onnx"))
    second = trainer.start(request_for("good", "second", champion=champion)).wait()
    assert second.champion_metrics == first.metrics
    assert second.numbers["gain"] == 0
    assert second.verdict.endswith("of version 4: not worse by more than 0.005")


def test_a_network_that_cannot_learn_one_batch_fails_where_that_is_asked_for(request_for):
    with pytest.raises(RunFailed, match="not_learning: the network does not learn one batch by heart"):
        train_candidate(request_for("deaf", sanity=True))
    said = train_candidate(request_for("deep", sanity=True)).findings[0]
    assert (said.name, said.severity) == ("sanity", "note")
    findings = train_candidate(request_for("deaf")).findings
    assert [found.name for found in findings] == ["worse_than_baseline"]


@pytest.mark.parametrize(
    ("learner", "reason", "detail"),
    [
        ("nan", "loss_not_finite", "the loss is nan in step 1"),
        ("killed", "killed", "ended by SIGKILL from outside, as for want of memory; last words: about to die"),
        ("segfault", "crashed", "ended by SIGSEGV"),
        ("exit", "crashed", "ended with status 3"),
        ("greedy", "memory", "more than 1024 MB"),
        ("raises", "learner_raised", "ZeroDivisionError at trainer_pipelines.py"),
        ("sys_exit", "raised", "SystemExit: enough"),
        ("none", "no_learner", "give it one"),
        ("absent", "pipeline_unreadable", "KeyError: 'absent'"),
    ],
)
def test_every_accident_is_a_failed_run_with_a_reason(trainer, request_for, learner, reason, detail):
    with pytest.raises(RunFailed) as failure:
        trainer.start(request_for(learner), RunLimits(memory_mb=1024)).wait()
    assert failure.value.reason == reason
    assert detail in failure.value.detail


def test_a_run_that_takes_too_long_is_ended(trainer, request_for):
    with pytest.raises(RunFailed, match=r"timeout: ended after 1 s"):
        trainer.start(request_for("forever"), RunLimits(time="1s")).wait()


def test_a_run_may_be_waited_for_in_slices_and_cancelled(trainer, request_for):
    run = trainer.start(request_for("forever"))
    training = threading.Event()
    assert run.wait(0) is None

    def on_progress(stage, _facts):
        if stage == "train":
            training.set()
            run.cancel()

    with pytest.raises(RunFailed, match="cancelled"):
        run.wait(on_progress=on_progress)
    assert training.is_set()


def test_runs_go_on_side_by_side_and_one_that_dies_leaves_the_other_alone(trainer, request_for):
    good, killed = trainer.start(request_for("good", "a")), trainer.start(request_for("killed", "b"))
    with pytest.raises(RunFailed, match="killed"):
        killed.wait()
    assert good.wait().promote


def test_a_forkserver_that_died_is_started_again(trainer, request_for):
    trainer.warm_up()
    os.kill(trainer._process.pid, signal.SIGKILL)
    trainer._process.wait()
    assert trainer.start(request_for("good")).wait().promote


def test_prints_of_users_code_go_to_the_runs_log(trainer, request_for, tmp_path, capfd):
    with pytest.raises(RunFailed):
        trainer.start(request_for("killed")).wait()
    assert capfd.readouterr().out == ""
    assert "about to die" in (tmp_path / "out" / "run.log").read_text()


def test_the_result_is_plain_json(trainer, request_for, tmp_path):
    trainer.start(request_for("good")).wait()
    assert json.loads(Path(tmp_path / "out/result.json").read_text())["promote"] is True


LEADER = """
import sys
import msgspec
from headrace.models.limits import RunLimits
from headrace.trainer.messages import RunRequest
from headrace.trainer.process import Trainer

trainer = Trainer(("headrace.trainer.run",), detached=sys.argv[2] == "detached")
run = trainer.start(msgspec.json.decode(sys.argv[1], type=RunRequest), RunLimits(time="1m"))
run.wait(on_progress=lambda stage, facts: print(stage, flush=True))
"""


@pytest.fixture
def leader(world):
    """A process that starts a run and waits for it, up to its kill."""
    made = []

    def start(request, detached):
        command = [sys.executable, "-c", LEADER, msgspec.json.encode(request).decode(), detached]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(world), *sys.path])}
        made.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True))
        for line in made[-1].stdout:
            if line == "train\n":
                break
        made[-1].kill()
        made[-1].wait()

    yield start
    for process in made:
        process.stdout.close()


def test_a_detached_run_survives_the_kill_of_whoever_started_it_and_is_taken_up(leader, request_for, tmp_path, world):
    (world / "go").unlink(missing_ok=True)
    leader(request_for("patient"), "detached")
    folder = tmp_path / "out"
    assert is_worked_on(folder)
    assert not has_outcome(said(folder))
    (world / "go").touch()
    with pytest.raises(RunFailed, match=r"learner_raised: RuntimeError.*it went on"):
        Run(folder).wait()
    wait_for("its end", lambda: not is_worked_on(folder))


def test_another_run_ends_with_whoever_started_it(leader, request_for, tmp_path):
    leader(request_for("forever"), "leashed")
    wait_for("its end", lambda: not is_worked_on(tmp_path / "out"))
    with pytest.raises(RunFailed, match="gone"):
        Run(tmp_path / "out").wait()


def test_a_detached_run_is_stopped_by_whoever_finds_its_folder(leader, request_for, tmp_path):
    leader(request_for("forever"), "detached")
    Run(tmp_path / "out").cancel()
    wait_for("its end", lambda: not is_worked_on(tmp_path / "out"))


def test_a_detached_run_that_nobody_takes_up_ends_by_its_time_limit(request_for, tmp_path):
    with Trainer(("headrace.trainer.run",), detached=True) as trainer:
        trainer.start(request_for("forever"), RunLimits(time="3s"))
        wait_for("its first word", lambda: said(tmp_path / "out"))
    wait_for("its end", lambda: not is_worked_on(tmp_path / "out"))
    assert [one.reason for one in said(tmp_path / "out") if isinstance(one, Failed)] == ["timeout"]


def test_a_worker_does_not_outlive_its_supervisor(leader, request_for, tmp_path):
    leader(request_for("says_who"), "detached")
    numbers = wait_for("its word", lambda: (tmp_path / "out" / "run.log").read_text().split())
    worker, supervisor = map(int, numbers[:2])
    os.kill(supervisor, signal.SIGKILL)
    wait_for("the worker's end", lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == "zombie")
    with pytest.raises(RunFailed, match="gone"):
        Run(tmp_path / "out").wait()


def test_no_two_processes_train_one_run(trainer, request_for):
    run = trainer.start(request_for("forever"))
    with pytest.raises(RunFailed, match="busy"):
        trainer.start(request_for("forever"))
    run.cancel()


def test_a_full_disk_is_the_machines_fault_wherever_the_learner_meets_it(trainer, request_for):
    with pytest.raises(RunFailed, match=r"machine: OSError.*No space left") as failure:
        trainer.start(request_for("disk_full")).wait()
    assert is_tried_again(failure.value)


def test_a_run_has_its_share_of_the_machine(trainer, request_for, tmp_path):
    limits = RunLimits(cpus=1, nice=11)
    with pytest.raises(RunFailed, match=r"learner_raised: RuntimeError.*share"):
        trainer.start(request_for("share"), limits).wait()
    said = (tmp_path / "out" / "run.log").read_text()
    assert "session nice 11\n" in said, "what it takes from other sessions' processes"
    assert "\nnice 11, cpus 1\n" in said


def test_an_attempt_keeps_the_logs_of_those_before(trainer, request_for, tmp_path):
    for _ in range(2):
        with pytest.raises(RunFailed):
            trainer.start(request_for("killed")).wait()
    assert [path.name for path in logs(tmp_path / "out")] == ["run-1.log", "run.log"]
    assert all("about to die" in path.read_text() for path in logs(tmp_path / "out"))


def test_epochs_say_how_long_the_training_still_takes(trainer, request_for):
    heard = []
    trainer.start(request_for("good")).wait(on_progress=lambda _, facts: heard.append(facts))
    estimates = [facts["eta_seconds"] for facts in heard if "epoch" in facts]
    assert len(estimates) == 4
    assert estimates[-1] == 0
    assert all(estimate > 0 for estimate in estimates[:-1])
