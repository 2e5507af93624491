"""rows that are new since the champion → its linear model, moved by them → ONNX: numpy alone, seeded, no exporter.

Which rows are new is in the graph's own metadata: up to which event time was trained, and what was known by then.
"""

from dataclasses import asdict, replace
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.models.protocols import Columns, Dataset, TrainContext, Trained
from headrace.trainer.encoding import MAX_VOCABULARY, Encoded, Encoder, fit
from headrace.trainer.head import Head, head_of
from headrace.trainer.learners import Online
from headrace.trainer.linear_graph import Learnt, graph_of, learnt_of, model_of, zeros
from headrace.trainer.parity import parity
from headrace.trainer.sgd import Descent, Linear, batch_of, dense_of
from headrace.trainer.warm_start import FromScratch, start_of

_SAMPLE_ROWS = 256  # real rows for the parity check
_BLOCK_ROWS = 65_536  # encoded at a time


def train(settings: Online, dataset: Dataset, context: TrainContext) -> Trained:
    random = np.random.default_rng(settings.seed)
    head = head_of(dataset.labels, dataset.task, len(context.classes))
    try:
        start = start_of(context.champion, context.schema, head)
        model, learnt = model_of(start), learnt_of(start)
    except FromScratch as reason:
        began = f"from scratch: {reason}"
        encoder = fit(dataset.columns, context.schema)
        model, learnt = zeros(encoder, head), Learnt()
        passes = [random.permutation(len(dataset)) for _ in range(settings.first_epochs)]
    else:
        began, head = f"version {start.version}", start.head
        new = np.flatnonzero((dataset.times > learnt.through) | (_known(dataset) > learnt.known))
        if not len(new):
            raise RunFailed("too_few_rows", f"none of {len(dataset)} rows is new since version {start.version}")
        encoder, model = _widened(start.encoder, model, dataset.take(new).columns)
        passes = [_rehearsed(new, len(dataset), settings, random) for _ in range(settings.epochs)]

    losses, steps = [], learnt.steps
    for rows in passes:
        loss, steps = _learn(model, encoder, head, dataset, rows, settings, steps)
        losses.append(loss)
        context.progress({"epoch": len(losses), "loss": loss})
    learnt = Learnt(
        steps=steps,
        rows=learnt.rows + sum(map(len, passes)),
        through=max(learnt.through, int(dataset.times.max())),
        known=max(learnt.known, int(_known(dataset).max())),
    )
    onnx = graph_of(model, encoder, head, learnt)
    sample = dataset.take(slice(-_SAMPLE_ROWS, None)).columns
    parity(partial(_values, model, head), encoder, onnx, sample, head)
    said = {"warm_start": began, "epoch_rows": len(passes[0]), **msgspec.structs.asdict(learnt)}
    return Trained(onnx=onnx, hyperparameters=asdict(settings) | said, curves={"loss": losses})


def _learn(
    model: Linear, encoder: Encoder, head: Head, dataset: Dataset, rows: NDArray[np.intp], settings: Online, steps: int
) -> tuple[float, int]:
    """One pass over the rows, in their order. Their mean loss, each before it was learnt from; and the steps so far."""
    how = Descent(lr=settings.lr, power=settings.power, l2=settings.l2, l1=settings.l1)
    size, total = settings.batch_size, 0.0
    block_rows = max(1, _BLOCK_ROWS // size) * size
    for first in range(0, len(rows), block_rows):
        block = dataset.take(rows[first : first + block_rows])
        batch = batch_of(block, encoder, head)
        for begin in range(0, len(block), size):
            steps += 1
            with np.errstate(over="ignore", invalid="ignore"):  # a loss that runs away is told below
                losses = model.step(batch.take(slice(begin, begin + size)), head, how, steps)
            total += float(losses.sum())
        if not np.isfinite(total):
            raise RunFailed("loss_not_finite", f"the loss is {total} after {steps} steps; lower lr or look at the rows")
    return total / len(rows), steps


def _values(model: Linear, head: Head, encoded: Encoded) -> NDArray[np.float64]:
    values = model.values(dense_of(encoded), encoded.categories)
    return values if head.classes else values[:, 0]


# ── which rows ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _known(dataset: Dataset) -> NDArray[np.int64]:
    return dataset.times if dataset.label_times is None else dataset.label_times


def _rehearsed(new: NDArray[np.intp], rows: int, settings: Online, random: np.random.Generator) -> NDArray[np.intp]:
    """The new rows in order; where older ones are drawn, against forgetting, all of them shuffled."""
    old = np.setdiff1d(np.arange(rows), new, assume_unique=True)
    drawn = random.choice(old, min(len(old), round(settings.rehearse * len(new))), replace=False)
    return random.permutation(np.concatenate([new, drawn])) if len(drawn) else new


def _widened(encoder: Encoder, model: Linear, columns: Columns) -> tuple[Encoder, Linear]:
    """Values that were unknown so far get a weight of their own, which begins as that of the unknown one."""
    vocabularies, tables = [], []
    for column, vocabulary, table in zip(encoder.schema.categories, encoder.vocabularies, model.tables, strict=True):
        seen = pc.unique(pa.array(columns[column.name], pa.string(), from_pandas=True).drop_null()).to_pylist()
        new = sorted(set(seen) - set(vocabulary) - {""})[: MAX_VOCABULARY - len(vocabulary)]
        vocabularies.append((*vocabulary, *new))
        tables.append(np.concatenate([table, np.repeat(table[:1], len(new), axis=0)]))
    return replace(encoder, vocabularies=tuple(vocabularies)), replace(model, tables=tuple(tables))
