"""labels + scores → a loss for each row, within bounds: what versions are compared by while they serve.

A mean of such losses has an interval that holds at every moment (`models.sequential`); an AUC has none. Both are
proper: nobody gains by answering anything but what he believes.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headrace.models.metrics import squared_errors
from headrace.models.protocols import Task

_MANY = 10  # times the held-out rows' mean absolute error: a larger one counts as so much


def loss_name(task: Task) -> str:
    """A metric of `models.metrics`: its mean."""
    return "mae" if task == "regression" else "brier"


def losses(task: Task, labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n]: squared error of probabilities (Brier 1950), absolute error of a regression."""
    return np.asarray(np.abs(labels - scores) if task == "regression" else squared_errors(labels, scores))


def largest_loss(task: Task, metrics: Mapping[str, float]) -> float:
    """The bound, by a version's metrics on its holdout. NaN for a regression without any."""
    return 1.0 if task != "regression" else _MANY * metrics.get("mae", float("nan"))
