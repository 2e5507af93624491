"""values of one column → what they are like: moments, quantiles and a histogram, or the most frequent ones.

Pure: arrays in, records out. What cannot be said (no values, one value) is None, never NaN; no value makes it fail.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

QUANTILES = {"p1": 0.01, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99}
_BINS = 20
_TOP = 20  # values of a category
_EXTREME = 400  # of an exponent: 2^400 squared and summed is still a number


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """Rows between `edges`, one more than there are counts; the last bin has its upper edge in it. One bin of no width
    where all are equal, none where there is no value."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class NumberFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of the values that are finite."""

    infinite: int  # rows with an infinity: neither missing nor part of what follows
    mean: float | None
    std: float | None  # of the population
    min: float | None
    quantiles: dict[str, float]  # p1, p25, p50, p75, p99; between two values by a straight line
    max: float | None
    histogram: Bins


class ValueFacts(msgspec.Struct, frozen=True, kw_only=True):
    value: str
    rows: int
    share: float  # of the rows that have a value


class CategoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    distinct: int
    top: tuple[ValueFacts, ...]  # the 20 most frequent; of equally many by their names
    others: int  # rows with another value


class TensorFacts(msgspec.Struct, frozen=True, kw_only=True):
    shape: tuple[int, ...]
    not_finite: int  # numbers in all rows that are NaN or infinite
    mean: float | None
    min: float | None
    max: float | None


def number_facts(values: NDArray[np.float64]) -> NumberFacts:
    """NaN is missing."""
    infinite = int(np.isinf(values).sum())
    there = values[np.isfinite(values)]
    if not len(there):
        nothing = Bins(edges=(), counts=())
        return NumberFacts(infinite=infinite, mean=None, std=None, min=None, quantiles={}, max=None, histogram=nothing)
    low, high = float(there.min()), float(there.max())
    # very large ones by a power of two, which costs no bit: their sums and squares would be infinite; tiny ones' zero
    exponent = int(np.frexp(np.abs(there).max())[1])
    exponent = exponent if abs(exponent) > _EXTREME else 0
    scaled = np.ldexp(there, -exponent)
    mean, *quantiles = np.ldexp([scaled.mean(), *np.quantile(scaled, list(QUANTILES.values()))], exponent)
    return NumberFacts(
        infinite=infinite,
        mean=_between(low, mean, high),
        std=float(np.ldexp(scaled.std(), exponent)) if low < high else 0.0,
        min=low,
        quantiles={name: _between(low, value, high) for name, value in zip(QUANTILES, quantiles, strict=True)},
        max=high,
        histogram=_histogram(there, low, high),
    )


def category_facts(counts: Iterable[tuple[str, int]]) -> CategoryFacts:
    """Of each value its rows, in any order."""
    ranked = sorted(counts, key=lambda one: (-one[1], one[0]))
    rows = sum(count for _, count in ranked)
    top = [ValueFacts(value=value, rows=count, share=count / rows) for value, count in ranked[:_TOP]]
    return CategoryFacts(distinct=len(ranked), top=tuple(top), others=rows - sum(one.rows for one in top))


def _histogram(there: NDArray[np.float64], low: float, high: float) -> Bins:
    edges = 2 * np.linspace(low / 2, high / 2, _BINS + 1)  # a width may be more than a number can be
    edges[0], edges[-1] = low, high
    if not (np.diff(edges / 2) > 0).all():  # nearer to each other than numbers are
        edges = edges[[0, -1]]
    places = np.searchsorted(edges[1:-1], there, side="right")
    counts = np.bincount(places, minlength=len(edges) - 1)
    return Bins(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))


def _between(low: float, value: float, high: float) -> float:
    """What rounding may have moved out."""
    return float(min(max(low, value), high))
