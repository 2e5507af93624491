"""labels and scores → how far probabilities are from how often it happens: the expected calibration error."""

import numpy as np
from numpy.typing import NDArray

_BINS = 15  # at most
_BIN_ROWS = 200  # at least: in a smaller bin, chance alone is some percent away


def calibration_error(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Mean over the rows of |share of ones - mean score| in their bin (Naeini, Cooper and Hauskrecht 2015).

    Bins hold as many rows each (Nguyen and O'Connor 2015); rows of one score share a bin, so that a constant has one.
    Of few rows some is chance: of a perfect model about 0.02 on 5,000 rows, 0.04 on 500. Scores [n, k] of several
    classes, labels their places: the same of the most probable class, and whether it is the right one (Guo et al.
    2017). NaN where there are no rows.
    """
    if not len(labels):
        return float("nan")
    if scores.ndim > 1:
        labels, scores = (scores.argmax(axis=1) == labels).astype(np.float64), scores.max(axis=1)
    bins = max(1, min(_BINS, len(labels) // _BIN_ROWS))
    edges = np.unique(np.quantile(scores, np.arange(1, bins) / bins))
    gaps = np.bincount(np.searchsorted(edges, scores, side="right"), weights=labels - scores, minlength=len(edges) + 1)
    return float(np.abs(gaps).sum() / len(labels))
