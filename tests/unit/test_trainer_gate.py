"""Whether a candidate takes over, and how that is said."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from headrace.models.errors import DeclarationError, RunFailed
from headrace.models.metrics import roc_auc
from headrace.models.protocols import Dataset, Evidence, Judge, Learner
from headrace.trainer.evaluate import Constant, evaluate
from headrace.trainer.gate import Always, Gate, Never
from headrace.trainer.learners import Torch

LABELS = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
GOOD = np.array([0.1, 0.2, 0.8, 0.9, 0.3, 0.7])
FAIR = np.array([0.1, 0.75, 0.8, 0.9, 0.3, 0.7])
PRIOR = np.full(6, 0.5)


def evidence(candidate, champion, *, labels=LABELS, task="binary", version=11):
    return Evidence(task=task, labels=labels, candidate=candidate, champion=champion, champion_version=version)


def test_a_candidate_within_the_allowed_loss_wins_and_the_reason_says_it_in_numbers():
    verdict = Gate("roc_auc", max_loss=0.2).judge(evidence(FAIR, GOOD))
    assert verdict.promote
    assert verdict.reason == "roc_auc 0.8889 against 1 of version 11: not worse by more than 0.2"
    assert verdict.numbers["gain"] == pytest.approx(-1 / 9)


def test_a_candidate_beyond_the_allowed_loss_is_rejected():
    verdict = Gate("roc_auc", max_loss=0.005).judge(evidence(FAIR, GOOD))
    assert not verdict.promote
    assert verdict.reason.endswith("worse by more than 0.005")


def test_a_gain_is_asked_for_where_every_change_has_to_pay():
    gate = Gate("roc_auc", min_gain=0.05)
    assert gate.judge(evidence(GOOD, FAIR)).promote
    assert not gate.judge(evidence(GOOD, GOOD)).promote


def test_less_is_better_for_losses():
    gate = Gate("log_loss", min_gain=0.01)
    assert gate.judge(evidence(GOOD, PRIOR)).promote
    assert not gate.judge(evidence(PRIOR, GOOD)).promote


def test_the_baseline_has_an_auc_of_one_half():
    verdict = Gate("roc_auc", max_loss=0.0).judge(evidence(GOOD, PRIOR, version=0))
    assert verdict.promote
    assert "against 0.5 of version 0" in verdict.reason


def test_a_holdout_of_one_class_promotes_nobody():
    verdict = Gate("roc_auc", max_loss=0.5).judge(evidence(GOOD, PRIOR, labels=np.ones(6)))
    assert not verdict.promote
    assert "cannot be measured" in verdict.reason


def test_a_champion_that_cannot_be_measured_loses_to_a_candidate_that_can():
    champion = np.full(6, np.nan)
    assert Gate("log_loss", max_loss=0.0).judge(evidence(GOOD, champion)).promote
    assert not Gate("log_loss", max_loss=0.0).judge(evidence(champion, GOOD)).promote


def test_the_share_of_changed_decisions_is_reported():
    numbers = Gate("roc_auc", max_loss=1).judge(evidence(FAIR, GOOD)).numbers
    assert numbers["changed_decisions"] == pytest.approx(1 / 6)
    assert numbers["mean_absolute_change"] == pytest.approx(0.55 / 6)


def test_always_and_never_do_what_they_say():
    assert Always().judge(evidence(FAIR, GOOD)).promote
    assert not Never().judge(evidence(GOOD, FAIR)).promote
    assert all(isinstance(judge, Judge) for judge in (Always(), Never(), Gate("mae", max_loss=1)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "auc", "max_loss": 0.1},
        {"metric": "roc_auc"},
        {"metric": "roc_auc", "max_loss": 0.1, "min_gain": 0.1},
        {"metric": "roc_auc", "max_loss": -0.1},
        {"metric": "roc_auc", "min_gain": float("nan")},
        {"metric": "roc_auc", "max_loss": "5 %"},
    ],
)
def test_a_wrong_gate_fails_when_it_is_made(wrong):
    with pytest.raises(DeclarationError):
        Gate(**wrong)


def test_a_metric_that_says_nothing_about_the_task_is_an_error():
    with pytest.raises(DeclarationError, match="'rmse' or 'mae' or 'quantile_loss_90' for regression"):
        Gate("roc_auc", max_loss=0.1).judge(evidence(GOOD, FAIR, task="regression"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"build": "flight_net"},
        {"build": 7},
        {"build": "a:b", "epochs": 0},
        {"build": "a:b", "epochs": 2.5},
        {"build": "a:b", "batch_size": True},
        {"build": "a:b", "lr": 0},
        {"build": "a:b", "lr": "fast"},
        {"build": "a:b", "weight_decay": -1},
        {"build": "a:b", "seed": -1},
        {"build": "a:b", "validation": 1},
        {"build": "a:b", "unknown": float("nan")},
    ],
)
def test_a_wrong_learner_fails_when_it_is_made(wrong):
    with pytest.raises(DeclarationError):
        Torch(**wrong)


def test_torch_is_a_learner():
    assert isinstance(Torch("flight_net:build", epochs=2, seed=7), Learner)


def test_roc_auc_is_scikit_learns_ties_included():
    random = np.random.default_rng(1)
    for levels in (2, 5, 1000):
        labels, scores = random.integers(0, 2, 500).astype(float), random.integers(0, levels, 500) / levels
        assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_both_versions_are_measured_on_the_same_rows():
    holdout = Dataset(columns={"x": GOOD}, labels=LABELS, times=np.arange(6), task="binary")

    class Scores:
        def predict(self, columns, rows):
            return columns["x"][:rows]

    evaluation = evaluate(holdout, Scores(), Constant(0.5), {}, 0)
    assert (evaluation.metrics["roc_auc"], evaluation.champion_metrics["roc_auc"]) == (1.0, 0.5)
    assert evaluation.evidence.champion.tolist() == [0.5] * 6


def test_a_candidate_that_answers_nan_is_a_failed_run():
    holdout = Dataset(columns={}, labels=LABELS, times=np.arange(6), task="binary")
    with pytest.raises(RunFailed, match="scores_not_finite"):
        evaluate(holdout, Constant(float("nan")), Constant(0.5), {}, 0)


# ── limits beside the metric ──────────────────────────────────────────────────────────────────────────────────────────

RANDOM = np.random.default_rng(11)
MANY = RANDOM.integers(0, 2, 4_000).astype(float)
SKILLED = np.clip(MANY * 0.3 + RANDOM.normal(0.35, 0.2, 4_000), 0.01, 0.99)


def many(candidate, champion=SKILLED, **more):
    return Evidence(task="binary", labels=MANY, candidate=candidate, champion=champion, champion_version=3, **more)


def test_a_candidate_that_ranks_otherwise_is_held_back_by_kendalls_tau():
    noisy = np.clip(SKILLED + RANDOM.normal(0, 0.05, 4_000), 0, 1)
    verdict = Gate("roc_auc", max_loss=0.1, min_kendall_tau=0.95).judge(many(noisy))
    assert not verdict.promote
    assert "it ranks too differently: Kendall's tau 0." in verdict.reason
    assert Gate("roc_auc", max_loss=0.1, min_kendall_tau=verdict.numbers["kendall_tau"]).judge(many(noisy)).promote


def test_changed_decisions_are_counted_where_the_label_decides():
    moved = SKILLED + 0.1  # the same ranks
    gate = Gate("roc_auc", max_loss=0, min_kendall_tau=1, max_changed_decisions=0.05)
    verdict = gate.judge(many(moved, decide_at=0.6))
    expected = np.mean((SKILLED >= 0.6) != (moved >= 0.6))
    assert (verdict.promote, verdict.numbers["changed_decisions"]) == (False, expected)
    assert f"it changes {expected:.1%} of the decisions, at most 5.0% allowed" in verdict.reason
    assert gate.judge(many(moved, decide_at=5)).promote


def test_a_gain_that_a_small_holdout_cannot_tell_is_none_with_confidence():
    labels, champion = MANY[:60], SKILLED[:60]
    candidate = np.clip(champion + RANDOM.normal(0, 0.05, 60), 0, 1)
    small = evidence(candidate, champion, labels=labels)
    allowed = abs(Gate("roc_auc", max_loss=1).judge(small).numbers["gain"]) + 1e-9
    assert Gate("roc_auc", max_loss=allowed).judge(small).promote
    verdict = Gate("roc_auc", max_loss=allowed, confident=True).judge(small)
    assert not verdict.promote
    assert verdict.numbers["gain_low"] < -allowed < verdict.numbers["gain_high"]
    assert "95 % confidence" in verdict.reason


def test_the_interval_of_a_loss_is_that_of_its_gain():
    better = np.clip(SKILLED + (MANY - 0.5) * 0.2, 0.01, 0.99)
    numbers = Gate("log_loss", min_gain=0.01, confident=True).judge(many(better)).numbers
    assert 0 < numbers["gain_low"] < numbers["gain"] < numbers["gain_high"]


def test_metrics_that_must_not_fall_hold_a_better_ranking_back():
    overconfident = np.clip((SKILLED - 0.5) * 3 + 0.5, 0.001, 0.999)  # the same ranks, another log loss
    gate = Gate("roc_auc", max_loss=0.01, must_not_fall={"accuracy": 0.01, "log_loss": 0.02})
    verdict = gate.judge(many(overconfident))
    assert not verdict.promote
    assert "log_loss falls from" in verdict.reason
    assert verdict.numbers["gain_accuracy"] == 0


def test_a_loss_in_one_segment_is_not_hidden_by_the_others():
    carriers = np.array(["AA", "UA", "ZZ"], object)[np.arange(4_000) % 3]
    candidate = np.where(carriers == "ZZ", 1 - SKILLED, SKILLED + (MANY - 0.5) * 0.4)
    gate = Gate("roc_auc", max_loss=0.2, by_segment="carrier", max_segment_loss=0.05)
    verdict = gate.judge(many(candidate, columns={"carrier": carriers}))
    assert not verdict.promote
    assert "for carrier ZZ it falls from" in verdict.reason
    assert gate.judge(many(SKILLED, columns={"carrier": carriers})).promote
    with pytest.raises(DeclarationError, match="a column of the schema"):
        gate.judge(many(SKILLED))


def test_size_and_time_have_budgets():
    gate = Gate("roc_auc", max_loss=0, max_bytes=1_000, max_seconds=0.5)
    assert gate.judge(many(SKILLED, onnx_bytes=1_000, seconds=0.5)).promote
    assert "its graph has 1,001 bytes" in gate.judge(many(SKILLED, onnx_bytes=1_001)).reason
    assert "it took 0.6 s for 4,000 rows" in gate.judge(many(SKILLED, seconds=0.6)).reason


def profit(labels, scores):
    """Ten for every late one that is caught, minus one per alarm."""
    alarms = scores >= 0.5
    return float(10 * (alarms & (labels > 0.5)).sum() - alarms.sum())


def test_a_metric_of_your_own_decides():
    gate = Gate("test_trainer_gate:profit", min_gain=1, higher_is_better=True)
    assert gate.judge(many(MANY)).promote
    verdict = gate.judge(many(1 - MANY))
    assert not verdict.promote
    assert verdict.numbers["gain"] < 0


# ── forgetting, calibration ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_gain_on_the_newest_rows_that_was_bought_by_forgetting_is_seen_and_may_be_limited():
    anchor = evidence(FAIR, GOOD)
    judged = replace(evidence(GOOD, FAIR), anchor=anchor)
    seen = Gate("roc_auc", max_loss=0.0).judge(judged)
    assert seen.promote
    assert seen.numbers["anchor_gain"] == pytest.approx(-1 / 9)
    assert (seen.numbers["anchor_candidate"], seen.numbers["anchor_champion"]) == (pytest.approx(8 / 9), 1)
    limited = Gate("roc_auc", max_loss=0.0, max_anchor_loss=0.1).judge(judged)
    assert not limited.promote
    assert limited.reason.endswith("on the anchor's rows it falls from 1 to 0.8889, by more than 0.1")
    assert Gate("roc_auc", max_loss=0.0, max_anchor_loss=0.12).judge(judged).promote
    losses = replace(evidence(GOOD, FAIR), anchor=evidence(PRIOR, GOOD))
    assert not Gate("log_loss", max_loss=0.0, max_anchor_loss=0.1).judge(losses).promote


def test_an_anchor_without_rows_promotes_nobody_where_its_loss_is_limited():
    verdict = Gate("roc_auc", max_loss=0.0, max_anchor_loss=0.1).judge(evidence(GOOD, FAIR))
    assert not verdict.promote
    assert verdict.reason.endswith("the anchor has no rows, so that forgetting cannot be judged")


def test_probabilities_that_are_off_are_rejected_by_how_far():
    random = np.random.default_rng(3)
    true = random.random(20_000)
    labels = (random.random(20_000) < true).astype(np.float64)
    sharper = np.clip(true * 1.6 - 0.3, 0.01, 0.99)  # the same ranks, too sure of itself
    gate = Gate("roc_auc", max_loss=0.01, max_calibration_error=0.03)
    good = gate.judge(evidence(true, sharper, labels=labels))
    assert good.promote
    assert good.numbers["calibration_error"] < 0.012
    bad = gate.judge(evidence(sharper, true, labels=labels))
    assert not bad.promote
    assert bad.numbers["calibration_error"] == pytest.approx(0.09, abs=0.01)
    assert "its probabilities are 0.09" in bad.reason
    assert Always().judge(evidence(sharper, true, labels=labels)).numbers["champion_calibration_error"] < 0.012
    of_numbers = Gate("rmse", max_loss=1, max_calibration_error=0.1)
    with pytest.raises(DeclarationError, match="max_calibration_error"):
        of_numbers.judge(evidence(GOOD, FAIR, task="regression"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "roc_auc", "max_loss": 0, "max_anchor_loss": -0.1},
        {"metric": "roc_auc", "max_loss": 0, "max_calibration_error": 2},
        {"metric": "my:profit", "max_loss": 1},
        {"metric": "roc_auc", "max_loss": 0, "min_kendall_tau": 1.5},
        {"metric": "roc_auc", "max_loss": 0, "max_changed_decisions": -0.1},
        {"metric": "roc_auc", "max_loss": 0, "by_segment": "carrier"},
        {"metric": "roc_auc", "max_loss": 0, "max_segment_loss": 0.1},
        {"metric": "roc_auc", "max_loss": 0, "must_not_fall": {"gini": 0.1}},
        {"metric": "roc_auc", "max_loss": 0, "must_not_fall": {"accuracy": -1}},
        {"metric": "roc_auc", "max_loss": 0, "max_bytes": "1 MB"},
    ],
)
def test_a_wrong_limit_fails_when_it_is_made(wrong):
    with pytest.raises(DeclarationError):
        Gate(**wrong)
