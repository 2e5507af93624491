"""What training gives the graph: the same scores as torch, for every kind of row."""

import numpy as np
import onnx
import pytest
import torch
from sklearn.metrics import roc_auc_score

from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.protocols import Dataset, TrainContext
from headrace.models.schema import Schema
from headrace.models.session import Session
from headrace.trainer import export as exporting
from headrace.trainer.encoding import CLIP, fit
from headrace.trainer.export import _forward_of, export
from headrace.trainer.head import Head
from headrace.trainer.learners import Torch
from headrace.trainer.parity import parity

NUMBER, NULLABLE = Column("distance", "number"), Column("wind", "number", nullable=True)
CATEGORY, TAIL = Column("carrier", "category"), Column("tail", "category", nullable=True)
IMAGE = Column("image", "tensor", shape=(2, 3))
FLAT = Schema((NUMBER, CATEGORY, NULLABLE, TAIL))
ALL = Schema((NUMBER, CATEGORY, NULLABLE, TAIL, IMAGE))


class Net(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.embeddings = torch.nn.ModuleList(torch.nn.Embedding(size, 4) for size in inputs.categories)
        width = inputs.numbers + 4 * len(inputs.categories) + sum(int(np.prod(shape)) for shape in inputs.tensors)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(width, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2)
        )
        self.last = torch.nn.Linear(16, 1)

    def forward(self, numbers, categories, *tensors):
        embedded = [embedding(categories[:, place]) for place, embedding in enumerate(self.embeddings)]
        flat = [tensor.flatten(1) for tensor in tensors]
        return self.last(self.body(torch.cat([numbers, *embedded, *flat], 1))).squeeze(1)


def rows(count=600, task="binary", seed=0):
    random = np.random.default_rng(seed)
    distance = random.normal(1000, 300, count)
    wind = np.where(random.random(count) < 0.2, np.nan, random.normal(10, 5, count))
    carrier = np.array(["UA", "AA", "DL", "é"], object)[random.integers(0, 4, count)]
    tail = np.array(["N1", "N2", None], object)[random.integers(0, 3, count)]
    image = random.normal(size=(count, 2, 3)).astype(np.float32)
    signal = (distance - 1000) / 300 + (carrier == "UA") + image[:, 0, 0] + random.normal(size=count) / 2
    labels = (signal > 0).astype(float) if task == "binary" else 5000 + 300 * signal
    columns = {"distance": distance, "wind": wind, "carrier": carrier, "tail": tail, "image": image}
    return Dataset(columns=columns, labels=labels, times=np.arange(count), task=task)


def learner(build=Net, **settings):
    return Torch(build, **({"epochs": 6, "batch_size": 64} | settings))


def context(path, schema=ALL, **more):
    return TrainContext(schema=schema, cache=path, **more)


# ── encoding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_standardised_and_missing_ones_are_the_mean_with_a_flag():
    columns = {"distance": np.array([1.0, 3.0, 1e30]), "wind": np.array([np.nan, 4.0, 4.0])}
    encoder = fit({**columns, "distance": np.array([1.0, 3.0, 2.0])}, Schema((NUMBER, NULLABLE)))
    encoded = encoder.transform(columns, 3)
    assert encoder.inputs.numbers == 3
    assert encoded.numbers[:, 1].tolist() == [0, 0, 0]  # no spread: nothing is divided by it
    assert encoded.numbers[:, 2].tolist() == [1, 0, 0]
    assert encoded.numbers[:, 0] == pytest.approx([-(1.5**0.5), 1.5**0.5, CLIP])


def test_vocabularies_are_sorted_and_index_0_is_unknown_missing_and_empty():
    values = np.array(["b", None, "a", "", "b"], object)
    encoder = fit({"tail": values}, Schema((TAIL,)))
    assert encoder.vocabularies == (("a", "b"),)
    assert encoder.inputs.categories == (3,)
    seen = np.array(["a", "b", "never", None, ""], object)
    assert encoder.transform({"tail": seen}, 5).categories[:, 0].tolist() == [1, 2, 0, 0, 0]


