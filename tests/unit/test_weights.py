"""What rows count: labels that come late weighed up, classes balanced and probabilities put back."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import linear

from headrace import Balance, LabelDelay, Pipeline
from headrace.infra.demo.flights import flight_delay
from headrace.models.calibration import calibration_error
from headrace.models.errors import DeclarationError
from headrace.models.labels import Binary, Regression
from headrace.models.protocols import Dataset
from headrace.models.schema import NUMBERS
from headrace.trainer.prior import as_in_the_stream
from headrace.trainer.weights import balanced, by_delay, with_weights

DAY = 86_400_000


def early(rows=40_000, seed=1, within=20.0):
    """Ones are known after a day or so, zeros after ten; rows that are older than their label's delay."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.3).astype(np.float64)
    delays = np.where(labels > 0.5, random.exponential(1.0, rows), random.exponential(10.0, rows))
    ages = random.random(rows) * 30
    seen = (delays <= ages) & (delays <= within)
    came = delays <= within
    return (delays[seen] * DAY).astype(np.int64), (ages[seen] * DAY).astype(np.int64), labels[seen], labels[came].mean()


# ── importance of early labels ────────────────────────────────────────────────────────────────────────────────────────


def test_labels_that_came_late_are_weighed_up_to_what_they_are_in_the_stream():
    delays, ages, labels, true = early()
    weights = by_delay(LabelDelay(), delays, ages)
    assert labels.mean() - true > 0.04  # without: too many quick ones
    assert np.average(labels, weights=weights) == pytest.approx(true, abs=0.012)
    assert weights.mean() == pytest.approx(1)
    order = np.argsort(delays)
    assert (np.diff(weights[order]) >= -1e-12).all()  # the longer the delay, the more


def test_the_weights_are_what_they_would_be_if_all_rows_were_known():
    """1 / the share of all rows, those without a label as yet among them, that are old enough."""
    random = np.random.default_rng(3)
    all_ages = random.random(60_000) * 30
    delays = random.exponential(5.0, 60_000)
    seen = delays <= all_ages
    truth = 1 / np.array([(all_ages >= delay).mean() for delay in delays[seen][:2_000]])
    found = by_delay(
        LabelDelay(most=100), (delays[seen] * DAY).astype(np.int64), (all_ages[seen] * DAY).astype(np.int64)
    )
    near = delays[seen][:2_000] < 20
    ratio = (found[:2_000] / truth)[near]
    assert ratio / ratio.mean() == pytest.approx(np.ones(near.sum()), abs=0.06)


def test_where_every_row_is_older_than_its_horizon_all_count_alike():
    random = np.random.default_rng(4)
    delays, ages = random.integers(0, DAY, 500), random.integers(7 * DAY, 30 * DAY, 500)
    assert by_delay(LabelDelay(), delays, ages) == pytest.approx(np.ones(500))
    assert len(by_delay(LabelDelay(), delays[:0], ages[:0])) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60), st.floats(1, 50))
def test_weights_are_positive_and_their_mean_is_one_whatever_the_rows(rows, most):
    delays = np.array([delay for delay, _ in rows])
    ages = delays + np.array([more for _, more in rows])
    weights = by_delay(LabelDelay(most=most), delays, ages)
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1)
    assert weights.max() / weights.min() <= most * (1 + 1e-9)


# ── balance ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def rare(rows=60_000, seed=5):
    """Ones are 3 % or so; the logit is known."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    true = 1 / (1 + np.exp(-(1.5 * x - 4.5)))
    labels = (random.random(rows) < true).astype(np.float64)
    return Dataset(columns={"x": x}, labels=labels, times=np.arange(rows), task="binary")


def fitted(dataset):
    """A logistic regression by Newton's method: slope and intercept."""
    x = np.stack([dataset.columns["x"], np.ones(len(dataset))])
    weights = np.ones(len(dataset)) if dataset.weights is None else dataset.weights
    at = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-at @ x))
        at += np.linalg.solve((x * weights * p * (1 - p)) @ x.T, x @ (weights * (dataset.labels - p)))
    return at


@pytest.mark.parametrize("by", ["weights", "undersampling"])
@pytest.mark.parametrize("positives", [0.5, 0.2, 0.01])
def test_a_balanced_training_gives_the_streams_probabilities_back_through_its_graph(by, positives):
    train, holdout = rare(), rare(20_000, 6)
    used, odds = balanced(Balance(positives=positives, by=by), train)
    slope, intercept = fitted(used)
    seen = np.average(used.labels, weights=used.weights)
    assert seen == pytest.approx(positives, abs=0.003)
    scored = linear([slope], intercept)
    raw, put_back = (
        onnxruntime.InferenceSession(graph).run(None, {NUMBERS: holdout.columns["x"].astype(np.float32)[:, None]})[0]
        for graph in (scored, as_in_the_stream(scored, odds))
    )
    assert calibration_error(holdout.labels, raw.astype(np.float64)) > (0.1 if positives > 0.1 else 0.008)
    assert calibration_error(holdout.labels, put_back.astype(np.float64)) < 0.006
    assert put_back.mean() == pytest.approx(holdout.labels.mean(), abs=0.004)
    assert (np.argsort(raw, kind="stable") == np.argsort(put_back, kind="stable")).mean() > 0.99  # float32 ties apart
    if by == "undersampling":
        assert len(used) < (0.15 if positives == 0.5 else 0.99) * len(train)
        assert used.weights is None
        again, _ = balanced(Balance(positives=positives, by=by), train)
        np.testing.assert_array_equal(again.times, used.times)
        assert (np.diff(used.times) > 0).all()


def test_weights_of_both_kinds_are_multiplied_and_balance_counts_by_them():
    train = with_weights(rare(), np.random.default_rng(0).random(60_000) + 0.5)
    for by in ("weights", "undersampling"):
        used, _ = balanced(Balance(by=by), train)
        assert np.average(used.labels, weights=used.weights) == pytest.approx(0.5, abs=0.01)
        assert used.weights.mean() == pytest.approx(1)
    kept = replace(train).take(slice(0, 10))
    np.testing.assert_array_equal(kept.weights, train.weights[:10])


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: LabelDelay(most=0.5), "LabelDelay.most"),
        (lambda: Balance(positives=1), "Balance.positives"),
        (lambda: Balance(by="smote"), "Balance.by"),
        (lambda: Balance(seed=-1), "Balance.seed"),
        (lambda: piped(importance=0.5), "Pipeline.importance"),
        (lambda: piped(balance=True), "Pipeline.balance"),
        (lambda: piped(balance=Balance(), label=Regression(*TO, within="36h", if_absent="drop")), "Pipeline.balance"),
        (lambda: piped(importance=LabelDelay(), label=Binary(*TO, within="36h", if_absent=0)), "Pipeline.importance"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_by_its_field(make, where):
    with pytest.raises(DeclarationError, match=where):
        make()


TO = flight_delay.label.topic, "arr_delay"


def piped(**fields):
    own = {name: getattr(flight_delay, name) for name in ("name", "events", "features", "label")}
    return Pipeline(**own | fields)
