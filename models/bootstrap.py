"""labels, and two scores of the same rows → each metric of both and its difference, with intervals by the bootstrap.

Percentiles over resampled rows (Efron 1979), paired: a round draws the same rows for both, so what makes a row hard
for both of them drops out of the difference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.metrics import (
    HIGHER_IS_BETTER,
    METRICS,
    OF_TASK,
    f1_of,
    hits,
    log_losses,
    quantile_losses,
    squared_errors,
)
from headrace.models.protocols import Task
from headrace.models.scores import decided

Array = NDArray[Any]
_Drawn = Callable[[Array], float]
"""How often each row was drawn → the metric of these draws."""
_LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval; None for what cannot be said (no rows, one class)."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric of two versions on the same labelled rows."""

    metric: str
    higher_is_better: bool
    first: Estimate
    second: Estimate
    difference: Estimate  # second - first


def measured(
    task: Task,
    labels: Array,
    first: Array,
    second: Array,
    *,
    metrics: Sequence[str] | None = None,
    rounds: int = 1_000,
    seed: int = 7,
) -> tuple[Measured, ...]:
    """Every metric of the task, or these. Labels and scores [n] are finite."""
    names, rows = metrics or OF_TASK[task], len(labels)
    forms = [(_DRAWN[name](labels, first), _DRAWN[name](labels, second)) for name in names] if rows else []
    draws, values = np.random.default_rng(seed), np.full((rounds, len(names), 2), np.nan)
    for number in range(rounds if rows else 0):
        counts = np.bincount(draws.integers(0, rows, rows), minlength=rows).astype(np.float64)
        values[number] = [(of_first(counts), of_second(counts)) for of_first, of_second in forms]
    found = []
    for at, name in enumerate(names):
        one, two = METRICS[name](labels, first), METRICS[name](labels, second)
        found.append(
            Measured(
                metric=name,
                higher_is_better=name in HIGHER_IS_BETTER,
                first=_estimate(one, values[:, at, 0]),
                second=_estimate(two, values[:, at, 1]),
                difference=_estimate(two - one, values[:, at, 1] - values[:, at, 0]),
            )
        )
    return tuple(found)


def _estimate(value: float, drawn: Array) -> Estimate:
    """Rounds that drew one class alone say nothing; where most do, neither does the interval."""
    known = drawn[np.isfinite(drawn)]
    if not isfinite(value) or len(known) <= len(drawn) / 2:
        return Estimate(value=value if isfinite(value) else None, low=None, high=None)
    low, high = np.quantile(known, _LEVEL).tolist()
    return Estimate(value=value, low=low, high=high)


def _roc_auc(labels: Array, scores: Array) -> _Drawn:
    """Sorted once: a round is a few sums."""
    order = np.argsort(scores, kind="stable")
    positive = labels[order] > 0.5
    begins = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))  # where another score follows

    def drawn(counts: Array) -> float:
        of_each = counts[order]
        ones = np.add.reduceat(np.where(positive, of_each, 0.0), begins)
        zeros = np.add.reduceat(np.where(positive, 0.0, of_each), begins)
        pairs = ones.sum() * zeros.sum()
        won = ones @ (np.cumsum(zeros) - zeros / 2)  # a tie is half a pair
        return float(won / pairs) if pairs else float("nan")

    return drawn


def _mean(losses: Array) -> _Drawn:
    return lambda counts: float(counts @ losses / len(losses))


def _rmse(labels: Array, scores: Array) -> _Drawn:
    mean = _mean((labels - scores) ** 2)
    return lambda counts: float(np.sqrt(mean(counts)))


def _macro_f1(labels: Array, scores: Array) -> _Drawn:
    answers, classes = decided(scores), scores.shape[1]
    return lambda counts: f1_of(labels, answers, counts, classes)


_DRAWN: Mapping[str, Callable[[Array, Array], _Drawn]] = {
    "roc_auc": _roc_auc,
    "log_loss": lambda labels, scores: _mean(log_losses(labels, scores)),
    "brier": lambda labels, scores: _mean(squared_errors(labels, scores)),
    "accuracy": lambda labels, scores: _mean(hits(labels, scores).astype(np.float64)),
    "macro_f1": _macro_f1,
    "rmse": _rmse,
    "mae": lambda labels, scores: _mean(np.abs(labels - scores)),
    "quantile_loss_90": lambda labels, scores: _mean(quantile_losses(labels, scores)),
}
