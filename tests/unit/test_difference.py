"""How two versions differ: pure numbers, held against brute force and scipy."""

import dataclasses
import json
import math
from itertools import combinations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from headrace.models.bootstrap import measured
from headrace.models.difference import Scored, difference
from headrace.models.kendall import kendall_tau
from headrace.models.metrics import OF_TASK, measure

_few = st.integers(0, 3).map(float)  # many ties
_any = st.floats(-1e6, 1e6)
_rows = st.lists(st.tuples(st.one_of(_few, _any), st.one_of(_few, _any)), max_size=60)


def columns(rows):
    return np.array(rows, np.float64).reshape(-1, 2).T


def tau_of_pairs(first, second):
    """tau-b by its definition."""
    agreement = tied = others_tied = 0
    for one, other in combinations(range(len(first)), 2):
        x, y = np.sign(first[one] - first[other]), np.sign(second[one] - second[other])
        agreement += x * y
        tied += x == 0
        others_tied += y == 0
    pairs = len(first) * (len(first) - 1) // 2
    scale = math.sqrt(pairs - tied) * math.sqrt(pairs - others_tied)
    return agreement / scale if scale else math.nan


@given(_rows)
def test_tau_is_that_of_all_pairs_whatever_the_ties(rows):
    first, second = columns(rows)
    assert kendall_tau(first, second) == pytest.approx(tau_of_pairs(first, second), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("distinct", [2, 7, 100, 10**9])
@pytest.mark.parametrize("rows", [2, 3, 127, 128, 129, 3_000])
def test_tau_is_scipys(rows, distinct):
    random = np.random.default_rng(rows)
    first = random.integers(0, distinct, rows).astype(np.float64)
    second = np.where(random.random(rows) < 0.5, first, random.integers(0, distinct, rows))
    assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic, abs=1e-12, nan_ok=True)


@given(_rows)
def test_tau_does_not_care_who_is_first_and_turns_its_sign_with_one_side(rows):
    first, second = columns(rows)
    tau = kendall_tau(first, second)
    assert kendall_tau(second, first) == pytest.approx(tau, abs=1e-12, nan_ok=True)
    assert kendall_tau(-first, second) == pytest.approx(-tau, abs=1e-12, nan_ok=True)


# ── the bootstrap ─────────────────────────────────────────────────────────────────────────────────────────────────────


