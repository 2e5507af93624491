"""decoded columns, labels and joined rows → findings: what would go wrong later, said now."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.infra.services.start.check_report import LabelReport
from headrace.models.checks import CONSTANT, DUPLICATES, EXPLODING, IDENTIFYING
from headrace.models.errors import RunFailed
from headrace.models.findings import Finding
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Dataset
from headrace.testing import Replayed
from headrace.trainer.checks import before_training
from headrace.trainer.matching import Counts
from headrace.trainer.split import split


def about_events(
    pipeline: Pipeline, replayed: Replayed, events: int, times: NDArray[np.int64], clock: int
) -> list[Finding]:
    if not events:
        return [error("no_events", "there is no event in the sample.")]
    if not len(times):
        return [error("no_events", f"none of {events} events decodes: see the dead letters.")]
    found = []
    if len(times) < events:
        found.append(warning("dead_letters", f"{events - len(times)} of {events} events would end as dead letters."))
    ids = [prediction.id for prediction in replayed.predictions]
    if (repeated := len(ids) - len(set(ids))) and pipeline.checks.wants(DUPLICATES):
        most = Counter(ids).most_common(1)[0][0]
        found.append(
            pipeline.checks.finding(
                DUPLICATES,
                f"{repeated} event ids are there again, {most!r} among them: {pipeline.events.id!r} should be unique.",
            )
        )
    if times.max() < clock - (pipeline.train_on.reach_ms or pipeline.train_on.holdout_ms):
        found.append(note("old_events", "the newest event is older than train_on looks back: use backfill."))
    return found


def about_side_topics(pipeline: Pipeline, sides: Mapping[str, Sequence[bytes]]) -> list[Finding]:
    return [
        note("side_topic", f"no rows of side topic {topic.name!r} were given: its features are missing here.")
        for topic in pipeline.side_topics
        if topic.name not in sides
    ]


def unfed(pipeline: Pipeline, sides: Mapping[str, Sequence[bytes]]) -> frozenset[str]:
    """Columns of side topics without rows: that they are missing says nothing."""
    stored = (feature for feature in pipeline.stored if feature.topic.name not in sides)
    return frozenset(column.name for feature in stored for column in feature.columns)


def about_labels(pipeline: Pipeline, replayed: Replayed, labels: LabelReport, dataset: Dataset | None) -> list[Finding]:
    if not labels.rows:
        return [error("no_labels", "no label of the sample decodes.")]
    if not replayed.predictions:
        return []
    if not labels.joined:
        if labels.unknown == labels.rows:
            event, label = replayed.predictions[0].id, replayed.labels[0].id
            return [
                error("labels_unmatched", f"no label has the id of an event: events have {event!r}, labels {label!r}.")
            ]
        where = f"{labels.early} come before their event, {labels.late} after within={pipeline.label.within!r}"
        return [error("labels_unmatched", f"no label lies within its event's horizon: {where}.")]
    found = []
    if labels.mean in (0.0, 1.0) and pipeline.label.task == "binary":
        found.append(error("one_class", f"every label is {labels.mean:g}: look at the label's field and at_least."))
    if labels.early:
        found.append(warning("labels_early", f"{labels.early} labels come before their event and are not used."))
    if labels.late:
        found.append(
            warning(
                "labels_late", f"{labels.late} labels come after within={pipeline.label.within!r} and are not used."
            )
        )
    if dataset is not None and len(dataset) < pipeline.train_on.min_rows:
        need = f"a training needs {pipeline.train_on.min_rows} before the holdout"
        found.append(note("too_few_rows", f"{len(dataset)} labelled rows lie in train_on's window here; {need}."))
    return found


def about_training(pipeline: Pipeline, dataset: Dataset, at_ms: int) -> list[Finding]:
    """What a training at `at_ms` would say of these rows, but for their columns. All are training rows where a sample
    has too few for a holdout."""
    try:
        train, holdout = split(dataset, pipeline.train_on, at_ms)
    except RunFailed:
        train, holdout = dataset, dataset.take(slice(0, 0))
    found = before_training(pipeline.checks, pipeline.schema, train, holdout, Counts())
    return [one for one in found if one.name not in (CONSTANT, EXPLODING, IDENTIFYING)]


def error(name: str, text: str) -> Finding:
    return Finding(name=name, severity="error", text=text)


def warning(name: str, text: str) -> Finding:
    return Finding(name=name, severity="warning", text=text)


def note(name: str, text: str) -> Finding:
    return Finding(name=name, severity="note", text=text)
