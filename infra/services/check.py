"""samples of a pipeline's topics → a report: what its rows decode to, and whether its network can learn from them.

Nothing is published and no server is asked: rows go through the code that serves and trains (`headrace.testing`).
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.row_format import readable
from headrace.infra.services.check_findings import (
    about_columns,
    about_events,
    about_labels,
    about_leaks,
    error,
    warning,
)
from headrace.infra.services.check_report import (
    CheckReport,
    ColumnReport,
    Finding,
    LabelReport,
    Overfit,
    Rejections,
    Shapes,
)
from headrace.models.durations import iso
from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns, Dataset, TrainContext
from headrace.streams.codec import clock_ms
from headrace.testing import DeadLetter, Replayed, replay
from headrace.trainer.dataset import to_columns
from headrace.trainer.encoding import fit
from headrace.trainer.learners import Torch

_BATCH_ROWS = 64  # what a network of any size can learn by heart
_EPOCHS = 400  # steps on that batch
_LEARNT = 0.5  # of the first loss: above it, the batch was not learnt by heart
_TOP = 5  # values of a category that are shown
_SHOWN = 200  # characters of a rejected record


def check(
    pipeline: Pipeline,
    events: Iterable[bytes],
    labels: Iterable[bytes] | None = None,
    side_rows: Mapping[str, Iterable[bytes]] | None = None,
    *,
    now_ms: int | None = None,
) -> CheckReport:
    """`now_ms` is the clock, Unix ms: what lies ahead of it counts as from the future, the machine's by default."""
    values, label_values = list(events), None if labels is None else list(labels)
    sides = {topic: list(rows) for topic, rows in (side_rows or {}).items()}
    clock = clock_ms() if now_ms is None else now_ms
    replayed = replay(pipeline, values, side_rows=sides, labels=label_values or (), now=clock)
    columns, decoded = _columns(pipeline, replayed)
    times = _times(replayed)

    dataset = None
    if decoded and label_values is not None:  # as if trained when the newest event's horizon has closed
        dataset = replayed.dataset(at=int(times.max()) + pipeline.label.within_ms)
    label_report = _labels(replayed, decoded) if label_values is not None else None
    reports = tuple(_column(column, columns[column.name]) for column in pipeline.columns) if decoded else ()
    findings = [
        *about_events(pipeline, replayed, len(values), times, clock),
        *about_columns(pipeline, reports, decoded, sides),
        *(about_labels(pipeline, replayed, label_report, dataset) if label_report else []),
    ]
    overfit, skipped = None, "no labels in the sample." if label_values is None else "no labelled rows."
    if dataset is not None and len(dataset):
        findings += about_leaks(pipeline, dataset)
        overfit, skipped, about = _overfit(pipeline, dataset)
        findings += about
    order = ("error", "warning", "note")
    return CheckReport(
        pipeline=pipeline.name,
        events=len(values),
        decoded=decoded,
        first_event=iso(int(times.min())) if decoded else "",
        last_event=iso(int(times.max())) if decoded else "",
        side_rows={topic: len(rows) for topic, rows in sides.items()},
        columns=reports,
        rejected=_rejections(pipeline, replayed.dead_letters),
        labels=label_report,
        shapes=_shapes(pipeline, columns) if decoded else None,
        overfit=overfit,
        skipped=skipped,
        findings=tuple(sorted(findings, key=lambda found: order.index(found.level))),
    )


# ── what the rows are ─────────────────────────────────────────────────────────────────────────────────────────────────


def _columns(pipeline: Pipeline, replayed: Replayed) -> tuple[Columns, int]:
    if not replayed.served:
        return {}, 0
    table = pa.Table.from_batches(replayed.served)
    return to_columns(table, pipeline.schema), len(table)


def _times(replayed: Replayed) -> NDArray[np.int64]:
    batches = [batch.column("event_time").cast(pa.int64()).to_numpy() for batch in replayed.served]
    return np.concatenate(batches) if batches else np.empty(0, np.int64)


def _column(column: Column, values: NDArray[Any]) -> ColumnReport:
    if column.kind == "tensor":
        return ColumnReport(name=column.name, kind=column.kind, missing=0.0)
    if column.kind == "category":
        counted = Counter(value for value in values.tolist() if value is not None)
        top = tuple((value, count / len(values)) for value, count in counted.most_common(_TOP))
        missing = 1 - counted.total() / len(values)
        return ColumnReport(name=column.name, kind=column.kind, missing=missing, distinct=len(counted), top=top)
    known = values[~np.isnan(values)]
    return ColumnReport(
        name=column.name,
        kind=column.kind,
        missing=1 - len(known) / len(values),
        distinct=len(np.unique(known)),
        minimum=float(known.min()) if len(known) else None,
        mean=float(known.mean()) if len(known) else None,
        maximum=float(known.max()) if len(known) else None,
    )


def _rejections(pipeline: Pipeline, letters: Sequence[DeadLetter]) -> tuple[Rejections, ...]:
    formats = {topic.name: topic.format for topic in pipeline.inputs}
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.topic, letter.reason), []).append(letter)
    return tuple(
        Rejections(
            topic=topic,
            reason=reason,
            count=len(found),
            detail=_printable(found[0].detail),
            example=_printable(readable(found[0].value or b"", formats[topic])[:_SHOWN]),
        )
        for (topic, reason), found in groups.items()
    )


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _labels(replayed: Replayed, decoded: int) -> LabelReport:
    joined, counts = replayed.joined, replayed.counts
    return LabelReport(
        rows=len(replayed.labels),
        joined=counts.joined if counts else 0,
        matched=counts.joined / decoded if counts else 0.0,
        mean=float(np.mean([row.label for row in joined])) if joined else None,
        unknown=counts.labels_unknown if counts else len(replayed.labels),
        late=counts.labels_late if counts else 0,
        early=counts.labels_early if counts else 0,
        repeated=counts.labels_repeated if counts else 0,
    )


def _shapes(pipeline: Pipeline, columns: Columns) -> Shapes:
    schema = pipeline.schema
    inputs = fit(columns, schema).inputs
    return Shapes(
        numbers=inputs.numbers,
        categories={column.name: size for column, size in zip(schema.categories, inputs.categories, strict=True)},
        tensors={column.name: column.shape for column in schema.tensors},
    )


# ── what to think of them ─────────────────────────────────────────────────────────────────────────────────────────────


def _overfit(pipeline: Pipeline, dataset: Dataset) -> tuple[Overfit | None, str, list[Finding]]:
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
    )
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-") as cache:
            trained = by_heart.train(batch, TrainContext(schema=pipeline.schema, cache=Path(cache)))
        from headrace.trainer.export import TOLERANCE  # noqa: PLC0415  it brings torch, which is there by now
    except RunFailed as failed:
        if failed.reason == "no_learner":
            return None, failed.detail, []
        return None, f"{failed.reason}.", [error(f"the learner fails on one batch: {failed.detail}")]
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
        return (
            made,
            "",
            [warning(f"the network does not learn one batch by heart ({change}): look at its size and lr.")],
        )
    return made, "", []


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
