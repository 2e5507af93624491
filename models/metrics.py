"""Figures of merit on labels [n] and scores [n], or [n, k] of k classes; NaN where one cannot be said (no rows, …)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.protocols import Task
from headrace.models.scores import decided

Scores = NDArray[Any]
_TINY = 1e-7  # keeps log loss finite, as scikit-learn's does
_QUANTILE = 0.9


def roc_auc(labels: Scores, scores: Scores) -> float:
    """Area under the ROC curve by ranks, ties shared (Mann-Whitney U / (n1 * n0))."""
    positive = labels > 0.5
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # average rank within a tie, from 1
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def log_loss(labels: Scores, scores: Scores) -> float:
    if not len(labels):
        return float("nan")
    return float(np.mean(log_losses(labels, scores)))


def log_losses(labels: Scores, scores: Scores) -> Scores:
    """[n], one per row."""
    if scores.ndim == 2:
        right: Scores = scores[np.arange(len(labels)), labels.astype(np.int64)]
        of_right: Scores = -np.log(np.clip(right.astype(np.float64), _TINY, 1))
        return of_right
    p = np.clip(scores.astype(np.float64), _TINY, 1 - _TINY)
    losses: Scores = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    return losses


def brier(labels: Scores, scores: Scores) -> float:
    """Mean squared error of probabilities (Brier 1950), 0 to 1: proper, and a mean over rows that are bounded."""
    return float(np.mean(squared_errors(labels, scores))) if len(labels) else float("nan")


def squared_errors(labels: Scores, scores: Scores) -> Scores:
    """[n], of probabilities: 0 to 1; of several classes half the sum over them, which for two is the same."""
    if scores.ndim == 2:
        wanted = np.arange(scores.shape[1]) == labels[:, None]
        return np.asarray(((scores - wanted) ** 2).sum(axis=1) / 2)
    return np.asarray((labels - scores) ** 2)


def accuracy(labels: Scores, scores: Scores) -> float:
    return float(np.mean(hits(labels, scores))) if len(labels) else float("nan")


def hits(labels: Scores, scores: Scores) -> Scores:
    """[n]: whether the likelier answer is the right one."""
    if scores.ndim == 2:
        return np.asarray(decided(scores) == labels)
    return np.asarray((scores >= 0.5) == (labels > 0.5))


def macro_f1(labels: Scores, scores: Scores) -> float:
    """Mean of the classes' F1, each counts alike; without those that neither came nor were answered."""
    return f1_of(labels, decided(scores), np.ones(len(labels)), scores.shape[1]) if len(labels) else float("nan")


def f1_of(labels: Scores, answers: Scores, counts: Scores, classes: int) -> float:
    """The same of answers [n], each row as often as it counts."""
    right, came, said = (
        np.bincount(which.astype(np.int64), of, classes)
        for which, of in ((labels, counts * (labels == answers)), (labels, counts), (answers, counts))
    )
    there = came + said > 0
    return float(np.mean(2 * right[there] / (came + said)[there]))


def rmse(labels: Scores, scores: Scores) -> float:
    return float(np.sqrt(np.mean((labels - scores) ** 2))) if len(labels) else float("nan")


def mae(labels: Scores, scores: Scores) -> float:
    return float(np.mean(np.abs(labels - scores))) if len(labels) else float("nan")


def quantile_losses(labels: Scores, scores: Scores) -> Scores:
    """[n], one per row: what the score is worth as the label's 0.9 quantile (Koenker and Bassett 1978)."""
    losses: Scores = np.maximum(_QUANTILE * (labels - scores), (_QUANTILE - 1) * (labels - scores))
    return losses


def quantile_loss(labels: Scores, scores: Scores) -> float:
    return float(np.mean(quantile_losses(labels, scores))) if len(labels) else float("nan")


METRICS: Mapping[str, Callable[[Scores, Scores], float]] = {
    "roc_auc": roc_auc,
    "log_loss": log_loss,
    "brier": brier,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "rmse": rmse,
    "mae": mae,
    "quantile_loss_90": quantile_loss,
}
HIGHER_IS_BETTER = frozenset({"roc_auc", "accuracy", "macro_f1"})
OF_TASK: Mapping[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "brier", "accuracy"),
    "regression": ("rmse", "mae", "quantile_loss_90"),
    "multiclass": ("accuracy", "log_loss", "brier", "macro_f1"),
}


def measure(task: Task, labels: Scores, scores: Scores) -> dict[str, float]:
    """Every metric of the task."""
    return {name: METRICS[name](labels, scores) for name in OF_TASK[task]}
