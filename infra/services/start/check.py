"""samples of a pipeline's topics → a report: what its rows decode to, and whether its network can learn from them.

Nothing is published and no server is asked: rows go through the code that serves and trains (`headrace.testing`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.row_format import readable
from headrace.infra.services.start.check_findings import (
    about_events,
    about_labels,
    about_side_topics,
    about_training,
    unfed,
)
from headrace.infra.services.start.check_report import CheckReport, ColumnReport, LabelReport, Rejections, Shapes
from headrace.models.durations import iso
from headrace.models.features import Column
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns
from headrace.streams.codec import clock_ms
from headrace.testing import DeadLetter, Replayed, replay
from headrace.trainer.checks import about_columns
from headrace.trainer.dataset import to_columns
from headrace.trainer.encoding import fit
from headrace.trainer.sanity import overfit as overfitted

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

    dataset, at = None, int(times.max(initial=0)) + pipeline.label.within_ms
    if decoded and label_values is not None:  # as if trained when the newest event's horizon has closed
        dataset = replayed.dataset(at=at, with_anchor=True)  # a sample may be smaller than the anchor
    label_report = _labels(replayed, decoded) if label_values is not None else None
    reports = tuple(_column(column, columns[column.name]) for column in pipeline.columns) if decoded else ()
    findings = [
        *about_events(pipeline, replayed, len(values), times, clock),
        *about_side_topics(pipeline, sides),
        *about_columns(pipeline.checks, pipeline.columns, columns, decoded, but=unfed(pipeline, sides)),
        *(about_labels(pipeline, replayed, label_report, dataset) if label_report else []),
    ]
    overfit, skipped = None, "no labels in the sample." if label_values is None else "no labelled rows."
    if dataset is not None and len(dataset):
        findings += about_training(pipeline, dataset, at)
        overfit, skipped, about = overfitted(pipeline, dataset)
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
        findings=tuple(sorted(findings, key=lambda found: order.index(found.severity))),
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
    joined, counts, classes = replayed.joined, replayed.counts, replayed.pipeline.label.classes
    values = np.array([row.label for row in joined])
    return LabelReport(
        rows=len(replayed.labels),
        joined=counts.joined if counts else 0,
        matched=counts.joined / decoded if counts else 0.0,
        mean=float(values.mean()) if joined and not classes else None,
        shares={name: float(np.mean(values == at)) for at, name in enumerate(classes)} if joined else {},
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
