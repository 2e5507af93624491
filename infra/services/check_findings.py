"""decoded columns, labels and joined rows → findings: what would go wrong later, said now."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.infra.services.check_report import ColumnReport, Finding, LabelReport
from headrace.models.metrics import roc_auc
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Dataset
from headrace.testing import Replayed

_ID_LIKE = 0.5  # distinct values per row, from which on a category identifies rows
_TELLING = 0.99  # the AUC of one column alone, from which on it knows the label
_ENOUGH_ROWS = 50  # below that, neither of the two says anything


def about_events(
    pipeline: Pipeline, replayed: Replayed, events: int, times: NDArray[np.int64], clock: int
) -> list[Finding]:
    if not events:
        return [error("there is no event in the sample.")]
    if not len(times):
        return [error(f"none of {events} events decodes: see the dead letters.")]
    found = []
    if len(times) < events:
        found.append(warning(f"{events - len(times)} of {events} events would end as dead letters."))
    ids = [prediction.id for prediction in replayed.predictions]
    if repeated := len(ids) - len(set(ids)):
        most = Counter(ids).most_common(1)[0][0]
        found.append(
            warning(
                f"{repeated} event ids are there again, {most!r} among them: {pipeline.events.id!r} should be unique."
            )
        )
    if times.max() < clock - (pipeline.train_on.reach_ms or pipeline.train_on.holdout_ms):
        found.append(note("the newest event is older than train_on looks back: use backfill, in event time."))
    return found


def about_columns(
    pipeline: Pipeline, reports: Sequence[ColumnReport], rows: int, sides: Mapping[str, Sequence[bytes]]
) -> list[Finding]:
    found = [
        note(f"no rows of side topic {topic.name!r} were given: its features are missing here.")
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
            found.append(warning(f"column {column.name!r} is missing in every row."))
        elif column.distinct == 1 and not column.missing:
            found.append(warning(f"column {column.name!r} has one value only: nothing can be learnt from it."))
        elif column.kind == "category" and rows >= _ENOUGH_ROWS and column.distinct > _ID_LIKE * rows:
            found.append(
                warning(f"column {column.name!r} has {column.distinct} values in {rows} rows: it looks like an id.")
            )
    return found


def about_labels(pipeline: Pipeline, replayed: Replayed, labels: LabelReport, dataset: Dataset | None) -> list[Finding]:
    if not labels.rows:
        return [error("no label of the sample decodes.")]
    if not replayed.predictions:
        return []
    if not labels.joined:
        if labels.unknown == labels.rows:
            event, label = replayed.predictions[0].id, replayed.labels[0].id
            return [error(f"no label has the id of an event: events have {event!r}, labels {label!r}.")]
        where = f"{labels.early} come before their event, {labels.late} after within={pipeline.label.within!r}"
        return [error(f"no label lies within its event's horizon: {where}.")]
    found = []
    if labels.mean in (0.0, 1.0) and pipeline.label.task == "binary":
        found.append(error(f"every label is {labels.mean:g}: look at the label's field and at_least."))
    if labels.early:
        found.append(warning(f"{labels.early} labels come before their event and are not used."))
    if labels.late:
        found.append(warning(f"{labels.late} labels come after within={pipeline.label.within!r} and are not used."))
    if dataset is not None and len(dataset) < pipeline.train_on.min_rows:
        need = f"a training needs {pipeline.train_on.min_rows} before the holdout"
        found.append(note(f"{len(dataset)} labelled rows lie in train_on's window here; {need}."))
    return found


def about_leaks(pipeline: Pipeline, dataset: Dataset) -> list[Finding]:
    """A number that alone knows the label was usually measured after it."""
    found = []
    if dataset.task == "binary" and len(dataset) >= _ENOUGH_ROWS:
        for column in pipeline.schema.numbers:
            values = dataset.columns[column.name]
            known = ~np.isnan(values)
            auc = roc_auc(dataset.labels[known], values[known])
            if known.sum() >= _ENOUGH_ROWS and max(auc, 1 - auc) >= _TELLING:
                found.append(
                    warning(f"column {column.name!r} alone knows the label (AUC {auc:.3f}): is it known by then?")
                )
    return found


# ── whether it can be learnt ──────────────────────────────────────────────────────────────────────────────────────────


def error(text: str) -> Finding:
    return Finding(level="error", text=text)


def warning(text: str) -> Finding:
    return Finding(level="warning", text=text)


def note(text: str) -> Finding:
    return Finding(level="note", text=text)
