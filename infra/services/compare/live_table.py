"""served rows + labels → live metrics by event time, of each version that served, in each segment, with intervals."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.names import Names
from headrace.infra.served_log import since as batches_since
from headrace.infra.services.compare.diff_rows import event_times, labels_of, once, together
from headrace.infra.settings import Settings
from headrace.models.bootstrap import Estimate, measured
from headrace.models.calibration import calibration_error
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.pipeline import PROBABILITIES
from headrace.models.protocols import Task
from headrace.streams.served import scores_of
from headrace.trainer.columns import as_numpy, one_array

_ROUNDS = 200  # of the bootstrap, for each line of the table
_PLACE = ("id", "event_time", "partition", "offset", "version", "score")


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one version served in one span of event time."""

    begin: str  # RFC 3339, of the span; "" for all of it
    version: int
    segment: str  # column=value; "" for all rows
    rows: int
    labelled: int  # of these: the others' labels are still to come, or never came
    metrics: dict[str, Estimate]  # on the labelled ones, with 95 % intervals (bootstrap)


def live_table(
    settings: Settings,
    names: Names,
    *,
    since: int = 0,
    until: int | None = None,
    every_ms: int | None = None,
    segments: Sequence[str] = (),
    rounds: int = _ROUNDS,
) -> list[LiveRow]:
    """Rows with since ≤ event time < until, Unix ms; spans of `every_ms` are multiples of it since 1970 in UTC.

    In memory are ids, scores and segments, not features. Raises BadInput for what is no category column.
    """
    pipeline = names.pipeline
    known = {column.name for column in pipeline.columns if column.kind == "category"}
    if unknown := sorted(set(segments) - known):
        raise BadInput(f"--segment: expected one of {', '.join(sorted(known)) or 'none'}, got {', '.join(unknown)}.")
    rows = _served(settings, names, since, until, segments)
    if not len(rows):
        return []
    labels, times = labels_of(settings, names, rows), event_times(rows)
    spans = np.zeros(len(rows), np.int64) if every_ms is None else times - times % every_ms
    versions, scores = as_numpy(rows["version"]), scores_of(rows)
    found = []
    for begin, version in sorted(set(zip(spans.tolist(), versions.tolist(), strict=True))):
        of = (spans == begin) & (versions == version)
        for segment, part in _parts(rows, of, segments):
            known_labels = part & np.isfinite(labels)
            metrics = _metrics(pipeline.label.task, labels[known_labels], scores[known_labels], rounds)
            found.append(
                LiveRow(
                    begin="" if every_ms is None else iso(begin),
                    version=version,
                    segment=segment,
                    rows=int(part.sum()),
                    labelled=int(known_labels.sum()),
                    metrics=metrics,
                )
            )
    return found


def _metrics(task: Task, labels: NDArray[np.float64], scores: NDArray[np.float64], rounds: int) -> dict[str, Estimate]:
    found = {one.metric: one.first for one in measured(task, labels, scores, scores, rounds=rounds)}
    if task != "regression" and len(labels):
        found["calibration_error"] = Estimate(value=calibration_error(labels, scores), low=None, high=None)
    return found


def _served(settings: Settings, names: Names, since: int, until: int | None, segments: Sequence[str]) -> pa.Table:
    parts = []
    for batch in batches_since(settings, names.topics.served, since, names.pipeline.max_future_ms):
        rows = pa.Table.from_batches([batch.rows])
        times = event_times(rows)
        wanted = (times >= since) & (times < (np.iinfo(np.int64).max if until is None else until))
        there = [name for name in segments if name in rows.column_names]
        there += [PROBABILITIES] if names.pipeline.label.classes and PROBABILITIES in rows.column_names else []
        parts.append(rows.select([*_PLACE, *there]).filter(pa.array(wanted)))
    return once(together(parts))


def _parts(rows: pa.Table, of: NDArray[np.bool_], segments: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """All of them, then those of each value of each column."""
    yield "", of
    for column in segments:
        values = np.array(one_array(rows[column]).to_pylist(), object)
        for value in sorted({value for value in values[of].tolist() if value is not None}):
            yield f"{column}={value}", of & (values == value)
