"""The confidence sequence against what it promises: it is right at every moment at once, and it gets narrow."""

import numpy as np
import pytest

from headrace.models.sequential import ConfidenceSequence


def _ever_wrong(draw: np.ndarray, truth: float, step: int) -> bool:
    found = ConfidenceSequence(-1, 1)
    for first in range(0, len(draw), step):
        found.add(draw[first : first + step])
        if not found.low <= truth <= found.high:
            return True
    return False


@pytest.mark.parametrize("truth", [0.0, 0.02, -0.3])
def test_in_few_sequences_is_it_ever_wrong_however_often_one_looks(truth: float) -> None:
    random = np.random.default_rng(3)
    draws = [np.clip(truth + random.choice([-0.2, 0.2], 2_000), -1, 1) for _ in range(300)]
    assert sum(_ever_wrong(draw, truth, 20) for draw in draws) <= 0.05 * len(draws)


def test_an_ordinary_interval_that_is_looked_at_as_often_is_wrong_much_oftener() -> None:
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        draw = random.choice([-0.2, 0.2], 2_000)
        counts = np.arange(1, 2_001)
        wrong += bool((np.abs(np.cumsum(draw) / counts) > 1.96 * 0.2 / np.sqrt(counts))[20::20].any())
    assert wrong > 0.2 * 300


def test_it_finds_a_small_difference_within_some_thousand_rows() -> None:
    random = np.random.default_rng(5)
    found = ConfidenceSequence(-1, 1)
    found.add(0.01 + random.normal(0, 0.08, 8_000))
    assert 0 < found.low < 0.01 < found.high < 0.02


def test_a_large_difference_is_found_within_some_hundred_rows() -> None:
    random = np.random.default_rng(5)
    found = ConfidenceSequence(-1, 1)
    found.add(0.1 + random.normal(0, 0.15, 300))
    assert found.low > 0


def test_in_pieces_or_at_once_it_is_the_same() -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 1_000)
    whole, pieces = ConfidenceSequence(-1, 1), ConfidenceSequence(-1, 1)
    whole.add(values)
    for first in range(0, 1_000, 7):
        pieces.add(values[first : first + 7])
    assert (pieces.mean, pieces.low, pieces.high) == pytest.approx((whole.mean, whole.low, whole.high))
    assert whole.mean == pytest.approx(values.mean())


def test_before_the_first_row_it_is_everything() -> None:
    found = ConfidenceSequence(0, 1)
    assert (found.low, found.high) == (0, 1)
    assert np.isnan(found.mean)


def test_what_is_beyond_the_bounds_counts_as_the_bound() -> None:
    found, bound = ConfidenceSequence(0, 1), ConfidenceSequence(0, 1)
    found.add(np.array([5.0, -3.0]))
    bound.add(np.array([1.0, 0.0]))
    assert (found.mean, found.low, found.high) == (bound.mean, bound.low, bound.high)
