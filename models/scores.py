"""scores [n], or of several classes [n, k] → one figure per row: which are finite, which answer, how far apart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[Any]


def top(scores: Scores) -> Scores:
    """[n]: the score itself; of several classes, the probability of the likeliest."""
    return scores if scores.ndim == 1 else np.asarray(scores.max(axis=1, initial=0.0))


def decided(scores: Scores) -> NDArray[np.intp]:
    """[n]: which of the classes is the likeliest; the first of those that are equal."""
    return np.asarray(np.argmax(scores, axis=1))


def finite(scores: Scores) -> NDArray[np.bool_]:
    """[n]"""
    usable: NDArray[np.bool_] = np.isfinite(scores)
    return usable if scores.ndim == 1 else np.asarray(usable.all(axis=1))


def distances(first: Scores, second: Scores) -> Scores:
    """[n]: absolute differences; of several classes the total variation, 0 to 1."""
    apart: Scores = np.abs(first - second)
    return apart if apart.ndim == 1 else np.asarray(apart.sum(axis=1) / 2)


def changed(first: Scores, second: Scores, decide_at: float | None) -> float | None:
    """Share of rows on which the two decide differently (Hamming); None where nothing is decided."""
    if not len(first):
        return None
    if first.ndim == 2:
        return float(np.mean(decided(first) != decided(second)))
    return None if decide_at is None else float(np.mean((first >= decide_at) != (second >= decide_at)))
