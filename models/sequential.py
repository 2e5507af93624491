"""numbers as they come → their mean with an interval that holds at every moment: look as often as you like.

An ordinary 95 % interval, looked at after each row, sooner or later excludes the truth; this one does so in 5 % of all
sequences, over their whole length. So a test may stop at the first moment at which it is sure.
"""

import math

import numpy as np
from numpy.typing import NDArray

_LARGEST_BET = 0.75  # the paper: "1/2 or 3/4"; a higher one narrows the first few hundred rows


class ConfidenceSequence:
    """The predictable plug-in empirical Bernstein confidence sequence (Waudby-Smith and Ramdas 2024, theorem 2).

    For values within [lowest, highest] with any dependence whose conditional mean stays the same; where that mean
    moves, it holds for the mean of the conditional means, weighted by the bets. `alpha` is the chance that it is ever
    wrong, at either end.
    """

    def __init__(self, lowest: float, highest: float, alpha: float = 0.05) -> None:
        self._lowest, self._span = lowest, highest - lowest
        self._cost = math.log(2 / alpha)
        self.rows = 0
        self._sum = 0.5  # of values in [0, 1], as the paper begins: with half a one ...
        self._squares = 0.25  # ... and a variance of a quarter
        self._bets = self._won = self._paid = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """[n], in the order in which they came; what lies beyond the bounds counts as the bound."""
        if not len(values):
            return
        x = np.clip((values - self._lowest) / self._span, 0.0, 1.0)
        counts = self.rows + np.arange(1, len(x) + 1)
        sums = self._sum + np.cumsum(x)
        means = sums / (counts + 1)  # after each of them
        before = np.concatenate([[self._sum / (self.rows + 1)], means[:-1]])
        squares = self._squares + np.cumsum((x - means) ** 2)
        variances = np.concatenate([[self._squares], squares[:-1]]) / counts  # before each of them
        bets = np.minimum(np.sqrt(2 * self._cost / (variances * counts * np.log1p(counts))), _LARGEST_BET)
        self.rows += len(x)
        self._sum, self._squares = float(sums[-1]), float(squares[-1])
        self._bets += float(bets.sum())
        self._won += float(bets @ x)
        self._paid += float((4 * (x - before) ** 2) @ ((-np.log1p(-bets) - bets) / 4))

    @property
    def mean(self) -> float:
        """Of the values; NaN before the first."""
        return self._lowest + self._span * ((self._sum - 0.5) / self.rows) if self.rows else math.nan

    @property
    def low(self) -> float:
        return self._end(-1)

    @property
    def high(self) -> float:
        return self._end(1)

    def _end(self, side: int) -> float:
        if not self.rows or math.isnan(self._won + self._paid):
            return self._lowest if side < 0 else self._lowest + self._span
        middle, width = self._won / self._bets, (self._cost + self._paid) / self._bets
        return self._lowest + self._span * min(1.0, max(0.0, middle + side * width))
