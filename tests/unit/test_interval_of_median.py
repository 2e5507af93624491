"""Runs of a benchmark on a machine that is not quiet: their median, and between what it lies."""

import numpy as np
import pytest

from headrace.infra.bench.serve.stream_beside import interval_of_median


@pytest.mark.parametrize(
    ("runs", "ranks"),
    [(1, (1, 1)), (4, (1, 4)), (5, (1, 5)), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (12, (3, 10)), (25, (8, 18))],
)
def test_the_ends_are_the_order_statistics_of_the_sign_test(runs, ranks):
    """As in tables of it: Conover, Practical Nonparametric Statistics, the binomial distribution of p = 1/2."""
    found = interval_of_median(np.random.default_rng(runs).permutation(np.arange(1, runs + 1)).tolist())
    assert found == ranks


def test_it_holds_the_median_95_times_in_100_however_odd_the_distribution():
    random, held = np.random.default_rng(7), 0
    for _ in range(2_000):
        low, high = interval_of_median(random.lognormal(0, 2, 12).tolist())
        held += low <= 1.0 <= high
    assert held >= 0.95 * 2_000 - 20