def test_the_order_of_rows_does_not_change_a_vocabulary():
    values = rows().columns["carrier"]
    schema = Schema((CATEGORY,))
    assert fit({"carrier": values}, schema).vocabularies == fit({"carrier": values[::-1]}, schema).vocabularies


def test_a_column_without_any_value_is_encoded_all_the_same():
    encoder = fit({"wind": np.full(4, np.nan), "tail": np.full(4, None)}, Schema((NULLABLE, TAIL)))
    encoded = encoder.transform({"wind": np.full(4, np.nan), "tail": np.full(4, None)}, 4)
    assert encoded.numbers.tolist() == [[0, 1]] * 4
    assert encoded.categories.tolist() == [[0]] * 4


# ── training and the graph ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_trained_graph_serves_raw_columns_and_has_learned_something(tmp_path):
    trained = learner(epochs=12, lr=0.01).train(rows(), context(tmp_path))
    test = rows(seed=1)
    scores = Session(trained.onnx, ALL).predict(test.columns, len(test))
    assert roc_auc_score(test.labels, scores) > 0.9
    assert ((scores > 0) & (scores < 1)).all()
    assert trained.hyperparameters["seed"] == 7
    assert len(trained.curves["validation_loss"]) == len(trained.curves["loss"]) > 1


def test_a_regression_answers_in_the_labels_own_unit(tmp_path):
    trained = learner(epochs=15, lr=0.01).train(rows(task="regression"), context(tmp_path))
    test = rows(task="regression", seed=1)
    scores = Session(trained.onnx, ALL).predict(test.columns, len(test))
    assert np.sqrt(np.mean((scores - test.labels) ** 2)) < 0.6 * test.labels.std()


def test_rows_that_training_never_saw_get_finite_scores_alone_and_together(tmp_path):
    session = Session(learner().train(rows(), context(tmp_path)).onnx, ALL)
    strange = {
        "distance": np.array([np.nan, 1e12, -1e12]),
        "wind": np.array([np.nan, np.inf, 3.0]),
        "carrier": np.array(["ZZ", "", "UA"], object),
        "tail": np.array([None, "N999", "日本"], object),
        "image": np.zeros((3, 2, 3), np.float32),
    }
    together = session.predict(strange, 3)
    assert np.isfinite(together).all()
    alone = [session.predict({name: column[[row]] for name, column in strange.items()}, 1)[0] for row in range(3)]
    assert together == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    "schema", [Schema((NUMBER,)), Schema((TAIL,)), Schema((IMAGE,)), Schema((NULLABLE, IMAGE)), FLAT]
)
def test_a_schema_may_lack_any_kind_of_column(tmp_path, schema):
    trained = learner().train(rows(), context(tmp_path, schema))
    assert Session(trained.onnx, schema).predict(rows(5).columns, 5).shape == (5,)


def test_the_same_rows_and_seed_give_the_same_graph_bit_by_bit_and_another_seed_another(tmp_path):
    first = learner().train(rows(), context(tmp_path / "one")).onnx
    torch.rand(3)  # whatever else draws random numbers meanwhile
    assert learner().train(rows(), context(tmp_path / "two")).onnx == first
    assert learner().train(rows(), context(tmp_path / "one")).onnx == first  # and with the template of the first
    assert learner(seed=8).train(rows(), context(tmp_path / "one")).onnx != first


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    learner(epochs=1).train(rows(), context(tmp_path))
    assert torch.equal(torch.rand(2), expected)


def test_progress_and_losses_are_told_per_epoch(tmp_path):
    facts = []
    learner(epochs=3).train(rows(), context(tmp_path, progress=lambda given: facts.append(dict(given))))
    assert [given["epoch"] for given in facts] == [1, 2, 3]
    assert {"loss", "validation_loss"} < facts[0].keys()


def test_training_stops_when_the_validation_loss_no_longer_falls(tmp_path):
    noise = rows()
    random = np.random.default_rng(5)
    noise = Dataset(
        columns=noise.columns, labels=random.integers(0, 2, 600).astype(float), times=noise.times, task="binary"
    )
    trained = learner(epochs=60, lr=0.05, patience=2).train(noise, context(tmp_path))
    assert len(trained.curves["loss"]) < 60


