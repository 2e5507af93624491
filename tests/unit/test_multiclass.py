"""A label of several classes: what it is worth, how it is measured, the loop on handwritten digits."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, log_loss

from headrace.models.bootstrap import measured
from headrace.models.difference import Scored, difference
from headrace.models.errors import DeclarationError, EventRejected, RegistryRefused
from headrace.models.features import Tensor, Topic
from headrace.models.golden import check_golden, golden, golden_columns
from headrace.models.labels import Multiclass, answer_of
from headrace.models.metrics import measure
from headrace.models.pipeline import Pipeline
from headrace.models.session import Session
from headrace.models.windows import Last
from headrace.streams.codec import LabelDecoder
from headrace.streams.drift_watch import DriftWatch
from headrace.streams.predictions import Predictions
from headrace.testing import replay, train
from headrace.trainer.gate import Gate
from headrace.trainer.learners import Online, Torch

DIGITS = tuple("0123456789")
TOLD = Topic("told", id="image_id", time="told_at")


def label(**fields):
    return Multiclass(**{"topic": TOLD, "field": "digit", "classes": ["a", "b", "c"], "within": "1h"} | fields)


# ── the label ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("given", "place"), [("a", 0), ("c", 2)])
def test_a_class_is_its_place(given, place):
    assert label(if_absent="drop").value({"digit": given}) == place


@pytest.mark.parametrize(("given", "place"), [(7, 7), (7.0, 7), ("7", 7)])
def test_a_whole_number_is_as_good_as_its_text(given, place):
    assert label(classes=DIGITS, if_absent="drop").value({"digit": given}) == place


@pytest.mark.parametrize("given", ["d", "", None, True, 0.5, 1])
def test_what_is_no_class_is_rejected(given):
    with pytest.raises(EventRejected, match=r"wrong_shape.*expected one of a, b, c; got"):
        label(if_absent="drop").value({"digit": given})


@pytest.mark.parametrize(("given", "place"), [(-0.1, 0), (0, 1), (14.9, 1), (15, 2)])
def test_edges_belong_to_the_class_above_them(given, place):
    assert label(edges=[0, 15], if_absent="drop").value({"digit": given}) == place


def test_labels_are_decoded_one_by_one_as_all_at_once():
    decoder = LabelDecoder(label(if_absent="drop"), 300_000)
    rows = [
        json.dumps({"image_id": f"i{at}", "told_at": "2013-01-01T00:00:00Z", "digit": name}).encode()
        for at, name in enumerate("abcab")
    ]
    assert decoder.columns(rows, 2**41)[2].tolist() == [0, 1, 2, 0, 1]
    bad = [*rows, b'{"image_id":"x","told_at":"2013-01-01T00:00:00Z","digit":"z"}']
    assert decoder.columns(bad, 2**41)[2].tolist() == [0, 1, 2, 0, 1]
    assert [error.reason for _, error in decoder.decode(bad, 2**41)[2]] == ["wrong_shape"]


def test_silence_is_a_class_or_nothing_and_version_0_answers_the_prior():
    assert (label(if_absent="drop").absent, label(if_absent="b").absent) == (None, 1.0)
    assert answer_of(label(if_absent="drop")) == (1 / 3, 1 / 3, 1 / 3)
    assert answer_of(label(if_absent="drop", prior={"b": 0.5, "a": 0.2, "c": 0.3})) == (0.2, 0.5, 0.3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"classes": ["a"]}, "classes: expected 2 to 200 names"),
        ({"classes": "abc"}, "classes: expected 2 to 200 names"),
        ({"classes": [0, 1]}, "classes: expected 2 to 200 names"),
        ({"classes": ["a", "a"]}, "names that differ"),
        ({"classes": ["a", "drop"]}, "names that differ"),
        ({"edges": [1.0]}, "edges: expected 2 numbers"),
        ({"edges": [2, 1]}, "edges: expected ascending numbers"),
        ({"if_absent": None}, "if_absent: expected"),
        ({"if_absent": "z"}, "if_absent: expected"),
        ({"prior": {"a": 1.0}}, "prior: expected a share per class"),
        ({"prior": {"a": 0.5, "b": 0.4, "c": 0.4}}, "prior: expected a share per class"),
        ({"within": ""}, "within"),
    ],
)
def test_a_wrong_label_fails_when_it_is_made(wrong, said):
    with pytest.raises(DeclarationError, match=rf"Multiclass\..*{said}"):
        label(**{"if_absent": "drop"} | wrong)


# ── the figures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def scores_of(rows=500, classes=4, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows).astype(float)
    values = random.normal(size=(rows, classes)) + 1.5 * (np.arange(classes) == labels[:, None])
    powers = np.exp(values)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def test_the_figures_are_scikit_learns():
    labels, scores = scores_of()
    answers = scores.argmax(axis=1)
    wanted = {
        "accuracy": accuracy_score(labels, answers),
        "log_loss": log_loss(labels, scores),
        "brier": np.mean(((scores - np.eye(4)[labels.astype(int)]) ** 2).sum(axis=1)) / 2,
        "macro_f1": f1_score(labels, answers, average="macro"),
    }
    assert measure("multiclass", labels, scores) == pytest.approx(wanted)


def test_a_class_that_never_came_and_was_never_answered_is_left_out():
    labels, scores = np.array([0.0, 1.0]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    assert measure("multiclass", labels, scores)["macro_f1"] == 1.0
    assert np.isnan(list(measure("multiclass", np.empty(0), np.empty((0, 3))).values())).all()


def test_intervals_are_those_of_the_figures_and_a_better_version_is_better_for_sure():
    labels, worse = scores_of(2_000)
    better = np.where((np.arange(4) == labels[:, None]), worse + 0.5, worse)
    better /= better.sum(axis=1, keepdims=True)
    for each in measured("multiclass", labels, worse, better, rounds=200):
        assert each.first.value == pytest.approx(measure("multiclass", labels, worse)[each.metric])
        assert each.first.low < each.first.value < each.first.high
        assert (each.difference.low > 0) if each.higher_is_better else (each.difference.high < 0)


def test_a_difference_says_which_answers_changed_and_nothing_of_ranks():
    labels, first = scores_of(300)
    second = first.copy()
    second[:30] = np.roll(first[:30], 1, axis=1)
    scored = Scored(task="multiclass", first=first, second=second, labels=labels, categories={"half": ["a", "b"] * 150})
    found = difference(scored, metric="accuracy", decide_at=None, segment_rows=10, rounds=20)
    assert found.changed_decisions == pytest.approx(0.1)
    assert found.tau is None
    assert len(found.moved) == 20
    assert {segment.value for segment in found.segments} == {"a", "b"}


# ── the loop, on digits ───────────────────────────────────────────────────────────────────────────────────────────────


class Net(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, inputs.outputs)
        )

    def forward(self, _numbers, _categories, image):
        return self.body(image)


def digits_pipeline(learner=None, **settings):
    return Pipeline(
        **{
            "name": "digits",
            "events": Topic("images", id="image_id", time="seen_at"),
            "features": [Tensor("pixels", shape=(8, 8))],
            "label": Multiclass(TOLD, "digit", classes=DIGITS, within="1h", if_absent="drop"),
            "learner": learner or Torch(Net, epochs=12, batch_size=64, lr=0.01),
            "train_on": Last("4w", holdout="6h"),
            "gate": Gate("accuracy", min_gain=0.0),
        }
        | settings
    )


@pytest.fixture(scope="module")
def digits():
    """1,797 images, one a minute, with what people said they are."""
    images, targets = load_digits(return_X_y=True)
    at = np.datetime64("2013-01-01T00:00:00") + np.arange(len(images)).astype("timedelta64[m]")
    events = [
        {"image_id": f"i{n}", "seen_at": f"{at[n]}Z", "pixels": (pixels / 16).reshape(8, 8).tolist()}
        for n, pixels in enumerate(images)
    ]
    labels = [
        {"image_id": f"i{n}", "told_at": f"{at[n] + np.timedelta64(60, 's')}Z", "digit": int(target)}
        for n, target in enumerate(targets)
    ]
    return events, labels


@pytest.mark.parametrize("learner", [None, Online(lr=0.5, first_epochs=5)])
def test_digits_are_served_joined_learnt_judged_and_served_by_what_was_learnt(digits, learner):
    events, labels = digits
    pipeline = digits_pipeline(learner)
    begun = replay(pipeline, events, labels=labels)
    first = begun.predictions[0]
    assert (first.prediction, first.decision, first.label) == (0.1, None, "0")
    assert first.probabilities == dict.fromkeys(DIGITS, 0.1)

    candidate = train(pipeline, begun)
    assert candidate.run.promote, candidate.run.verdict
    assert candidate.run.metrics["accuracy"] > 0.85
    assert candidate.run.numbers["changed_decisions"] > 0.8
    assert "kendall_tau" not in candidate.run.numbers
    assert candidate.run.golden.classes == 10

    served = replay(pipeline, events, labels=labels, model=candidate)
    assert served.metrics["accuracy"] > 0.9
    answer = served.prediction("i5")
    assert answer.probabilities[answer.label] == answer.prediction == max(answer.probabilities.values())
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert served.features["i5"].keys() == {"pixels"}
    assert served.joined[0].score == served.predictions[0].prediction


def test_going_on_from_a_champion_of_several_classes(digits):
    events, labels = digits
    pipeline = digits_pipeline(Torch(Net, epochs=6, batch_size=64, lr=0.01, warm_start=True))
    first = train(pipeline, replay(pipeline, events, labels=labels), at="2013-01-01T20:00:00Z")
    second = train(pipeline, replay(pipeline, events, labels=labels, model=first))
    assert second.run.hyperparameters["warm_start"] == "version 1"
    assert second.run.champion_metrics["accuracy"] > 0.8
    assert second.run.metrics["accuracy"] > 0.85


def test_golden_rows_of_several_classes_are_checked_class_by_class(digits):
    events, labels = digits
    pipeline = digits_pipeline()
    served = replay(pipeline, events[:600], labels=labels[:600])
    session = Session(train(pipeline, served, at="2013-01-01T10:00:00Z").onnx, pipeline.schema)
    dataset = served.dataset()
    scores = session.predict(dataset.columns, len(dataset))
    found = golden(dataset.columns, scores, pipeline.schema)
    columns, rows = golden_columns(found, pipeline.schema)
    assert rows == found.rows > 1
    check_golden(found, session.predict(columns, rows))
    with pytest.raises(RegistryRefused, match="golden: the graph gives other scores"):
        check_golden(found, session.predict(columns, rows)[:, ::-1])
    with pytest.raises(RegistryRefused, match="golden: expected scores for 10 classes"):
        check_golden(found, session.predict(columns, rows)[:, 0])


def test_a_graph_for_other_classes_is_refused(digits):
    events, labels = digits
    pipeline = digits_pipeline()
    made = train(pipeline, replay(pipeline, events, labels=labels))
    label = Multiclass(TOLD, "digit", classes=[*DIGITS, "?"], within="1h", if_absent="drop")
    with pytest.raises(RegistryRefused, match="wrong_classes: expected a probability for each of 0, 1"):
        replay(digits_pipeline(label=label), events[:3], model=made)


def test_a_model_that_fails_on_one_row_costs_that_row(digits):
    class Sometimes:
        def predict(self, columns, rows):
            bright = columns["pixels"].reshape(rows, -1).sum(axis=1) > 20
            if rows > 1 and bright.any():
                raise ValueError("too bright")
            return np.full((rows, 10), np.nan if bright.any() else 0.1)

    events, _ = digits
    result = replay(digits_pipeline(), events[:50], model=Sometimes())
    assert {letter.reason for letter in result.dead_letters} == {"score_not_finite"}
    assert len(result.predictions) + len(result.dead_letters) == 50
    assert 0 < len(result.predictions) < 50


def test_a_baseline_of_several_classes_is_a_function_or_the_prior():
    with pytest.raises(DeclarationError, match=r"Pipeline\.baseline: expected a Function"):
        digits_pipeline(baseline=0.5)


def test_drift_of_several_classes_is_that_of_the_likeliest_ones_probability(digits):
    events, labels = digits
    pipeline = digits_pipeline()
    served = replay(pipeline, events, labels=labels)
    made = train(pipeline, served)
    watch = DriftWatch()
    watch.watch(made.run.reference)
    for batch in served.served:
        watch.add(batch, 1, np.full((batch.num_rows, 10), 0.1))  # another version's answers to the same rows
    assert [distance.column for distance in watch.distances()] == ["score"]


def test_a_row_that_was_scored_by_schedule_says_its_class_too():
    scores = np.array([[0.2, 0.5, 0.3]])
    outs = Predictions("p", label(if_absent="drop"), "p.predictions").of_tick(
        "2013-01-01T00:00:00Z",
        ids=["i"],
        times=np.array([0]),
        scores=scores,
        version=3,
        sources=[("images", 0, 7)],
        keys=[b"i"],
        headers=[None],
    )
    (said,) = map(json.loads, outs.values)
    assert (said["prediction"], said["label"], said["tick"]) == (0.5, "b", "2013-01-01T00:00:00Z")
    assert said["probabilities"] == {"a": 0.2, "b": 0.5, "c": 0.3}
