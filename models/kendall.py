"""two scores of the same rows → how far they rank them alike: Kendall's tau-b, for gates and comparisons."""

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


def kendall_tau(first: NDArray[Any], second: NDArray[Any]) -> float:
    """From -1 to 1, ties shared (tau-b, as scipy's default); NaN where it cannot be said: fewer than two rows, or one
    side is constant. Scores [n] are finite. O(n log² n): Knight's way (1966), its merges as numpy sees them."""
    rows = len(first)
    codes, others = (np.unique(scores, return_inverse=True)[1].astype(np.int64) for scores in (first, second))
    pairs = rows * (rows - 1) // 2
    tied, others_tied = _tied_pairs(codes), _tied_pairs(others)
    if pairs in (tied, others_tied):
        return float("nan")
    both_tied = _tied_pairs(np.unique(codes * rows + others, return_inverse=True)[1])
    discordant = _inversions(others[np.lexsort((others, codes))])
    agreement = pairs - tied - others_tied + both_tied - 2 * discordant
    return agreement / (sqrt(pairs - tied) * sqrt(pairs - others_tied))


def _tied_pairs(codes: NDArray[np.int64]) -> int:
    counts = np.bincount(codes).astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: NDArray[np.int64]) -> int:
    """Pairs of which the earlier one is the greater. All merges of one width are one call."""
    size = 1 << max(0, (len(ranks) - 1).bit_length())
    span = size + 1  # more than any rank: keeps the blocks apart
    blocks = np.append(ranks, np.full(size - len(ranks), size))[:, None]  # the padding is last and greatest
    found = 0
    while len(blocks) > 1:
        apart = np.arange(len(blocks) // 2, dtype=np.int64)[:, None]
        left, right = blocks[0::2] + apart * span, blocks[1::2] + apart * span
        smaller = np.searchsorted(right.ravel(), left.ravel())  # those of the blocks before are among them
        found += int(smaller.sum()) - int(apart.sum()) * right.shape[1] * left.shape[1]
        blocks = np.sort(np.hstack([blocks[0::2], blocks[1::2]]), axis=1, kind="stable")
    return found
