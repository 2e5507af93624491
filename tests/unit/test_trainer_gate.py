"""Whether a candidate takes over, and how that is said."""

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
    with pytest.raises(DeclarationError, match="'rmse' or 'mae' for regression labels"):
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