# ── templates ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_takes_the_first_ones_graph_as_its_template(tmp_path, monkeypatch):
    learner().train(rows(), context(tmp_path))
    fresh = learner(seed=8).train(rows(), context(tmp_path / "other")).onnx
    monkeypatch.setattr(exporting, "_export_core", lambda *_: pytest.fail("exported again"))
    assert learner(seed=8).train(rows(), context(tmp_path)).onnx == fresh
    assert len(list(tmp_path.glob("*.onnx"))) == 1


def test_a_new_category_is_another_architecture(tmp_path):
    learner(epochs=1).train(rows(), context(tmp_path))
    more = rows()
    more.columns["carrier"][0] = "new"
    learner(epochs=1).train(more, context(tmp_path))
    assert len(list(tmp_path.glob("*.onnx"))) == 2


class Hidden(torch.nn.Module):
    """Holds a number outside of its state: a template of one instance is wrong for another."""

    bias = 0.0

    def __init__(self, inputs):
        super().__init__()
        self.last = torch.nn.Linear(inputs.numbers, 1)
        self.hidden = torch.tensor([Hidden.bias])

    def forward(self, numbers, *_others):
        return self.last(numbers).squeeze(1) + self.hidden


def test_what_a_template_cannot_hold_is_exported_afresh(tmp_path, monkeypatch):
    schema = Schema((NUMBER,))
    learner(Hidden).train(rows(), context(tmp_path, schema))
    monkeypatch.setattr(Hidden, "bias", 3.0)
    trained = learner(Hidden).train(rows(), context(tmp_path, schema))
    again = learner(Hidden).train(rows(), context(tmp_path / "fresh", schema))
    assert trained.onnx == again.onnx


def test_a_graph_that_differs_from_torch_is_a_failed_run(tmp_path):
    columns, schema = rows().columns, Schema((NUMBER, CATEGORY))
    encoder = fit(columns, schema)
    module = Net(encoder.inputs).eval()
    head, network = Head(task="binary"), _forward_of(module)
    graph = export(module, encoder, head, columns, tmp_path)
    assert parity(network, encoder, graph, columns, head) < 1e-6
    wrong = onnx.load_from_string(graph)
    bias = next(tensor for tensor in wrong.graph.initializer if tensor.name == "last.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name))
    with pytest.raises(RunFailed, match="parity"):
        parity(network, encoder, wrong.SerializeToString(), columns, head)


class OnlyTwoRows(torch.nn.Module):
    """Fixes the number of rows while it is traced."""

    def __init__(self, inputs):
        super().__init__()
        self.last = torch.nn.Linear(inputs.numbers, 1)

    def forward(self, numbers, *_others):
        count = int(numbers.shape[0])
        return self.last(numbers).squeeze(1) + torch.zeros(count)


def test_a_network_that_fixes_the_batch_size_is_a_failed_run(tmp_path):
    with pytest.raises(RunFailed, match="parity"):
        learner(OnlyTwoRows).train(rows(), context(tmp_path, Schema((NUMBER,))))


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Nan(Net):
    def forward(self, *inputs):
        return super().forward(*inputs) * float("nan")


class Column2(Net):
    def forward(self, *inputs):
        return super().forward(*inputs).unsqueeze(1)


class Raises(Net):
    def forward(self, *_inputs):
        raise ValueError("no such layer")


def broken(inputs):
    raise KeyError("width")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Nan, "loss_not_finite"),
        (Column2, r"wrong_shape: .*squeeze"),
        (Raises, "learner_raised: .*no such layer"),
        (broken, "learner_raised: .*broken: KeyError"),
        ("no_such_module:build", "learner_raised: no_such_module:build: ModuleNotFoundError"),
        (lambda _inputs: None, "expected a torch.nn.Module, got NoneType"),
    ],
)
def test_what_goes_wrong_in_a_network_is_a_failed_run_that_says_it(tmp_path, build, reason):
    with pytest.raises(RunFailed, match=reason):
        learner(build).train(rows(), context(tmp_path))
