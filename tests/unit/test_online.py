"""A linear model that goes on learning, against scikit-learn's; which rows it takes; what a run of it costs in rows."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.metrics import roc_auc_score
from test_trainer_export import ALL, CATEGORY, NULLABLE, NUMBER, TAIL, context, learner, rows

from headrace.models.errors import DeclarationError, RunFailed
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import ChampionGraph, Dataset
from headrace.models.schema import Schema
from headrace.models.session import Session
from headrace.models.windows import Last
from headrace.testing import replay, train
from headrace.trainer.encoding import fit
from headrace.trainer.learners import Online
from headrace.trainer.sgd import dense_of

FLAT = Schema((NUMBER, CATEGORY, NULLABLE, TAIL))
DAY = 86_400_000


def timed(dataset, first=0):
    return replace(dataset, times=np.arange(first, first + len(dataset)))


def champion(trained, version=1, schema=ALL):
    return ChampionGraph(version=version, onnx=trained.onnx, schema=schema)


def started(path, dataset=None, schema=ALL, **settings):
    """A first version, of 600 rows at the times 0 to 599."""
    return Online(**settings).train(timed(rows()) if dataset is None else dataset, context(path, schema))


def both(one, other):
    """Two datasets as one, in the order of time."""
    columns = {name: np.concatenate([one.columns[name], other.columns[name]]) for name in one.columns}
    joined = {
        name: np.concatenate([getattr(one, name), getattr(other, name)])
        for name in ("labels", "times", "label_times", "weights")
        if getattr(one, name) is not None
    }
    return replace(one, columns=columns, **joined)


def scores(trained, dataset, schema=ALL):
    return Session(trained.onnx, schema).predict(dataset.columns, len(dataset))


# ── the numbers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize(("power", "schedule"), [(0.0, "constant"), (0.25, "invscaling")])
@pytest.mark.parametrize("weighted", [False, True])
def test_two_versions_are_two_partial_fits_of_scikit_learn(tmp_path, task, power, schedule, weighted):
    first, second = timed(rows(400, task)), timed(rows(200, task, seed=1), 400)
    if weighted:
        first, second = (replace(part, weights=np.linspace(0, 2, len(part))) for part in (first, second))
    online = Online(lr=0.01, power=power, l2=1e-3, batch_size=1, first_epochs=1)
    one = online.train(first, context(tmp_path))
    two = online.train(both(first, second), context(tmp_path, champion=champion(one)))
    assert (two.hyperparameters["warm_start"], two.hyperparameters["epoch_rows"]) == ("version 1", 200)

    encoder = fit(first.columns, ALL)

    def encoded(part):
        found = encoder.transform(part.columns, len(part))
        one_hot = [np.eye(size)[found.categories[:, at]] for at, size in enumerate(encoder.inputs.categories)]
        return np.concatenate([dense_of(found), *one_hot], axis=1)

    settings = {"alpha": 1e-3, "learning_rate": schedule, "eta0": 0.01, "power_t": power, "shuffle": False}
    center, spread = first.labels.mean(), first.labels.std()
    model = SGDClassifier(loss="log_loss", **settings) if task == "binary" else SGDRegressor(**settings)
    order = np.random.default_rng(online.seed).permutation(len(first))
    for part, at in ((first, order), (second, np.arange(len(second)))):
        wanted = part.labels if task == "binary" else (part.labels - center) / spread
        classes = {"classes": [0, 1]} if task == "binary" else {}
        weights = np.ones(len(part)) if part.weights is None else part.weights
        model.partial_fit(encoded(part)[at], wanted[at], sample_weight=weights[at], **classes)
    test = rows(300, task, seed=2)
    if task == "binary":
        assert scores(two, test) == pytest.approx(model.predict_proba(encoded(test))[:, 1], abs=1e-5)
    else:
        assert scores(two, test) == pytest.approx(model.predict(encoded(test)) * spread + center, rel=1e-5)


def test_it_learns_and_goes_on_learning(tmp_path):
    first, test = timed(rows(600)), rows(2_000, seed=9)
    made = Online().train(first, context(tmp_path))
    before = roc_auc_score(test.labels, scores(made, test))
    for version in range(1, 9):
        first = both(first, timed(rows(600, seed=version), 600 * version))
        made = Online().train(first, context(tmp_path, champion=champion(made, version)))
        assert made.hyperparameters["warm_start"] == f"version {version}"
    assert before > 0.8
    assert roc_auc_score(test.labels, scores(made, test)) > before
    assert made.hyperparameters["rows"] == 3 * 600 + 8 * 600
    assert made.curves["loss"][0] < 0.45


def test_a_penalty_of_l1_makes_weights_exactly_nothing(tmp_path):
    def zeros(**settings):
        model = onnx.load_from_string(started(tmp_path, **settings).onnx)
        (weights,) = [t for t in model.graph.initializer if t.name == "online.weights"]
        return int((onnx.numpy_helper.to_array(weights) == 0).sum())

    assert zeros() == 0
    assert zeros(l1=0.05) >= 4


@pytest.mark.parametrize("schema", [Schema((NUMBER,)), Schema((TAIL,)), FLAT, ALL])
def test_a_schema_may_lack_any_kind_of_column(tmp_path, schema):
    made = started(tmp_path, schema=schema)
    going_on = Online().train(
        both(timed(rows()), timed(rows(50, seed=1), 600)),
        context(tmp_path, schema, champion=champion(made, schema=schema)),
    )
    assert going_on.hyperparameters["warm_start"] == "version 1"
    assert scores(going_on, rows(5), schema).shape == (5,)


def test_the_same_rows_and_champion_give_the_same_graph_bit_by_bit(tmp_path):
    assert started(tmp_path).onnx == started(tmp_path).onnx
    given = champion(started(tmp_path))
    later = both(timed(rows()), timed(rows(seed=1), 600))
    one, two = (Online(rehearse=0.5).train(later, context(tmp_path, champion=given)).onnx for _ in range(2))
    assert one == two


# ── which rows ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_label_that_came_since_makes_an_old_row_new(tmp_path):
    known = timed(rows(100))
    known = replace(known, label_times=known.times + 50)  # the last one at 149
    made = Online().train(known, context(tmp_path))
    late, fresh = timed(rows(3, seed=1), 60), timed(rows(4, seed=2), 100)
    late, fresh = replace(late, label_times=late.times + 100), replace(fresh, label_times=fresh.times + 40)
    everything = both(both(known, late), fresh)
    order = np.argsort(everything.times, kind="stable")
    going_on = Online().train(everything.take(order), context(tmp_path, champion=champion(made)))
    assert going_on.hyperparameters["epoch_rows"] == 3 + 4


def test_without_a_new_row_the_run_says_so(tmp_path):
    with pytest.raises(RunFailed, match="too_few_rows: none of 600 rows is new since version 1"):
        Online().train(timed(rows()), context(tmp_path, champion=champion(started(tmp_path))))


def test_old_rows_are_drawn_against_forgetting(tmp_path):
    given = champion(started(tmp_path))
    later = both(timed(rows()), timed(rows(100, seed=1), 600))
    going_on = Online(rehearse=2.0).train(later, context(tmp_path, champion=given))
    assert going_on.hyperparameters["epoch_rows"] == 300


def test_a_new_value_of_a_category_gets_a_weight_of_its_own(tmp_path):
    def constant(carrier, label, first, count=200):
        columns = {**rows(count).columns, "carrier": np.full(count, carrier, object)}
        return Dataset(
            columns=columns, labels=np.full(count, label), times=np.arange(first, first + count), task="binary"
        )

    begun = both(constant("UA", 0.0, 0), constant("AA", 1.0, 200))
    schema = Schema((CATEGORY,))
    made = Online(lr=0.5).train(begun, context(tmp_path, schema))
    later = both(both(begun, constant("ZZ", 1.0, 400)), constant("UA", 0.0, 600))
    going_on = Online(lr=0.5).train(later, context(tmp_path, schema, champion=champion(made, schema=schema)))
    new, old = ({"carrier": np.array([name], object)} for name in ("ZZ", "UA"))
    assert Session(made.onnx, schema).predict(new, 1)[0] == pytest.approx(0.5, abs=0.1)
    assert Session(going_on.onnx, schema).predict(new, 1)[0] > 0.75
    assert Session(going_on.onnx, schema).predict(old, 1)[0] < 0.1


def test_a_champion_of_another_learner_is_none_to_go_on_from(tmp_path):
    other = learner().train(rows(), context(tmp_path))
    made = Online().train(timed(rows()), context(tmp_path, champion=champion(other, 3)))
    assert made.hyperparameters["warm_start"] == "from scratch: version 3 is no linear model of Online's"
    assert made.onnx == started(tmp_path).onnx


@pytest.mark.parametrize(
    "notes",
    [
        None,
        "",
        "no json",
        '{"steps":-5}',
        '{"steps":1e400}',
        '{"x":' + "[" * 100_000,
        '{"through":"yesterday"}',
        "[" * 100_000,
    ],
)
def test_a_graph_that_says_nothing_usable_of_its_past_is_none_to_go_on_from(tmp_path, notes):
    model = onnx.load_from_string(started(tmp_path).onnx)
    del model.metadata_props[:]
    if notes is not None:
        onnx.helper.set_model_props(model, {"headrace.online": notes})
    given = ChampionGraph(version=3, onnx=model.SerializeToString(), schema=ALL)
    made = Online().train(timed(rows()), context(tmp_path, champion=given))
    assert made.hyperparameters["warm_start"] == "from scratch: version 3 does not say what it was trained on"


@pytest.mark.parametrize("scale", [np.nan, 0.0, -1.0, np.inf])
def test_a_scale_of_labels_that_is_none_is_none_to_go_on_from(tmp_path, scale):
    dataset = timed(rows(task="regression"))
    model = onnx.load_from_string(Online().train(dataset, context(tmp_path)).onnx)
    (held,) = [tensor for tensor in model.graph.initializer if tensor.name == "headrace.label_scale"]
    held.CopyFrom(onnx.numpy_helper.from_array(np.array(scale, np.float32), held.name))
    given = ChampionGraph(version=3, onnx=model.SerializeToString(), schema=ALL)
    made = Online().train(dataset, context(tmp_path, champion=given))
    assert "from scratch: version 3 was not made by one" in made.hyperparameters["warm_start"]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"lr": 0}, "Online.lr: expected a number above 0"),
        ({"l2": -1}, "Online.l2: expected a number from 0"),
        ({"batch_size": 0.5}, "Online.batch_size: expected a whole number from 1"),
        ({"seed": True}, "Online.seed: expected a whole number from 0"),
    ],
)
def test_a_wrong_learner_fails_when_it_is_made(wrong, expected):
    with pytest.raises(DeclarationError, match=expected):
        Online(**wrong)


def test_a_loss_that_runs_away_is_a_failed_run(tmp_path):
    with pytest.raises(RunFailed, match=r"loss_not_finite: .*lower lr"):
        Online(lr=1e6).train(timed(rows(task="regression")), context(tmp_path))


# ── through the join ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_whose_label_came_after_a_run_are_learnt_by_the_next_one():
    """One event a minute; every tenth label takes five hours, the others a minute."""
    pipeline = Pipeline(
        name="late",
        events=Topic("seen", id="id", time="at"),
        features=[Number("x")],
        label=Binary(Topic("told", id="id", time="at"), "y", within="12h", if_absent="drop"),
        learner=Online(),
        train_on=Last("2d", holdout="30m", min_rows=20),
    )
    begin = 1_357_000_000_000
    moments = [begin + 60_000 * n for n in range(600)]
    events = [{"id": f"e{n}", "at": at, "x": n % 7} for n, at in enumerate(moments)]
    late = [18_000_000 if n % 10 == 0 else 60_000 for n in range(600)]
    labels = [{"id": f"e{n}", "at": at + late[n], "y": n % 7 > 3} for n, at in enumerate(moments)]

    first_at, second_at = begin + 400 * 60_000, begin + 600 * 60_000
    first = train(pipeline, replay(pipeline, events, labels=labels), at=first_at)
    second = train(pipeline, replay(pipeline, events, labels=labels, model=first), at=second_at)
    learnt = [at + delay <= first_at and at < first_at - 1_800_000 for at, delay in zip(moments, late, strict=True)]
    usable = [at + delay <= second_at and at < second_at - 1_800_000 for at, delay in zip(moments, late, strict=True)]
    assert first.run.hyperparameters["epoch_rows"] == sum(learnt)
    assert second.run.hyperparameters["warm_start"] == "version 1"
    assert second.run.hyperparameters["epoch_rows"] == sum(usable) - sum(learnt)
    assert sum(usable[n] and not learnt[n] and moments[n] < first_at - 1_800_000 for n in range(600)) == 20
