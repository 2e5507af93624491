"""A training that goes on from the champion, or says why it does not; rows that count more than others."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from kit import linear
from sklearn.metrics import log_loss
from test_trainer_export import ALL, FLAT, Net, context, learner, rows

from headrace.models.features import Column, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import ChampionGraph
from headrace.models.reweighting import Balance
from headrace.models.schema import Schema
from headrace.models.session import Session
from headrace.models.windows import Anchor, Last
from headrace.trainer.learners import Online
from headrace.trainer.messages import Champion
from headrace.trainer.run import unfit


def champion(graph, version=12, schema=ALL):
    return ChampionGraph(version=version, onnx=graph, schema=schema)


def warm(path, given, dataset=None, schema=ALL, **settings):
    return learner(warm_start=True, **settings).train(
        rows(seed=1) if dataset is None else dataset, context(path, schema, champion=given)
    )


def began(trained):
    return trained.hyperparameters["warm_start"]


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_warm_training_begins_where_the_champion_is(tmp_path, task):
    old = learner(epochs=12, lr=0.01).train(rows(task=task), context(tmp_path))
    dataset = rows(200, task, seed=1)
    going_on = warm(tmp_path, champion(old.onnx), dataset, epochs=1, lr=1e-9)
    assert began(going_on) == "version 12"
    before, after = (Session(made.onnx, ALL).predict(dataset.columns, 200) for made in (old, going_on))
    assert np.abs(after - before).mean() < 0.05 * before.std()  # the running means of its BatchNorm move
    assert began(learner().train(dataset, context(tmp_path, champion=champion(old.onnx)))) is False


def test_few_new_rows_are_learnt_better_from_a_champion_than_from_scratch(tmp_path):
    old = learner(epochs=12, lr=0.01).train(rows(3_000), context(tmp_path))
    few, test = rows(150, seed=1), rows(2_000, seed=2)
    losses = {}
    for name, made in {
        "warm": warm(tmp_path, champion(old.onnx), few, epochs=2),
        "scratch": learner(epochs=2).train(few, context(tmp_path)),
    }.items():
        losses[name] = log_loss(test.labels, Session(made.onnx, ALL).predict(test.columns, len(test)))
    assert losses["warm"] < 0.8 * losses["scratch"]


def test_the_same_champion_rows_and_seed_give_the_same_graph(tmp_path):
    old = champion(learner().train(rows(), context(tmp_path)).onnx)
    assert warm(tmp_path / "one", old).onnx == warm(tmp_path / "two", old).onnx


class Wider(Net):
    """Another network on the same inputs."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.last = torch.nn.Linear(16, 1, bias=False)


def poisoned(graph):
    model = onnx.load_from_string(graph)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "last.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([np.nan], np.float32), bias.name))
    return model.SerializeToString()


def outside(graph):
    model = onnx.load_from_string(graph)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    return model.SerializeToString()


def test_what_is_no_start_is_a_training_from_scratch_that_says_why(tmp_path):
    old = learner().train(rows(), context(tmp_path)).onnx
    strange = rows(seed=1)
    strange.columns["carrier"][:100] = "new"
    others = Schema((Column("distance", "number"),))
    for given, dataset, said in [
        (None, None, "no version serves yet"),
        (champion(old, schema=FLAT), None, "version 12 has other features"),
        (champion(b"rubbish"), None, "not made by one of headrace's learners"),
        (champion(linear([0.0] * 2)), None, "not made by one of headrace's learners"),
        (champion(outside(old)), None, "not made by one of headrace's learners: tensor '.*' has its bytes elsewhere"),
        (champion(poisoned(old)), None, "another network: expected 'last.bias'"),
        (champion(old), strange, "too old: 16.7% of the values of 'carrier' are new to it"),
    ]:
        made = warm(tmp_path, given, dataset)
        assert began(made).startswith("from scratch: ")
        assert re.search(said, began(made)), began(made)
        assert made.onnx == learner().train(dataset or rows(seed=1), context(tmp_path)).onnx
    assert "another network" in began(
        learner(Wider, warm_start=True).train(rows(), context(tmp_path, champion=champion(old)))
    )
    plain = learner(warm_start=True).train(rows(), context(tmp_path, others, champion=champion(old, schema=others)))
    assert "not made by one of headrace's learners" in began(plain)