def labelled(task, rows, seed=1):
    """Labels, and the scores of a good and of a worse version."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=rows)
    if task == "multiclass":
        truth = random.normal(size=(rows, 3))
        labels = (truth + random.normal(size=(rows, 3))).argmax(axis=1).astype(np.float64)
        powers = (np.exp(truth + noise * random.normal(size=(rows, 3))) for noise in (0.1, 2))
        good, worse = (part / part.sum(axis=1, keepdims=True) for part in powers)
        return labels, good, worse
    labels = (truth + random.normal(size=rows) > 0).astype(np.float64) if task == "binary" else truth
    good, worse = truth + 0.1 * random.normal(size=rows), truth + 2 * random.normal(size=rows)
    squash = (lambda x: 1 / (1 + np.exp(-x))) if task == "binary" else (lambda x: x)
    return labels, squash(good), squash(worse)


@pytest.mark.parametrize("task", OF_TASK)
def test_values_are_the_metrics_own_and_lie_in_their_intervals(task):
    labels, good, worse = labelled(task, 2_000)
    found = measured(task, labels, good, worse, rounds=200)
    assert {one.metric: one.first.value for one in found} == measure(task, labels, good)
    assert {one.metric: one.second.value for one in found} == measure(task, labels, worse)
    for one in found:
        for estimate in (one.first, one.second, one.difference):
            assert estimate.low < estimate.value < estimate.high
        better = one.difference.high < 0 if one.higher_is_better else one.difference.low > 0
        assert better, f"the first is better by {one.metric}"


@pytest.mark.parametrize("task", OF_TASK)
def test_one_seed_gives_one_answer_and_the_same_version_twice_no_difference(task):
    labels, good, worse = labelled(task, 300)
    assert measured(task, labels, good, worse, rounds=50) == measured(task, labels, good, worse, rounds=50)
    assert measured(task, labels, good, worse, rounds=50, seed=8) != measured(task, labels, good, worse, rounds=50)
    for one in measured(task, labels, good, good, rounds=50):
        assert dataclasses.astuple(one.difference) == (0.0, 0.0, 0.0)


def test_a_round_is_the_metric_of_the_rows_that_it_drew():
    """What is quick, weights on rows that were sorted once, against what is plain: the drawn rows themselves."""
    labels, first, second = labelled("binary", 50)
    first = np.round(first, 1)  # ties
    draws = np.random.default_rng(7)
    plain = []
    for _ in range(20):
        rows = draws.integers(0, 50, 50)
        plain.append([measure("binary", labels[rows], first[rows]), measure("binary", labels[rows], second[rows])])
    for one in measured("binary", labels, first, second, rounds=20):
        firsts, seconds = (np.array([drawn[side][one.metric] for drawn in plain]) for side in (0, 1))
        for estimate, values in [(one.first, firsts), (one.second, seconds), (one.difference, seconds - firsts)]:
            assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_nineteen_of_twenty_intervals_cover_the_truth():
    random, covered = np.random.default_rng(3), 0
    for _ in range(200):
        truth = random.normal(size=300)
        (one,) = [
            one
            for one in measured("regression", truth, truth + random.normal(size=300), truth, rounds=200)
            if one.metric == "rmse"
        ]
        covered += one.first.low <= 1.0 <= one.first.high
    assert 180 <= covered <= 199


# ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def compared(first, second, labels=None, **options):
    first = np.array(first, np.float64)
    scored = Scored(
        task=options.pop("task", "binary"),
        first=first,
        second=np.array(second, np.float64),
        labels=np.full(len(first), np.nan) if labels is None else np.array(labels, np.float64),
        categories=options.pop("categories", {}),
    )
    options = {"metric": "roc_auc", "decide_at": 0.5, "rounds": 50, "segment_rows": 1} | options
    return difference(scored, **options)


def finite(value):
    """Everything that JSON says of it: NaN and infinity have no name there."""
    text = msgspec.json.encode(value).decode()
    return json.loads(text, parse_constant=pytest.fail)


@given(_rows, st.data())
def test_counts_add_up_and_nothing_is_nan(rows, data):
    first, second = columns(rows)
    labels = data.draw(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=len(first), max_size=len(first)))
    values = data.draw(st.lists(st.sampled_from(["a", "b", None]), min_size=len(first), max_size=len(first)))
    found = compared(first, second, labels, categories={"letter": values}, rounds=5)
    finite(found)
    n = len(first)
    assert sum(found.scores.first) == sum(found.scores.second) == sum(map(sum, found.scores.both)) == n
    assert sum(found.shift.counts) == sum(segment.rows for segment in found.segments) == n
    assert found.labelled == sum(segment.labelled for segment in found.segments)
    if n:
        assert found.changed_decisions * n == pytest.approx(sum((first >= 0.5) != (second >= 0.5)))
        assert found.shift.mean_absolute <= found.shift.quantiles["1"] + 1e-9
    sizes = np.abs(second - first)[list(found.moved)]
    assert (np.diff(sizes) <= 0).all()
    assert (sizes > 0).all()


def test_no_row_says_nothing():
    found = compared([], [])
    assert (found.rows, found.labelled, found.tau, found.changed_decisions) == (0, 0, None, None)
    assert (found.shift.mean, found.shift.quantiles, found.moved, found.segments) == (None, {}, (), ())
    assert {one.first.value for one in found.metrics} == {None}


def test_one_row_has_a_difference_and_no_rank():
    found = compared([0.4], [0.6], [1.0], categories={"carrier": ["UA"]})
    assert (found.tau, found.changed_decisions, found.moved) == (None, 1.0, (0,))
    assert found.shift.mean == pytest.approx(0.2)
    (segment,) = found.segments
    assert (segment.value, segment.rows, segment.tau, segment.first) == ("UA", 1, None, None)


def test_constant_scores_have_no_rank_and_no_difference():
    found = compared([0.3] * 10, [0.3] * 10, [0.0, 1.0] * 5)
    assert (found.tau, found.changed_decisions, found.moved) == (None, 0.0, ())
    assert {one.difference.value for one in found.metrics} == {0.0}
    assert found.shift.counts[len(found.shift.counts) // 2] == 10


def test_one_class_of_labels_has_no_auc_and_the_other_metrics_do():
    by_name = {one.metric: one for one in compared([0.3, 0.4], [0.4, 0.6], [1.0, 1.0]).metrics}
    assert by_name["roc_auc"].first.value is by_name["roc_auc"].difference.low is None
    assert by_name["accuracy"].difference.value == 0.5


def test_a_regression_has_no_decisions():
    found = compared([3.0, 4.0], [3.0, 5.0], [3.0, 4.0], task="regression", metric="mae", decide_at=None)
    assert found.changed_decisions is None
    differences = {one.metric: one.difference.value for one in found.metrics}
    assert differences == pytest.approx({"rmse": 0.5**0.5, "mae": 0.5, "quantile_loss_90": 0.05})


def test_segments_need_their_rows_and_missing_is_a_value():
    values = ["UA"] * 5 + [None] * 3 + ["B6"] * 2
    found = compared(np.linspace(0, 0.9, 10), np.linspace(0.1, 1.0, 10), categories={"c": values}, segment_rows=3)
    assert [(segment.value, segment.rows) for segment in found.segments] == [("UA", 5), (None, 3)]
    assert [segment.mean_difference for segment in found.segments] == pytest.approx([0.1, 0.1])
