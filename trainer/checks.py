"""training rows + holdout → findings: what would spoil a training, or says that it was in vain.

`headrace check` shows the same of a sample. Large datasets are looked at by rows spread evenly over them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.checks import (
    BASELINE,
    CONSTANT,
    DRIFT,
    DUPLICATES,
    EXPLODING,
    IDENTIFYING,
    LABEL_RATE,
    LEAKAGE,
    Checks,
    name_of,
)
from headrace.models.drift import SCORE, counts_of, distances, reference_of
from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.findings import Finding
from headrace.models.imports import load
from headrace.models.manifest import Reference
from headrace.models.metrics import log_loss, rmse, roc_auc
from headrace.models.protocols import Columns, Dataset, Evidence
from headrace.models.schema import Schema
from headrace.trainer.matching import Counts

_LOOKED_AT = 50_000  # rows
_ENOUGH = 50  # rows, below which nothing is said of a column
_NAMED = 5  # columns of one kind of finding
_SURE = 3.29  # standard errors: by chance once in a thousand runs


def before_training(checks: Checks, schema: Schema, train: Dataset, holdout: Dataset, counts: Counts) -> list[Finding]:
    """`counts` are of the join. Raises RunFailed("check_raised") of a user's own check."""
    rows, newest = _spread(train), _spread(holdout)
    found = [*about_columns(checks, schema.columns, rows.columns, len(rows)), *about_leaks(checks, schema, rows)]
    found += _ids(checks, counts)
    if len(newest) >= _ENOUGH:
        found += [*_label_rate(checks, train, holdout), *_drift(checks, schema, rows, newest)]
    return [*found, *_own(checks, train, holdout)]


def after_training(checks: Checks, evidence: Evidence, train: Dataset) -> list[Finding]:
    """Whether it beats the best constant: on a holdout that is other than the training rows, not even that is sure."""
    if not checks.wants(BASELINE) or evidence.task not in ("binary", "regression"):
        return []
    name, measure = ("log_loss", log_loss) if evidence.task == "binary" else ("rmse", rmse)
    constant = float(train.labels.mean())
    made = measure(evidence.labels, evidence.candidate)
    simple = measure(evidence.labels, np.full(len(evidence.labels), constant))
    if made < simple:
        return []
    said = f"its {name} on the holdout is {made:.4g}; to answer {constant:.4g} to everything has {simple:.4g}"
    return [checks.finding(BASELINE, f"{said}: look at its features, its learning rate and the label.")]


def failing(findings: Iterable[Finding]) -> RunFailed | None:
    """The first error as the end of the run."""
    errors = [finding for finding in findings if finding.severity == "error"]
    return RunFailed(errors[0].name, " ".join(error.text for error in errors)) if errors else None


def about_columns(
    checks: Checks, columns: Iterable[Column], values: Columns, rows: int, *, but: frozenset[str] = frozenset()
) -> list[Finding]:
    """Of raw columns [rows], without those named in `but`."""
    kinds: dict[str, list[str]] = {CONSTANT: [], EXPLODING: [], IDENTIFYING: []}
    for column in columns:
        if column.kind == "tensor" or column.name in but or not rows:
            continue
        looked = _Looked.at(values[column.name])
        if looked.distinct == 0:
            kinds[CONSTANT].append(f"column {column.name!r} is missing in every row.")
        elif looked.distinct == 1 and looked.known == rows:
            kinds[CONSTANT].append(f"column {column.name!r} has one value only: nothing can be learnt from it.")
        if column.kind == "number":
            kinds[EXPLODING] += _exploding(checks, column.name, values[column.name])
        elif rows >= _ENOUGH and looked.distinct > checks.identifying * rows:
            kinds[IDENTIFYING].append(
                f"column {column.name!r} has {looked.distinct} values in {rows} rows: it looks like an id."
            )
    return [one for name, texts in kinds.items() for one in _findings(checks, name, texts)]


def about_leaks(checks: Checks, schema: Schema, dataset: Dataset) -> list[Finding]:
    """What alone knows the label was usually measured after it: a number, a value of a category, or what is missing.

    By the area under the ROC curve; of a category by the label's mean per value, of other rows than are judged.
    """
    if len(dataset) < _ENOUGH or not checks.wants(LEAKAGE):
        return []
    texts = []
    for column in (*schema.numbers, *schema.categories):
        values = dataset.columns[column.name]
        auc, how = max((_telling(values, target) for target in _targets(dataset)), default=(0.5, ""))
        if auc >= checks.leakage_auc:
            texts.append(
                f"{how}column {column.name!r} alone knows the label (AUC {auc:.3f} of {len(dataset):,} rows): "
                "is it known by then?"
            )
    return _findings(checks, LEAKAGE, texts)


# ── columns ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Looked:
    known: int
    distinct: int

    @classmethod
    def at(cls, values: NDArray[Any]) -> "_Looked":
        if values.dtype == object:
            there = [value for value in values.tolist() if value is not None]
            return cls(len(there), len(set(there)))
        there = values[~np.isnan(values)]
        return cls(len(there), len(np.unique(there)))


