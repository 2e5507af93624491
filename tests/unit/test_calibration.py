"""How far probabilities are from how often it happens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from headrace.models.calibration import calibration_error

RANDOM = np.random.default_rng(5)


def world(rows):
    true = RANDOM.beta(2, 5, rows)
    return true, (RANDOM.random(rows) < true).astype(np.float64)


def test_it_is_what_scikit_learns_curve_says_bin_by_bin():
    true, labels = world(6_000)
    scores = np.clip(true**1.3, 0, 1)
    happened, said = calibration_curve(labels, scores, n_bins=15, strategy="quantile")
    assert calibration_error(labels, scores) == pytest.approx(np.abs(happened - said).mean(), abs=1e-3)


def test_a_perfect_model_has_what_chance_makes_and_no_more():
    errors = [calibration_error(labels, true) for true, labels in (world(5_000) for _ in range(20))]
    assert np.mean(errors) == pytest.approx(0.019, abs=0.005)
    errors = [calibration_error(labels, true) for true, labels in (world(500) for _ in range(20))]
    assert np.mean(errors) < 0.06


def test_a_constant_is_one_bin():
    _, labels = world(5_000)
    assert calibration_error(labels, np.full(5_000, 0.5)) == pytest.approx(0.5 - labels.mean())
    assert calibration_error(labels, np.full(5_000, labels.mean())) == pytest.approx(0, abs=1e-12)
    assert np.isnan(calibration_error(np.empty(0), np.empty(0)))


def test_of_several_classes_the_most_probable_counts():
    scores = RANDOM.dirichlet([1, 1, 1], 20_000)
    labels = np.array([RANDOM.choice(3, p=row) for row in scores], np.float64)
    assert calibration_error(labels, scores) < 0.02
    assert calibration_error((labels + 1) % 3, scores) > 0.2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=50), st.randoms())
def test_it_is_a_share_and_knows_no_order(rows, dice):
    labels, scores = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    order = list(range(len(rows)))
    dice.shuffle(order)
    found = calibration_error(labels, scores)
    assert 0 <= found <= 1
    assert calibration_error(labels[order], scores[order]) == pytest.approx(found)
