"""training rows → what each counts, mean 1: labels that come late weighed up, classes balanced."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.models.protocols import Dataset
from headrace.models.reweighting import Balance, LabelDelay

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


def by_delay(importance: LabelDelay, delays: Int64s, ages: Int64s) -> Floats:
    """[n], mean 1: 1 / P(a row is old enough for a label that takes so long).

    `delays` from row to label, `ages` from row to now, ms; a row is here because its delay was not beyond its age. So
    the delays are truncated at the right, and the ages at the left. Both distributions are estimated from these rows
    alone by the product limit in reverse time (Lynden-Bell 1971; Lagakos, Barraj and De Gruttola 1988), as Kaplan and
    Meier's is where what is late is still counted.
    """
    if not len(delays):
        return np.ones(0)
    in_time = _in_time(delays, ages)
    # rows of an age are seen by that share: undone, these are the ages of all rows, seen or not
    order = np.argsort(ages)
    counted = np.cumsum((1 / np.maximum(in_time, 1 / importance.most))[order])
    younger = np.concatenate([[0.0], counted])[np.searchsorted(ages[order], delays)]
    old_enough = 1 - younger / counted[-1]
    weights = 1 / np.maximum(old_enough, 1 / importance.most)
    return np.asarray(weights / weights.mean())


def _in_time(delays: Int64s, ages: Int64s) -> Floats:
    """[n]: P(delay ≤ the row's age), by the product limit."""
    times, counts = np.unique(delays, return_counts=True)
    at_risk = np.searchsorted(np.sort(delays), times, "right") - np.searchsorted(np.sort(ages), times, "left")
    stays = 1 - counts / at_risk
    at_most = np.cumprod(stays[::-1])[::-1]  # P(delay < times[j])
    share = np.append(at_most, 1.0)[np.searchsorted(times, ages, "right")]
    return np.asarray(share)


def balanced(balance: Balance, train: Dataset) -> tuple[Dataset, float]:
    """The rows to train on, and how many times as large the odds of a one are among them as in the stream."""
    ones = train.labels > 0.5
    share = float(np.average(ones, weights=train.weights))
    odds = balance.positives / (1 - balance.positives) / (share / (1 - share))
    if balance.by == "weights":
        of_class = np.where(ones, balance.positives / share, (1 - balance.positives) / (1 - share))
        return with_weights(train, of_class), odds
    larger = np.flatnonzero(ones if odds < 1 else ~ones)
    kept = max(1, round(len(larger) * (odds if odds < 1 else 1 / odds)))
    left_out = np.random.default_rng(balance.seed).permutation(len(larger))[kept:]
    taken = np.ones(len(train), bool)
    taken[larger[left_out]] = False
    rest = kept / len(larger)
    some = train.take(np.flatnonzero(taken))
    return with_weights(some, np.ones(len(some))) if some.weights is not None else some, rest if odds < 1 else 1 / rest


def with_weights(dataset: Dataset, weights: Floats) -> Dataset:
    """Beside those that it has."""
    product = weights if dataset.weights is None else weights * dataset.weights
    return replace(dataset, weights=np.asarray(product / product.mean()))