def _exploding(checks: Checks, name: str, values: NDArray[np.float64]) -> Iterator[str]:
    sizes = np.abs(values[~np.isnan(values)])
    if infinite := int(np.isinf(sizes).sum()):
        yield f"column {name!r} is infinite in {infinite:,} of {len(values):,} rows: look at how it is made."
    elif len(sizes) >= _ENOUGH:
        usual, largest = float(np.quantile(sizes, 0.99)), float(sizes.max())
        if usual > 0 and largest > checks.exploding * usual:
            yield (
                f"column {name!r} has {largest:.3g}, {largest / usual:,.0f} times its 99th percentile: "
                "clip it, take its logarithm, or mend what makes it."
            )


def _targets(dataset: Dataset) -> list[NDArray[np.bool_]]:
    """The label as yes or no: as it is, each of several classes, or whether it is above the median."""
    if dataset.task == "binary":
        return [dataset.labels > 0.5]
    if dataset.task == "regression":
        return [dataset.labels > np.median(dataset.labels)]
    return [dataset.labels == label for label in np.unique(dataset.labels)]


def _telling(values: NDArray[Any], target: NDArray[np.bool_]) -> tuple[float, str]:
    """The AUC of one column, and of what of it; 0.5 where there are too few rows to say."""
    if values.dtype == object:
        return _area(*_means(values, target)), ""
    known = ~np.isnan(values)
    by_value = _area(target[known], values[known])
    by_absence = _area(target, (~known).astype(np.float64)) if _ENOUGH <= known.sum() <= len(known) - _ENOUGH else 0.5
    return (by_absence, "whether there is a value in ") if by_absence > by_value else (by_value, "")


def _area(target: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    few = min(int(target.sum()), int((~target).sum()))
    if len(target) < _ENOUGH or few < _ENOUGH // 10:
        return 0.5
    auc = roc_auc(target.astype(np.float64), scores)
    return max(auc, 1 - auc)


def _means(values: NDArray[Any], target: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The target of every other row, and its mean by value over the rows between them; the mean of all for new ones."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(values[::2].tolist()))}
    ones, counts = np.zeros(len(codes)), np.zeros(len(codes))
    of_fitted = np.array([codes[value] for value in values[::2].tolist()], np.int64)
    np.add.at(ones, of_fitted, target[::2])
    np.add.at(counts, of_fitted, 1)
    mean = float(target[::2].mean())
    means = (ones + mean) / (counts + 1)
    return target[1::2], np.array([means[codes[v]] if v in codes else mean for v in values[1::2].tolist()], np.float64)


# ── training rows against the holdout ─────────────────────────────────────────────────────────────────────────────────


def _label_rate(checks: Checks, train: Dataset, holdout: Dataset) -> list[Finding]:
    before, after = train.labels, holdout.labels
    if train.task not in ("binary", "regression"):
        return []
    moved = float(after.mean() - before.mean())
    error = float(before.std() * np.sqrt(1 / len(before) + 1 / len(after)))
    usual = min(before.mean(), 1 - before.mean()) if train.task == "binary" else before.std()
    if not abs(moved) > max(_SURE * error, checks.label_rate * float(usual)):
        return []
    what = "rate" if train.task == "binary" else "mean"
    text = (
        f"the label's {what} moved from {before.mean():.3g} in {len(before):,} training rows to {after.mean():.3g} in "
        f"{len(after):,} held-out ones: look at what makes labels, or shorten the window."
    )
    return _findings(checks, LABEL_RATE, [text])


def _drift(checks: Checks, schema: Schema, train: Dataset, holdout: Dataset) -> list[Finding]:
    made = reference_of(schema, train.columns, np.empty(0))
    reference = Reference(columns={name: column for name, column in made.columns.items() if name != SCORE})
    counts = {name: counts_of(column, holdout.columns[name]) for name, column in reference.columns.items()}
    far = [one for one in distances(reference, counts) if one.psi >= checks.drift_psi]
    if not far:
        return []
    named = ", ".join(f"{one.column} (PSI {one.psi:.2f})" for one in far[:_NAMED])
    text = (
        f"{len(far)} of {len(counts)} columns lie otherwise in the holdout than in the training rows, most of all "
        f"{named}: if this is no season, look at their sources, or shorten the window."
    )
    return _findings(checks, DRIFT, [text])


def _ids(checks: Checks, counts: Counts) -> list[Finding]:
    if not counts.same_id:
        return []
    rows = counts.joined + counts.filled
    text = f"{counts.same_id:,} of {rows:,} rows have the id of another one, and so its label: ids should be unique."
    return _findings(checks, DUPLICATES, [text])


# ── a user's own ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _own(checks: Checks, train: Dataset, holdout: Dataset) -> list[Finding]:
    found = []
    for place in checks.own:
        name = name_of(place)
        if not checks.wants(name):
            continue
        try:
            said = load(place)(train, holdout)
            texts = [said] if isinstance(said, str) else [str(text) for text in said or ()]
        except Exception as error:
            raise RunFailed("check_raised", f"{name}: {type(error).__name__}: {error}") from error
        found += _findings(checks, name, texts)
    return found


def _findings(checks: Checks, name: str, texts: Sequence[str]) -> list[Finding]:
    """One each, up to a few: a table of a thousand columns is not to fill the manifest."""
    if not checks.wants(name):
        return []
    shown = [*texts[:_NAMED], *([f"and {len(texts) - _NAMED} columns more."] if len(texts) > _NAMED else [])]
    return [checks.finding(name, text) for text in shown]


def _spread(dataset: Dataset) -> Dataset:
    return dataset.take(slice(None, None, max(1, -(-len(dataset) // _LOOKED_AT))))
