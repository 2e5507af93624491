"""served + labels → dataset: a columnar hash join by event id. The log is the state; no order of arrival matters.

`served` batches have id (string), event_time (timestamp[ms, UTC]), partition (int32), offset (int64), version, score
and the raw feature columns of their day; `labels` have id (string), time (int64, Unix ms) and value (float64).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, Unpack

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.models.pipeline import SERVED_FIELDS, Pipeline
from headrace.models.protocols import Columns, Dataset, Task
from headrace.models.schema import Schema
from headrace.models.windows import Anchor, Window
from headrace.trainer.choice import ANCHOR, KEPT, Choice
from headrace.trainer.columns import StoredColumns, as_numpy, one_array, to_numpy
from headrace.trainer.matching import Counts, Matched, match
from headrace.trainer.order import places_of
from headrace.trainer.union import Union

LABEL = "label"
ARRIVAL = SERVED_FIELDS  # the rest are features
LABELS = pa.schema([("id", pa.string()), ("time", pa.int64()), ("value", pa.float64())])
DELAY = "label_delay_ms"  # from a row to its label
_BLOCK_ROWS = 65_536
_ALWAYS_MS = 1 << 50


class Rules(TypedDict):
    """Which rows and labels: nothing newer than `as_of_ms` is seen; rows are of the last `window_ms`.

    All of them that have a label, or those that `window` and `anchor` choose.
    """

    within_ms: int
    if_absent: Literal["drop"] | float
    as_of_ms: int
    window_ms: int
    window: NotRequired[Window]
    anchor: NotRequired[Anchor | None]
    delays: NotRequired[bool]  # whether the column DELAY is kept


def rules_of(pipeline: Pipeline, as_of_ms: int) -> Rules:
    """A training's, as of then."""
    absent, learner = pipeline.label.absent, pipeline.learner
    return Rules(
        within_ms=pipeline.label.within_ms,
        if_absent="drop" if absent is None else absent,
        as_of_ms=as_of_ms,
        window_ms=_ALWAYS_MS if pipeline.reach_ms is None else pipeline.reach_ms,
        window=pipeline.train_on,
        anchor=pipeline.anchor,
        delays=pipeline.importance is not None or (absent is None and getattr(learner, "wants_label_times", False)),
    )


def choice_of(rules: Rules) -> Choice | None:
    return Choice(rules["window"], rules.get("anchor"), rules["as_of_ms"]) if "window" in rules else None


@dataclass(frozen=True)
class Joined:
    """Rows that may be trained on, with their label, ordered by (event time, partition, offset)."""

    table: pa.Table  # mapped from `file` where there is one
    counts: Counts
    lacking: dict[str, int]  # rows served before the column was declared (or while it was of another type)
    file: Path | None = None  # Arrow IPC: where the rows are more than memory has room for
    anchor: pa.Table | None = None  # rows that are never trained on, in the same order; where there is an Anchor

    def blocks(self, *names: str) -> Iterator[pa.RecordBatch]:
        """These columns, a bounded number of rows at a time: a multiple of 8 in each block but the last."""
        if self.file is None:
            yield from self.table.select(names).to_batches(max_chunksize=_BLOCK_ROWS)
            return
        options = pa.ipc.IpcReadOptions(included_fields=[self.table.schema.get_field_index(name) for name in names])
        # read, not mapped: what is mapped stays resident for as long as there is room
        with pa.OSFile(str(self.file)) as source, pa.ipc.open_file(source, options=options) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).select(names)
        pa.default_memory_pool().release_unused()  # which the C library would keep for itself


def join(served: Iterable[pa.RecordBatch], labels: Iterable[pa.RecordBatch], **rules: Unpack[Rules]) -> Joined:
    """All at once, in memory. Raises RunFailed("no_rows")."""
    parts = [(schema, pa.Table.from_batches(list(run))) for schema, run in groupby(served, lambda batch: batch.schema)]
    union = union_of([schema for schema, _ in parts])
    rows = pa.concat_tables([union.fitted(part) for _, part in parts])
    matched, anchor = matched_rows(rows, pa.Table.from_batches(list(labels), LABELS), **rules), None
    if choice := choice_of(rules):
        places = places_of(rows.select(["event_time", "partition", "offset"]).take(pa.array(matched.rows)))
        choice.look(places)
        roles = choice.roles(places)
        anchor = labelled(rows, matched.take(roles == ANCHOR), rules) if rules.get("anchor") else None
        matched = matched.take(roles == KEPT)
    ends = np.cumsum([len(part) for _, part in parts])
    used = np.diff(np.searchsorted(np.sort(matched.rows), ends), prepend=0)
    lacking = lacking_in(union, [schema for schema, _ in parts], used)
    return Joined(labelled(rows, matched, rules), matched.counts, lacking, anchor=anchor)


