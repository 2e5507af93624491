"""samples of a pipeline's topics → a report: what its rows decode to, and whether its network can learn from them.

Nothing is published and no server is asked: rows go through the code that serves and trains (`headrace.testing`).
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.durations import iso
from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.metrics import roc_auc
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns, Dataset, TrainContext
from headrace.streams.codec import clock_ms
from headrace.testing import DeadLetter, Replayed, replay
from headrace.trainer.dataset import to_columns
from headrace.trainer.encoding import fit
from headrace.trainer.learners import Torch

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_BATCH_ROWS = 64  # what a network of any size can learn by heart
_EPOCHS = 400  # steps on that batch
_LEARNT = 0.5  # of the first loss: above it, the batch was not learnt by heart
_TOP = 5  # values of a category that are shown
_SHOWN = 200  # characters of a rejected record
_ID_LIKE = 0.5  # distinct values per row, from which on a category identifies rows
_TELLING = 0.99  # the AUC of one column alone, from which on it knows the label
_ENOUGH_ROWS = 50  # below that, neither of the two says anything


@dataclass(frozen=True, kw_only=True)
class Finding:
    level: Literal["error", "warning", "note"]
    text: str


@dataclass(frozen=True, kw_only=True)
class ColumnReport:
    """Numbers have a range, categories their most frequent values with shares; tensors neither."""

    name: str
    kind: str
    missing: float  # share of rows
    distinct: int = 0
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rejections:
    """Rows of one topic that would end as dead letters for one reason, and the first of them."""

    topic: str
    reason: str
    count: int
    detail: str
    example: str


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    rows: int  # usable labels in the sample
    joined: int  # events that found their label
    matched: float  # share of events that did
    mean: float | None  # over the joined rows: the label rate of a binary task
    unknown: int  # labels without an event in the sample
    late: int
    early: int
    repeated: int


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What the network is given: float32[n, numbers], int64[n, categories], and the tensors."""

    numbers: int  # missing flags included
    categories: dict[str, int]  # cardinality of each, unknown included
    tensors: dict[str, tuple[int, ...]]


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


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    pipeline: str
    events: int
    decoded: int
    first_event: str  # event times, RFC 3339 UTC; "" where no event decoded
    last_event: str
    side_rows: dict[str, int]
    columns: tuple[ColumnReport, ...]
    rejected: tuple[Rejections, ...]
    labels: LabelReport | None
    shapes: Shapes | None
    overfit: Overfit | None
    skipped: str  # why no batch was overfitted; "" where one was
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)

    def to_text(self, width: int = 120) -> str:
        from rich.console import Console  # noqa: PLC0415  only who prints needs it

        out = StringIO()
        Console(file=out, width=width, color_system=None).print(self)
        return out.getvalue()

    def __rich__(self) -> "RenderableType":
        from rich.console import Group  # noqa: PLC0415  as above
        from rich.text import Text  # noqa: PLC0415

        span = f" from {self.first_event} to {self.last_event}" if self.decoded else ""
        parts: list[RenderableType] = [Text(f"{self.pipeline}: {self.decoded} of {self.events} events decode{span}")]
        parts += [Text(f"side topic {topic}: {rows} rows") for topic, rows in self.side_rows.items()]
        if self.columns:
            parts.append(self._column_table())
        if self.rejected:
            parts.append(self._rejection_table())
        parts += [Text(line) for line in self._sentences()]
        marks = {"error": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "cyan")}
        parts += [Text(f"{marks[found.level][0]} {found.text}", marks[found.level][1]) for found in self.findings]
        if not self.findings:
            parts.append(Text("✓ nothing to complain about", "green"))
        return Group(*parts)

    def _column_table(self) -> "Table":
        from rich.table import Table  # noqa: PLC0415  as above

        table = Table("column", "kind", "missing", "distinct", "min", "mean", "max", "most frequent")
        table.columns[0].overflow = "fold"  # long names differ at their ends
        for column in self.columns:
            numbers = [_figure(value) for value in (column.minimum, column.mean, column.maximum)]
            top = ", ".join(f"{value} {share:.0%}" for value, share in column.top)
            table.add_row(column.name, column.kind, f"{column.missing:.1%}", str(column.distinct), *numbers, top)
        return table

    def _rejection_table(self) -> "Table":
        from rich.markup import escape  # noqa: PLC0415  as above
        from rich.table import Table  # noqa: PLC0415

        table = Table("topic", "dead letters", "reason", "for example")
        for found in self.rejected:
            table.add_row(found.topic, str(found.count), found.reason, escape(f"{found.detail}\n{found.example}"))
        return table

    def _sentences(self) -> list[str]:
        lines = []
        if self.labels:
            kept = f"{self.labels.joined} of {self.decoded} events have their label ({self.labels.matched:.1%})"
            lines.append(f"labels: {self.labels.rows}; {kept}; mean {_figure(self.labels.mean)}")
        if self.shapes:
            sizes = ", ".join(f"{name} {size}" for name, size in self.shapes.categories.items())
            tensors = "".join(
                f"; {name} float32[n, {', '.join(map(str, shape))}]" for name, shape in self.shapes.tensors.items()
            )
            given = f"numbers float32[n, {self.shapes.numbers}], categories int64[n, {len(self.shapes.categories)}]"
            lines.append(f"network input: {given} ({sizes or 'none'}){tensors} → [n]")
        if self.overfit:
            made = self.overfit
            losses = f"loss {_figure(made.first_loss)} → {_figure(made.last_loss)}"
            lines.append(f"one batch of {made.rows} rows, {made.epochs} epochs, {made.parameters} parameters: {losses}")
            lines.append(f"ONNX: {made.onnx_bytes} bytes, agrees with torch to within {made.tolerance:g}")
        if self.skipped:
            lines.append(f"no batch was overfitted: {self.skipped}")
        return lines


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
        *_about_events(pipeline, replayed, len(values), times, clock),
        *_about_columns(pipeline, reports, decoded, sides),
        *(_about_labels(pipeline, replayed, label_report, dataset) if label_report else []),
    ]
    overfit, skipped = None, "no labels in the sample." if label_values is None else "no labelled rows."
    if dataset is not None and len(dataset):
        findings += _about_leaks(pipeline, dataset)
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
        rejected=_rejections(replayed.dead_letters),
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


