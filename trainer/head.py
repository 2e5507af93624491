"""a network's output → the answer: a probability, a probability per class, or a value in the label's own unit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.protocols import Task


@dataclass(frozen=True, kw_only=True)
class Head:
    """A regression is learnt on standardised labels: `center` and `spread` are their mean and standard deviation."""

    task: Task
    classes: int = 0  # of a multiclass task
    center: float = 0.0
    spread: float = 1.0

    @property
    def outputs(self) -> int:
        """Values per row that the network gives."""
        return max(1, self.classes)

    def scores(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of the network's output, [n] or [n, classes]."""
        values = values.astype(np.float64)
        if self.task == "regression":
            return values * self.spread + self.center
        if self.task == "multiclass":
            powers = np.exp(values - values.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return np.asarray(0.5 * (1 + np.tanh(values / 2)))  # the logistic function; nothing overflows


def head_of(labels: NDArray[np.float64], task: Task, classes: int) -> Head:
    if task != "regression":
        return Head(task=task, classes=classes)
    return Head(task=task, center=float(labels.mean()), spread=float(labels.std()) or 1.0)
