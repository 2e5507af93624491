"""A pipeline that starts with a model of its user's, and retrains by itself when enough labels have come."""

import time

import msgspec
from kit import linear, produce, read_all, wait_for

from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.together import running
from headrace.infra.topics import apply
from headrace.models.records import Finished, Promoted, RegistryRecord, RunRecord, Switched

NET = """
import torch

class Line(torch.nn.Module):
    def __init__(self, numbers):
        super().__init__()
        self.out = torch.nn.Linear(numbers, 1)

    def forward(self, numbers, categories):
        return self.out(numbers).squeeze(1)

def build(schema):
    return Line(schema.numbers)
"""
FILE = """
from headrace import Binary, Gate, Last, NewLabels, Number, Pipeline, Topic, Torch

line = Pipeline(
    name="line",
    events=Topic("clicks", id="id", time="at"),
    features=[Number("x"), Number("y")],
    label=Binary(Topic("bought", id="id", time="at"), "yes", within="1h", if_absent="drop"),
    initial="start.onnx",
    learner=Torch("line_net:build", epochs=1, batch_size=64),
    train_on=Last("1d", holdout="1h", min_rows=20),
    retrain=[NewLabels(300)],
    gate=Gate("roc_auc", max_loss=1.0),
)
"""


def records(settings, topic, kind):
    return [msgspec.json.decode(message.value(), type=kind) for message in read_all(settings, topic)]


def test_version_1_is_the_users_and_version_2_comes_when_300_labels_have(settings, tmp_path):
    (tmp_path / "line_net.py").write_text(NET)
    (tmp_path / "line.py").write_text(FILE)
    (tmp_path / "start.onnx").write_bytes(linear([1.0, 0.0]))
    file = read_pipelines(str(tmp_path / "line.py"))
    names = Names(settings.prefix, one_of(file, "line.py"))
    apply(settings, names.pipeline)
    now = time.time_ns() // 1_000_000
    times = [now - (400 - n) * 20_000 for n in range(400)]
    events = [{"id": f"c{n}", "at": times[n], "x": float(n % 10), "y": 1.0} for n in range(400)]
    labels = [{"id": f"c{n}", "at": times[n] + 1_000, "yes": n % 10 > 4} for n in range(400)]

    with running(settings, [file]):
        history = names.topics.history
        wait_for("version 1", lambda: any(r.version == 1 for r in records(settings, history, Switched)))
        produce(settings, names.events, [{"value": msgspec.json.encode(event)} for event in events])
        wait_for("all predictions", lambda: len(read_all(settings, names.topics.predictions)) == 400)
        produce(settings, names.labels, [{"value": msgspec.json.encode(label)} for label in labels])

        def ended():
            return [r for r in records(settings, names.of(RUNS), RunRecord) if isinstance(r, Finished)]

        wait_for("a training that nobody asked for", lambda: any(r.outcome == "promoted" for r in ended()))

    predictions = [msgspec.json.decode(message.value()) for message in read_all(settings, names.topics.predictions)]
    assert {prediction["version"] for prediction in predictions} == {1}
    assert predictions[3]["prediction"] > predictions[1]["prediction"] > 0.7  # sigmoid(3), sigmoid(1)
    published = [r for r in records(settings, names.of(REGISTRY), RegistryRecord) if isinstance(r, Promoted)]
    assert [(r.version, r.seq) for r in published] == [(1, 2), (2, 4)]
    (run,) = [r for r in ended() if r.outcome != "not_due"]
    assert run.version == 2
