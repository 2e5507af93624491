"""rows → one batch that the network learns by heart, or cannot: what is too small, or wired wrongly, shows at once.

Overfitting one batch is the oldest test of a network (Karpathy 2019, "A recipe for training neural networks").
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.models.findings import Finding
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Dataset, TrainContext
from headrace.trainer.learners import Torch
from headrace.trainer.parity import TOLERANCE

_BATCH_ROWS = 64  # what a network of any size can learn by heart
_EPOCHS = 400  # steps on that batch
_LEARNT = 0.5  # of the first loss: above it, the batch was not learnt by heart


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """One batch learnt by heart, and its ONNX graph."""

    rows: int
    epochs: int
    first_loss: float
    last_loss: float
    parameters: int
    onnx_bytes: int
    tolerance: float  # torch and the ONNX graph agree to within it, also on missing, unknown and extreme values


def overfit(pipeline: Pipeline, dataset: Dataset) -> tuple[Overfit | None, str, list[Finding]]:
    """What came of it, or why there was none, and what to say of it."""
    learner = pipeline.learner
    if not isinstance(learner, Torch):
        named = "the pipeline has no learner" if learner is None else f"{type(learner).__name__} is not a Torch learner"
        return None, f"{named}.", []
    batch = dataset.take(_batch(dataset))
    if dataset.task == "binary" and len(np.unique(batch.labels)) < 2:
        return None, "all its labels are the same.", []
    by_heart = replace(
        learner,
        epochs=_EPOCHS,
        batch_size=_BATCH_ROWS,
        patience=_EPOCHS,
        validation=0.0,
        unknown=0.0,
        weight_decay=0.0,
        l1=0.0,
        warm_start=False,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-") as cache:
            context = TrainContext(schema=pipeline.schema, cache=Path(cache), classes=tuple(pipeline.label.classes))
            trained = by_heart.train(batch, context)
    except RunFailed as failed:
        if failed.reason == "no_learner":
            return None, failed.detail, []
        text = f"the learner fails on one batch: {failed.detail}"
        return None, f"{failed.reason}.", [Finding(name=failed.reason, severity="error", text=text)]
    losses = trained.curves["loss"]
    made = Overfit(
        rows=len(batch),
        epochs=len(losses),
        first_loss=losses[0],
        last_loss=losses[-1],
        parameters=int(trained.hyperparameters["parameters"]),
        onnx_bytes=len(trained.onnx),
        tolerance=TOLERANCE,
    )
    if made.last_loss > _LEARNT * made.first_loss:
        change = f"{made.first_loss:.3g} → {made.last_loss:.3g}"
        text = f"the network does not learn one batch by heart ({change}): look at its size and lr."
        return made, "", [Finding(name="not_learning", severity="warning", text=text)]
    return made, "", []


def sane(pipeline: Pipeline, dataset: Dataset) -> Finding:
    """As `headrace train --sanity` asks. Raises RunFailed: not_learning, or what the learner fails as."""
    made, skipped, found = overfit(pipeline, dataset)
    if found:
        raise RunFailed(found[0].name, found[0].text)
    if made is None:
        return Finding(name="sanity", severity="note", text=f"no batch was overfitted: {skipped}")
    losses = f"loss {made.first_loss:.3g} → {made.last_loss:.3g} in {made.epochs} epochs"
    return Finding(name="sanity", severity="note", text=f"one batch of {made.rows} rows was learnt by heart: {losses}.")


def _batch(dataset: Dataset) -> NDArray[np.intp]:
    """Rows spread evenly over time; of a binary task as many of both classes as there are."""
    rows = np.arange(len(dataset))
    if dataset.task != "binary":
        return _spread(rows, _BATCH_ROWS)
    ones, zeros = rows[dataset.labels > 0.5], rows[dataset.labels <= 0.5]
    half = max(_BATCH_ROWS // 2, _BATCH_ROWS - min(len(ones), len(zeros)))
    few, many = sorted((ones, zeros), key=len)
    return np.sort(np.concatenate([_spread(few, _BATCH_ROWS - half), _spread(many, half)]))


def _spread(rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.intp)] if len(rows) > count else rows
