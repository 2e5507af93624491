"""encoded rows + linear model → the model, moved by them: stochastic gradient descent (Robbins and Monro 1951).

    values = dense · weights + Σ table[category] + bias

With batches of one row the updates are those of scikit-learn's SGDClassifier and SGDRegressor, L2 before the gradient;
L1 is a soft threshold after it (proximal, Langford et al. 2009). The bias is not penalised.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.models.protocols import Dataset
from headrace.trainer.encoding import Encoded, Encoder
from headrace.trainer.head import Head

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How far a step goes: lr / step ** power."""

    lr: float
    power: float
    l2: float
    l1: float


@dataclass(frozen=True)
class Batch:
    dense: Floats  # [n, p] numbers and flat tensors
    categories: NDArray[np.int64]  # [n, q]
    wanted: Floats  # [n, k] what the scores should be: a regression's on its own scale
    counts: Floats  # [n] how much each row counts

    def take(self, rows: slice) -> "Batch":
        return Batch(self.dense[rows], self.categories[rows], self.wanted[rows], self.counts[rows])


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Parameters for k outputs; a step writes them in place."""

    weights: Floats  # [p, k]
    tables: tuple[Floats, ...]  # per category [cardinality, k]
    bias: Floats  # [k]

    def values(self, dense: Floats, categories: NDArray[np.int64]) -> Floats:
        """[n, k]"""
        total = dense @ self.weights + self.bias
        for place, table in enumerate(self.tables):
            total += table[categories[:, place]]
        return np.asarray(total)

    def step(self, batch: Batch, head: Head, how: Descent, number: int) -> Floats:
        """The `number`th, from 1. Gives the losses [n] that the rows had before it."""
        rate = how.lr / number**how.power
        gradient, losses = _against(self.values(batch.dense, batch.categories), batch.wanted, head)
        gradient *= (rate * batch.counts / len(batch.counts))[:, None]
        for part in (self.weights, *self.tables):
            np.multiply(part, max(0.0, 1 - rate * how.l2), out=part)
        np.subtract(self.weights, batch.dense.T @ gradient, out=self.weights)
        for place, table in enumerate(self.tables):
            np.subtract.at(table, batch.categories[:, place], gradient)
        np.subtract(self.bias, gradient.sum(axis=0), out=self.bias)
        if how.l1:
            for part in (self.weights, *self.tables):
                np.copyto(part, np.sign(part) * np.maximum(np.abs(part) - rate * how.l1, 0.0))
        return losses * batch.counts


def batch_of(rows: Dataset, encoder: Encoder, head: Head) -> Batch:
    encoded = encoder.transform(rows.columns, len(rows))
    if head.task == "multiclass":
        wanted = np.eye(head.classes)[rows.labels.astype(np.int64)]
    else:
        wanted = ((rows.labels - head.center) / head.spread)[:, None]
    counts = np.ones(len(rows)) if rows.weights is None else rows.weights
    return Batch(dense_of(encoded), encoded.categories, np.asarray(wanted), counts)


def dense_of(encoded: Encoded) -> Floats:
    """Numbers and flat tensors, [n, p]."""
    flat = [tensor.reshape(len(tensor), -1) for tensor in encoded.tensors]
    return np.concatenate([encoded.numbers, *flat], axis=1).astype(np.float64)


def _against(values: Floats, wanted: Floats, head: Head) -> tuple[Floats, Floats]:
    """The loss's gradient by the values [n, k], and the losses [n]."""
    if head.task == "regression":
        gradient = values - wanted
        return gradient, (gradient**2).sum(axis=1) / 2
    if head.task == "binary":
        losses = np.logaddexp(0, values) - wanted * values
        return head.scores(values) - wanted, losses.sum(axis=1)
    losses = np.logaddexp.reduce(values, axis=1) - (wanted * values).sum(axis=1)
    return head.scores(values) - wanted, losses