def _rejections(letters: Sequence[DeadLetter]) -> tuple[Rejections, ...]:
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.topic, letter.reason), []).append(letter)
    return tuple(
        Rejections(
            topic=topic,
            reason=reason,
            count=len(found),
            detail=_printable(found[0].detail),
            example=_printable((found[0].value or b"").decode(errors="replace")[:_SHOWN]),
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


def _about_events(
    pipeline: Pipeline, replayed: Replayed, events: int, times: NDArray[np.int64], clock: int
) -> list[Finding]:
    if not events:
        return [_error("there is no event in the sample.")]
    if not len(times):
        return [_error(f"none of {events} events decodes: see the dead letters.")]
    found = []
    if len(times) < events:
        found.append(_warning(f"{events - len(times)} of {events} events would end as dead letters."))
    ids = [prediction.id for prediction in replayed.predictions]
    if repeated := len(ids) - len(set(ids)):
        most = Counter(ids).most_common(1)[0][0]
        found.append(
            _warning(
                f"{repeated} event ids are there again, {most!r} among them: {pipeline.events.id!r} should be unique."
            )
        )
    if times.max() < clock - pipeline.train_on.window_ms:
        found.append(
            _note(f"the newest event is older than train_on's {pipeline.train_on.window}: use backfill, in event time.")
        )
    return found


def _about_columns(
    pipeline: Pipeline, reports: Sequence[ColumnReport], rows: int, sides: Mapping[str, Sequence[bytes]]
) -> list[Finding]:
    found = [
        _note(f"no rows of side topic {topic.name!r} were given: its features are missing here.")
        for topic in pipeline.side_topics
        if topic.name not in sides
    ]
    unfed = {
        column.name for feature in pipeline.stored if feature.topic.name not in sides for column in feature.columns
    }
    for column in reports:
        if column.name in unfed or column.kind == "tensor":
            continue
        if column.missing == 1:
            found.append(_warning(f"column {column.name!r} is missing in every row."))
        elif column.distinct == 1 and not column.missing:
            found.append(_warning(f"column {column.name!r} has one value only: nothing can be learnt from it."))
        elif column.kind == "category" and rows >= _ENOUGH_ROWS and column.distinct > _ID_LIKE * rows:
            found.append(
                _warning(f"column {column.name!r} has {column.distinct} values in {rows} rows: it looks like an id.")
            )
    return found


def _about_labels(
    pipeline: Pipeline, replayed: Replayed, labels: LabelReport, dataset: Dataset | None
) -> list[Finding]:
    if not labels.rows:
        return [_error("no label of the sample decodes.")]
    if not replayed.predictions:
        return []
    if not labels.joined:
        if labels.unknown == labels.rows:
            event, label = replayed.predictions[0].id, replayed.labels[0].id
            return [_error(f"no label has the id of an event: events have {event!r}, labels {label!r}.")]
        where = f"{labels.early} come before their event, {labels.late} after within={pipeline.label.within!r}"
        return [_error(f"no label lies within its event's horizon: {where}.")]
    found = []
    if labels.mean in (0.0, 1.0) and pipeline.label.task == "binary":
        found.append(_error(f"every label is {labels.mean:g}: look at the label's field and at_least."))
    if labels.early:
        found.append(_warning(f"{labels.early} labels come before their event and are not used."))
    if labels.late:
        found.append(_warning(f"{labels.late} labels come after within={pipeline.label.within!r} and are not used."))
    if dataset is not None and len(dataset) < pipeline.train_on.min_rows:
        need = f"a training needs {pipeline.train_on.min_rows} before the holdout"
        found.append(_note(f"{len(dataset)} labelled rows lie in train_on's window here; {need}."))
    return found


def _about_leaks(pipeline: Pipeline, dataset: Dataset) -> list[Finding]:
    """A number that alone knows the label was usually measured after it."""
    found = []
    if dataset.task == "binary" and len(dataset) >= _ENOUGH_ROWS:
        for column in pipeline.schema.numbers:
            values = dataset.columns[column.name]
            known = ~np.isnan(values)
            auc = roc_auc(dataset.labels[known], values[known])
            if known.sum() >= _ENOUGH_ROWS and max(auc, 1 - auc) >= _TELLING:
                found.append(
                    _warning(f"column {column.name!r} alone knows the label (AUC {auc:.3f}): is it known by then?")
                )
    return found


# ── whether it can be learnt ──────────────────────────────────────────────────────────────────────────────────────────


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
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None, "torch is not installed. Run: pip install 'headrace[train]'", []
    except RunFailed as error:
        return None, f"{error.reason}.", [_error(f"the learner fails on one batch: {error.detail}")]
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
            [_warning(f"the network does not learn one batch by heart ({change}): look at its size and lr.")],
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


def _error(text: str) -> Finding:
    return Finding(level="error", text=text)


def _warning(text: str) -> Finding:
    return Finding(level="warning", text=text)


def _note(text: str) -> Finding:
    return Finding(level="note", text=text)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
