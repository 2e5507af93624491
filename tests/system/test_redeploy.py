"""A changed pipeline file, redeployed, just works: the old version serves on, the new column is logged, then learnt."""

import time

import msgspec
from kit import produce, read_all, wait_for

from headrace.infra.names import RUNS, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.processes.together import running
from headrace.infra.services.changes.ask import requested
from headrace.infra.services.versions import catalog
from headrace.infra.topics import apply
from headrace.models.records import Finished, RunRecord
from headrace.streams.served import decode_served

HEAD = """
from headrace import Binary, Category, Gate, Last, Number, Pipeline, Topic, Torch

clicks = Topic("clicks", id="id", time="at")
bought = Topic("bought", id="id", time="at")
"""
PIPELINE = """
shop = Pipeline(
    name="shop",
    events=clicks,
    features=[{features}],
    label=Binary(bought, "yes", within="1h", if_absent="drop"),
    learner=Torch("{net}:build", epochs=1, batch_size=64),
    train_on=Last("1d", holdout="1h", min_rows=20),
    gate=Gate("roc_auc", max_loss=1.0),
)
"""
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, numbers, categories):
        super().__init__()
        self.embed = torch.nn.ModuleList([torch.nn.Embedding(size, 2) for size in categories])
        self.out = torch.nn.Linear(numbers + 2 * len(categories), 1)

    def forward(self, numbers, categories):
        columns = [numbers] + [embed(categories[:, i]) for i, embed in enumerate(self.embed)]
        return self.out(torch.cat(columns, 1)).squeeze(1)

def build(schema):
    return Net(schema.numbers, schema.categories)
"""


def feed(settings, names, first, count, now):
    """Events a minute apart up to now, half of them with a label, and what waits until all are predicted."""
    events, labels = [], []
    for number in range(first, first + count):
        at = now - (first + count - number) * 20_000
        row = {
            "id": f"c{number}",
            "at": at,
            "price": float(number % 10),
            "old": 1.0,
            "country": "de" if number % 2 else "fr",
        }
        events.append({"value": msgspec.json.encode(row)})
        labels.append({"value": msgspec.json.encode({"id": f"c{number}", "at": at + 1_000, "yes": number % 10 > 4})})
    produce(settings, names.events, events)
    topic = names.topics.predictions
    wait_for("every event to be predicted", lambda: len(read_all(settings, topic)) >= first + count)
    produce(settings, names.labels, labels)


def train(settings, names, now):
    run = requested(settings, names, at=now, by="test").run

    def ended():
        records = [
            msgspec.json.decode(message.value(), type=RunRecord) for message in read_all(settings, names.of(RUNS))
        ]
        return next((record for record in records if isinstance(record, Finished) and record.run == run), None)

    return wait_for("the training to end", ended)


def write(folder, stem, features):
    (folder / f"{stem}_net.py").write_text(NET)
    file = folder / f"{stem}.py"
    file.write_text(HEAD + PIPELINE.format(features=features, net=f"{stem}_net"))
    return read_pipelines(str(file))


def test_a_version_serves_by_its_manifest_until_one_knows_the_new_file(settings, tmp_path):
    before = write(tmp_path, "shop_before", 'Number("price"), Number("old")')
    after = write(tmp_path, "shop_after", 'Number("price"), Category("country", nullable=True)')
    (pipeline,) = before.pipelines.values()
    names = Names(settings.prefix, pipeline)
    apply(settings, pipeline)
    now = time.time_ns() // 1_000_000

    with running(settings, [before], clock=False):
        feed(settings, names, 0, 400, now)
        first = train(settings, names, now)
        assert (first.outcome, first.version) == ("promoted", 1), first

    with running(settings, [after], clock=False):
        feed(settings, names, 400, 400, now)
        second = train(settings, names, now)
        assert (second.outcome, second.version) == ("promoted", 2), second
        feed(settings, names, 800, 10, now)

    predictions = [msgspec.json.decode(message.value()) for message in read_all(settings, names.topics.predictions)]
    by_version = {version: {p["source"][2] for p in predictions if p["version"] == version} for version in (0, 1, 2)}
    assert len(predictions) == 810
    assert by_version[0] == set(range(400))  # the file that made version 1 is gone by then: its manifest is not
    assert set(range(400, 790)) <= by_version[1]
    assert by_version[2] <= set(range(790, 810))
    assert catalog.version(settings, names, 2).manifest.schema.columns[1].name == "country"
    logged = [decode_served(message.value()) for message in read_all(settings, names.topics.served)]
    served_by_1 = [batch for batch in logged if batch["version"][0].as_py() == 1]
    assert all({"price", "old", "country"} <= set(batch.schema.names) for batch in served_by_1)
    assert all(batch["country"].null_count == 0 for batch in served_by_1)
