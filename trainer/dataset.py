"""served + labels → dataset: a columnar hash join by event id. The log is the state; no order of arrival matters.

`served` batches have id (string), event_time (timestamp[ms, UTC]), partition (int32), offset (int64), version, score
and the raw feature columns of their day; `labels` have id (string), time (int64, Unix ms) and value (float64).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.protocols import Columns, Dataset, Task
from headrace.models.schema import Schema
from headrace.trainer.matching import Counts, match

LABEL = "label"
ARRIVAL = frozenset({"id", "event_time", "partition", "offset", "version", "score"})  # the rest are features


@dataclass(frozen=True)
class Joined:
    """Rows that may be trained on, with their label, ordered by (event time, partition, offset)."""

    table: pa.Table
    counts: Counts
    lacking: dict[str, int]  # rows served before the column was declared (or while it was of another type)


def join(
    served: Iterable[pa.RecordBatch],
    labels: Iterable[pa.RecordBatch],
    *,
    within_ms: int,
    if_absent: Literal["drop"] | float,
    as_of_ms: int,
    window_ms: int,
) -> Joined:
    """Nothing newer than `as_of_ms` is seen; rows are of the last `window_ms`. Raises RunFailed("no_rows")."""
    rows, absences = _union(served)
    label_batches = list(labels)
    given = pa.Table.from_batches(label_batches) if label_batches else _NO_LABELS.empty_table()
    matched = match(
        ids=one_array(rows["id"]),
        times=as_numpy(rows["event_time"].cast(pa.int64())),
        partitions=as_numpy(rows["partition"]).astype(np.int64),
        offsets=as_numpy(rows["offset"]).astype(np.int64),
        label_ids=one_array(given["id"]),
        label_times=as_numpy(given["time"]),
        label_values=as_numpy(given["value"]),
        within_ms=within_ms,
        if_absent=None if if_absent == "drop" else float(if_absent),
        as_of_ms=as_of_ms,
        window_ms=window_ms,
    )
    table = rows.take(pa.array(matched.rows)).append_column(LABEL, pa.array(matched.labels))
    lacking: dict[str, int] = {}
    for name, first, end in absences:
        affected = int(((matched.rows >= first) & (matched.rows < end)).sum())
        if affected:
            lacking[name] = lacking.get(name, 0) + affected
    return Joined(table, matched.counts, lacking)


def to_dataset(joined: Joined, schema: Schema, task: Task) -> Dataset:
    return Dataset(
        columns=to_columns(joined.table, schema),
        labels=as_numpy(joined.table[LABEL]),
        times=as_numpy(joined.table["event_time"].cast(pa.int64())),
        task=task,
    )


def to_columns(table: pa.Table, schema: Schema) -> Columns:
    """Raw columns as numpy; one that was never served, or only with another type, is missing throughout.

    Where a required column is missing (rows older than its declaration): NaN for a number, "" for a category, as the
    graph takes them, and zeros for a tensor. `Joined.lacking` counts these rows.
    """
    return {column.name: _to_numpy(table, column) for column in schema.columns}


def read_stream_files(directory: Path, pattern: str) -> list[pa.RecordBatch]:
    """All record batches of the directory's Arrow IPC stream files whose name matches, in order of their names."""
    batches: list[pa.RecordBatch] = []
    for path in sorted(directory.glob(pattern)):
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            batches.extend(stream)
    return batches


_NO_LABELS = pa.schema([("id", pa.string()), ("time", pa.int64()), ("value", pa.float64())])


def _union(served: Iterable[pa.RecordBatch]) -> tuple[pa.Table, list[tuple[str, int, int]]]:
    """One table of all batches, and which columns are missing where, as (name, first row, row after the last).

    A column that changed its type keeps the newest one; where it had another one, it is missing.
    """
    parts = [(schema, pa.Table.from_batches(list(run))) for schema, run in groupby(served, lambda batch: batch.schema)]
    if not parts:
        raise RunFailed("no_rows", "nothing was served yet; rows come with the first events that are predicted")
    newest = {field.name: field for schema, _ in parts for field in schema}
    tables, absences, first = [], [], 0
    for schema, part in parts:
        lacks = [
            name for name, field in newest.items() if schema.get_field_index(name) < 0 or schema.field(name) != field
        ]
        wrong = [name for name in lacks if schema.get_field_index(name) >= 0]
        tables.append(part.drop_columns(wrong) if wrong else part)
        absences += [(name, first, first + len(part)) for name in lacks]
        first += len(part)
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    return table, absences


def _to_numpy(table: pa.Table, column: Column) -> NDArray[Any]:
    rows = len(table)
    given = one_array(table[column.name]) if column.name in table.column_names else None
    if column.kind == "number":
        fits = given is not None and pa.types.is_floating(given.type)
        return as_numpy(given).astype(np.float64) if fits else np.full(rows, np.nan)
    if column.kind == "category":
        nothing = None if column.nullable else ""
        if given is None or not pa.types.is_string(given.type):
            return np.full(rows, nothing, object)
        encoded = given.dictionary_encode()
        texts = np.array([*encoded.dictionary.to_pylist(), nothing], object)
        return np.asarray(texts[as_numpy(encoded.indices.fill_null(len(texts) - 1))])
    size = int(np.prod(column.shape))
    tensors = np.zeros((rows, size), np.float32)
    if given is not None and given.type == pa.list_(pa.float32(), size):
        tensors[as_numpy(given.is_valid())] = as_numpy(given.flatten()).reshape(-1, size)
    return tensors.reshape(rows, *column.shape)


def one_array(column: Any) -> Any:
    """A chunked column as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def as_numpy(column: Any) -> NDArray[Any]:
    return np.asarray(one_array(column).to_numpy(zero_copy_only=False))