def labelled(rows: pa.Table, matched: Matched, rules: Rules) -> pa.Table:
    """The rows that matched, in order, with their labels."""
    picked = pa.array(matched.rows)
    # column by column: the whole table as one piece would be another copy of everything
    columns = {name: one_array(rows[name]).take(picked) for name in rows.column_names}
    added = {LABEL: matched.labels} | ({DELAY: matched.delays} if rules.get("delays") else {})
    return pa.table(columns | added, schema=with_labels(rows.schema, rules))


def with_labels(rows: pa.Schema, rules: Rules) -> pa.Schema:
    schema = rows.append(pa.field(LABEL, pa.float64()))
    return schema.append(pa.field(DELAY, pa.int64())) if rules.get("delays") else schema


def union_of(schemas: Sequence[pa.Schema]) -> Union:
    if not schemas:
        raise RunFailed("no_rows", "nothing was served yet; rows come with the first events that are predicted")
    return Union.of(schemas)


def matched_rows(rows: pa.Table, labels: pa.Table, **rules: Unpack[Rules]) -> Matched:
    return match(
        ids=one_array(rows["id"]),
        times=as_numpy(rows["event_time"].cast(pa.int64())),
        partitions=as_numpy(rows["partition"]).astype(np.int64),
        offsets=as_numpy(rows["offset"]).astype(np.int64),
        label_ids=one_array(labels["id"]),
        label_times=as_numpy(labels["time"]),
        label_values=as_numpy(labels["value"]),
        within_ms=rules["within_ms"],
        if_absent=None if rules["if_absent"] == "drop" else float(rules["if_absent"]),
        as_of_ms=rules["as_of_ms"],
        window_ms=rules["window_ms"],
    )


def lacking_in(union: Union, schemas: Sequence[pa.Schema], used: NDArray[np.int64]) -> dict[str, int]:
    """Used rows that lack a column, by its name; `used` counts those of each schema."""
    lacking: dict[str, int] = {}
    for schema, rows in zip(schemas, used.tolist(), strict=True):
        if rows:
            for name in union.lacking(schema):
                lacking[name] = lacking.get(name, 0) + rows
    return lacking


def to_dataset(joined: Joined, schema: Schema, task: Task) -> Dataset:
    if joined.file is None:
        return rows_of(joined.table, schema, task)
    stored = rows_of(joined.table, Schema(()), task)
    return replace(stored, columns=StoredColumns(joined.table, schema), scratch=joined.file.parent)


def rows_of(table: pa.Table, schema: Schema, task: Task) -> Dataset:
    """Labelled rows that memory has room for."""
    times = as_numpy(table["event_time"].cast(pa.int64()))
    return Dataset(
        columns=to_columns(table, schema),
        labels=as_numpy(table[LABEL]),
        times=times,
        label_times=times + as_numpy(table[DELAY]) if DELAY in table.column_names else None,
        task=task,
    )


def to_columns(table: pa.Table, schema: Schema) -> Columns:
    """Raw columns as numpy; one that was never served, or only with another type, is missing throughout.

    Where a required column is missing (rows older than its declaration): NaN for a number, "" for a category, as the
    graph takes them, and zeros for a tensor. `Joined.lacking` counts these rows.
    """
    return {column.name: to_numpy(table, column) for column in schema.columns}


def read_stream_files(directory: Path, pattern: str) -> list[pa.RecordBatch]:
    """All record batches of the directory's Arrow IPC stream files whose name matches, in order of their names."""
    batches: list[pa.RecordBatch] = []
    for path in sorted(directory.glob(pattern)):
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            batches.extend(stream)
    return batches
