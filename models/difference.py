"""scores of two versions on the same rows → how they differ: metrics, ranks, decisions, histograms, segments, rows.

Pure: arrays in, records out. What cannot be said (no labels, one class, one row, constant scores) is None, never NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.bootstrap import Measured, measured
from headrace.models.calibration import calibration_error
from headrace.models.kendall import kendall_tau
from headrace.models.metrics import METRICS
from headrace.models.protocols import Task
from headrace.models.scores import changed, decided

Array = NDArray[Any]
_BINS = 30
_DIFFERENCE_BINS = 41  # odd: no change is the middle of one
_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_MOST_VALUES = 20  # of one category column: those with most rows
_MOVED = 20  # rows
_SAME = 1e-12  # of a score's size: closer than any two that float32 tells apart; bins would have no width


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The same n rows by two versions. `labels` are NaN where none came; scores are finite, [n, k] of k classes."""

    task: Task
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    labels: NDArray[np.float64]
    categories: Mapping[str, Sequence[str | None]]  # what segments are made of

    def take(self, rows: Array) -> "Scored":
        """Without the categories."""
        return Scored(
            task=self.task,
            first=self.first[rows],
            second=self.second[rows],
            labels=self.labels[rows],
            categories={},
        )


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of both between `edges`, one more than there are counts."""

    edges: tuple[float, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]
    both: tuple[tuple[int, ...], ...]  # by the first's bin, then the second's


@dataclass(frozen=True, kw_only=True)
class Shift:
    """second - first, row by row."""

    mean: float | None
    mean_absolute: float | None
    quantiles: dict[str, float]  # of its size
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The rows with one value of a category column; None where it was missing."""

    column: str
    value: str | None
    rows: int
    labelled: int
    mean_difference: float
    changed_decisions: float | None
    tau: float | None
    first: float | None  # the metric
    second: float | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    rows: int
    labelled: int
    metrics: tuple[Measured, ...]
    tau: float | None
    changed_decisions: float | None  # share of rows; None for a regression
    calibration: tuple[float | None, float | None]  # calibration errors of both; None for a regression
    scores: Histogram
    shift: Shift
    segments: tuple[Segment, ...]
    moved: tuple[int, ...]  # rows by the size of their difference, largest first


def difference(
    scored: Scored, *, metric: str, decide_at: float | None, segment_rows: int = 100, rounds: int = 1_000, seed: int = 7
) -> Difference:
    """`metric` is shown per segment; `decide_at` is where a binary task's score becomes a decision."""
    labelled = np.isfinite(scored.labels)
    first, second = _sides(scored)
    known, change = scored.take(labelled), second - first
    by_size = np.argsort(-np.abs(change), kind="stable")[:_MOVED]
    return Difference(
        rows=len(change),
        labelled=len(known.labels),
        metrics=measured(scored.task, known.labels, known.first, known.second, rounds=rounds, seed=seed),
        tau=_tau(scored),
        changed_decisions=changed(scored.first, scored.second, decide_at),
        calibration=(_calibration(known, known.first), _calibration(known, known.second)),
        scores=_histogram(first, second),
        shift=_shift(change),
        segments=tuple(_segments(scored, metric, decide_at, segment_rows)),
        moved=tuple(by_size[change[by_size] != 0].tolist()),
    )


def _segments(scored: Scored, metric: str, decide_at: float | None, least: int) -> list[Segment]:
    """By column, most rows first."""
    found = []
    for column, values in scored.categories.items():
        codes: dict[str | None, int] = {}
        coded = np.array([codes.setdefault(value, len(codes)) for value in values], np.int64)
        sizes, names = np.bincount(coded, minlength=len(codes)), list(codes)
        order = np.argsort(-sizes, kind="stable")[:_MOST_VALUES]
        for code in order[sizes[order] >= max(1, least)].tolist():
            part = scored.take(coded == code)
            known = part.take(np.isfinite(part.labels))
            found.append(
                Segment(
                    column=column,
                    value=names[code],
                    rows=int(sizes[code]),
                    labelled=len(known.labels),
                    mean_difference=float(np.mean(np.subtract(*reversed(_sides(part))))),
                    changed_decisions=changed(part.first, part.second, decide_at),
                    tau=_tau(part),
                    first=_said(METRICS[metric](known.labels, known.first)),
                    second=_said(METRICS[metric](known.labels, known.second)),
                )
            )
    return found


def _sides(scored: Scored) -> tuple[Array, Array]:
    """[n] of both: of several classes, what each gives to the class that the first one holds likeliest."""
    if scored.first.ndim == 1:
        return scored.first, scored.second
    rows, likeliest = np.arange(len(scored.first)), decided(scored.first)
    return scored.first[rows, likeliest], scored.second[rows, likeliest]


def _tau(scored: Scored) -> float | None:
    """None for several classes: they put no order on rows."""
    return _said(kendall_tau(scored.first, scored.second)) if scored.first.ndim == 1 else None


def _calibration(known: Scored, scores: NDArray[np.float64]) -> float | None:
    return None if known.task != "binary" else _said(calibration_error(known.labels, scores))


def _histogram(first: Array, second: Array) -> Histogram:
    both = np.concatenate([first, second])
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    if high - low <= _SAME * max(1.0, abs(low), abs(high)):
        low, high = low - max(0.5, _SAME * abs(low)), high + max(0.5, _SAME * abs(high))
    edges = np.linspace(low, high, _BINS + 1)
    joint = np.histogram2d(first, second, bins=(edges, edges))[0].astype(np.int64)
    return Histogram(
        edges=tuple(edges.tolist()),
        first=tuple(joint.sum(axis=1).tolist()),
        second=tuple(joint.sum(axis=0).tolist()),
        both=tuple(tuple(row) for row in joint.tolist()),
    )


def _shift(change: Array) -> Shift:
    size = np.abs(change)
    most = float(size.max(initial=0.0))
    most = most if most > _SAME else 0.5
    counts, edges = np.histogram(change, bins=np.linspace(-most, most, _DIFFERENCE_BINS + 1))
    there = len(change) > 0
    return Shift(
        mean=float(change.mean()) if there else None,
        mean_absolute=float(size.mean()) if there else None,
        quantiles={f"{share:g}": float(np.quantile(size, share)) for share in _QUANTILES} if there else {},
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )


def _said(value: float) -> float | None:
    return value if isfinite(value) else None