def test_a_champion_that_knows_what_is_judged_on_is_not_gone_on_from(tmp_path):
    old = replace(champion(learner().train(rows(), context(tmp_path)).onnx), unfit="it was trained too late")
    made = warm(tmp_path, old)
    assert began(made) == "from scratch: version 12 cannot be gone on from: it was trained too late"
    assert made.onnx == learner().train(rows(seed=1), context(tmp_path)).onnx


@pytest.mark.parametrize(
    ("declared", "known", "said"),
    [
        ({}, {}, ""),
        ({}, {"trained_through": "2013-07-03T23:59:59.999Z"}, ""),
        ({}, {"trained_through": "2013-07-04T00:00:00Z"}, "it was trained on rows of this holdout, up to 2013-07-04T"),
        ({}, {"trained_through": "soon"}, "it was trained up to 'soon', which is no time"),
        (
            {},
            {"trained_through": "2013-07-01T00:00:00"},
            "it was trained up to '2013-07-01T00:00:00', which is no time",
        ),
        ({"anchor": Anchor()}, {}, "it was trained before there was an anchor"),
        ({"anchor": Anchor()}, {"anchor_sha256": "ab"}, ""),
        ({"balance": Balance()}, {}, "it was trained with another balance"),
        ({"balance": Balance()}, {"positives": 0.4}, "it was trained with another balance"),
        ({"balance": Balance()}, {"positives": 0.5}, ""),
        ({}, {"positives": 0.5}, "it was trained with another balance"),
    ],
)
def test_what_a_champion_was_trained_on_decides_whether_it_may_be_gone_on_from(declared, known, said):
    pipeline = Pipeline(
        name="delay",
        events=Topic("flights", id="id", time="at"),
        features=[Number("distance")],
        label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
        train_on=Last("30d", holdout="1d"),
        **declared,
    )
    found = unfit(Champion(version=3, **known), pipeline, 1_372_982_400_000)  # 2013-07-05T00:00Z
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(("before", "now"), [("regression", "binary"), ("binary", "regression")])
def test_a_champion_of_another_task_is_no_start(tmp_path, before, now):
    old = Online().train(rows(task=before), context(tmp_path)).onnx
    made = Online().train(rows(task=now), context(tmp_path, champion=champion(old)))
    assert began(made).endswith("not made by one of headrace's learners: it is of another task")


def test_a_value_that_is_new_but_rare_is_the_unknown_one(tmp_path):
    old = champion(learner().train(rows(), context(tmp_path)).onnx)
    dataset = rows(seed=1)
    dataset.columns["carrier"][:20] = "new"
    assert began(warm(tmp_path, old, dataset)) == "version 12"


# ── weights of rows, and a penalty ────────────────────────────────────────────────────────────────────────────────────


def test_rows_of_weight_nothing_are_not_learnt_and_equal_weights_change_nothing(tmp_path):
    dataset = rows(1_000)
    wrong = np.arange(1_000) % 2 == 0
    mixed = replace(dataset, labels=np.where(wrong, 1 - dataset.labels, dataset.labels))
    test = rows(seed=3)
    losses = {}
    for name, weights in {"none": None, "right": 2.0 * ~wrong, "equal": np.ones(1_000)}.items():
        made = learner(epochs=8, validation=0.0).train(replace(mixed, weights=weights), context(tmp_path))
        losses[name] = log_loss(test.labels, Session(made.onnx, ALL).predict(test.columns, len(test)))
    assert losses["right"] < 0.45
    assert losses["none"] > 0.6
    assert losses["equal"] == pytest.approx(losses["none"], rel=1e-3)


def test_a_penalty_makes_weights_small(tmp_path):
    def size(**settings):
        model = onnx.load_from_string(learner(**settings).train(rows(), context(tmp_path)).onnx)
        (weight,) = [t for t in model.graph.initializer if t.name == "last.weight"]
        return np.abs(onnx.numpy_helper.to_array(weight)).sum()

    assert size(l1=0.05) < 0.5 * size()
