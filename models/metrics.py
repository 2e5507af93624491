"""Figures of merit on labels [n] and scores [n]; NaN where one cannot be said (no rows, one class)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.protocols import Task

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
    p = np.clip(scores.astype(np.float64), _TINY, 1 - _TINY)
    losses: Scores = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    return losses


def brier(labels: Scores, scores: Scores) -> float:
    """Mean squared error of probabilities (Brier 1950), 0 to 1: proper, and a mean over rows that are bounded."""
    return float(np.mean((labels - scores) ** 2)) if len(labels) else float("nan")


def accuracy(labels: Scores, scores: Scores) -> float:
    return float(np.mean((scores >= 0.5) == (labels > 0.5))) if len(labels) else float("nan")


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
    "rmse": rmse,
    "mae": mae,
    "quantile_loss_90": quantile_loss,
}
HIGHER_IS_BETTER = frozenset({"roc_auc", "accuracy"})
OF_TASK: Mapping[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "brier", "accuracy"),
    "regression": ("rmse", "mae", "quantile_loss_90"),
}


def measure(task: Task, labels: Scores, scores: Scores) -> dict[str, float]:
    """Every metric of the task."""
    return {name: METRICS[name](labels, scores) for name in OF_TASK[task]}
