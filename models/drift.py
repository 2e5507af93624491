"""training rows → a version's reference; later rows → how far each column has moved from it: PSI and KS on bins.

A reference is small: ten bins at the training rows' deciles for a number and one at either end for what is beyond
them, the most frequent values for a category, and one bin for what is missing. The score is a column like the others,
by the held-out rows' answers.

**False alarms.** Without drift PSI · n·m / (n + m) is χ² with bins - 1 degrees of freedom (Yurdakul and Naranjo 2020,
n reference rows, m later ones), so that each column's PSI has a p-value; over the columns these are held by Holm's
correction (1979) at 1 %. What is not significant is not reported, however large: with few rows, PSI is large by chance.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.models.manifest import ColumnReference, Reference
from headrace.models.protocols import Columns
from headrace.models.schema import Schema
from headrace.models.scores import top

SCORE = "score"
_BINS = 10
_VALUES = 20  # of a category: the others are one bin
_ALPHA = 0.01
_HALF = 0.5  # a bin that nobody is in counts as half a row: a logarithm of 0 would be infinite
_NOBODY = np.zeros(0, np.int64)


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far a column moved, and how likely that is by chance, corrected for the number of columns."""

    column: str
    psi: float  # population stability index; 0.1 is little, 0.25 is much, by convention
    ks: float  # largest difference of the two cumulated shares (Kolmogorov-Smirnov), over the bins; 0 to 1
    p: float


def reference_of(schema: Schema, columns: Columns, scores: NDArray[np.float64]) -> Reference:
    """`scores` are of other rows than `columns`: of held-out ones, as what is served will be."""
    found = {
        column.name: _of(column.kind, columns[column.name]) for column in schema.columns if column.kind != "tensor"
    }
    return Reference(columns=found | {SCORE: _of("number", top(scores))})


def counts_of(reference: ColumnReference, values: NDArray[Any]) -> NDArray[np.int64]:
    """Rows in each bin of the reference. `values` as in a batch: float64 with NaN, or objects with None."""
    if reference.kind == "number":
        missing = np.isnan(values)
        codes = np.where(missing, len(reference.edges) + 1, np.searchsorted(reference.edges, values, side="right"))
    else:
        places = {value: place for place, value in enumerate(reference.values)}
        others, missing_at = len(places), len(places) + 1
        codes = np.array([missing_at if v is None else places.get(v, others) for v in values.tolist()], np.int64)
    return np.bincount(codes, minlength=len(reference.counts))


def distances(reference: Reference, counts: Mapping[str, NDArray[np.int64]]) -> list[Distance]:
    """Of the columns that have moved for sure, farthest first. Columns without rows on either side say nothing."""
    return [distance for distance in all_distances(reference, counts) if is_sure(distance)]


def all_distances(reference: Reference, counts: Mapping[str, NDArray[np.int64]]) -> list[Distance]:
    """Also of those that may have moved by chance; `counts` of a column that nobody looked at may be missing."""
    found = []
    for name, column in reference.columns.items():
        before, after = np.array(column.counts, np.float64), counts.get(name, _NOBODY).astype(np.float64)
        if before.sum() and after.sum():
            psi = _psi(before, after)
            found.append(Distance(column=name, psi=psi, ks=_ks(before, after), p=_p(psi, before, after)))
    return sorted(_corrected(found), key=lambda distance: -distance.psi)


def is_sure(distance: Distance) -> bool:
    return distance.p <= _ALPHA


def _of(kind: str, values: NDArray[Any]) -> ColumnReference:
    if kind == "number":
        there = values[np.isfinite(values)]
        edges = _edges(there) if len(there) else ()
        empty = ColumnReference(kind="number", counts=(0,) * (len(edges) + 2), edges=edges)
    else:
        frequent = Counter(value for value in values.tolist() if value is not None).most_common(_VALUES)
        names = tuple(value for value, _ in frequent)
        empty = ColumnReference(kind="category", counts=(0,) * (len(names) + 2), values=names)
    return msgspec.structs.replace(empty, counts=tuple(counts_of(empty, values).tolist()))


def _edges(there: NDArray[np.float64]) -> tuple[float, ...]:
    """Deciles, and both ends: what no training row was like is in a bin of its own."""
    deciles = np.quantile(there, np.linspace(0, 1, _BINS + 1)[1:-1])
    ends = [there.min(), np.nextafter(there.max(), np.inf)]
    return tuple(np.unique(np.concatenate([ends, deciles])).tolist())


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    smoothed = np.maximum(counts, _HALF)
    return np.asarray(smoothed / smoothed.sum())


def _used(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.bool_]:
    used: NDArray[np.bool_] = (before + after) > 0
    return used


def _psi(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    used = _used(before, after)
    expected, found = _shares(before[used]), _shares(after[used])
    return float(((found - expected) * np.log(found / expected)).sum())


def _ks(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    return float(np.abs(np.cumsum(before / before.sum()) - np.cumsum(after / after.sum())).max())


def _p(psi: float, before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    n, m, bins = before.sum(), after.sum(), int(_used(before, after).sum())
    return _chi2_tail(psi * n * m / (n + m), bins - 1)


def _chi2_tail(x: float, freedom: int) -> float:
    """P(χ² > x) by the normal approximation of its cube root (Wilson and Hilferty 1931)."""
    if freedom < 1:
        return 1.0
    variance = 2 / (9 * freedom)
    return math.erfc(((x / freedom) ** (1 / 3) - (1 - variance)) / math.sqrt(2 * variance)) / 2


def _corrected(found: Sequence[Distance]) -> list[Distance]:
    """Holm: the smallest p-value counts as often as there are columns, the next once less, and none less than those
    before it."""
    corrected, least = [], 0.0
    for place, distance in enumerate(sorted(found, key=lambda one: one.p)):
        least = max(least, min(1.0, distance.p * (len(found) - place)))
        corrected.append(msgspec.structs.replace(distance, p=least))
    return corrected
