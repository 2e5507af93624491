"""served rows ⇄ Arrow: what training will see is what was served, raw, one batch per micro-batch of a partition.

A row is known by its event's partition and offset. One that was asked for on demand has no event on a topic: it is
known by where it lies itself on the served topic, which the broker keeps unique whoever writes, and however often.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.errors import EventRejected
from headrace.models.features import Column
from headrace.models.pipeline import PROBABILITIES
from headrace.models.protocols import Columns
from headrace.models.scores import top

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # as Arrow's format says: a continuation, and no message
_SERVED_LIMIT = 512 * 1024  # bytes of one batch: well under the broker's default of 1 MB a record
ON_DEMAND = -1  # for a partition, in the bytes: no event's
_ROW_BITS = 13  # of an offset on demand; those above them are the record's, of which 2^34 fit (models.draw)
ROWS = 1 << _ROW_BITS  # that a record on demand may have


class ServedRecord(Protocol):
    """What is read of a message of the topic."""

    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def value(self) -> bytes | None: ...


def served_schema(columns: Sequence[Column], classes: int = 0) -> pa.Schema:
    """What `<pipeline>.served` carries: identity, answer, raw features; of several classes each one's probability."""
    fields = [
        pa.field("id", pa.string()),
        pa.field("event_time", pa.timestamp("ms", tz="UTC")),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("version", pa.int32()),
        pa.field("score", pa.float64()),
    ]
    if classes:
        fields.append(pa.field(PROBABILITIES, pa.list_(pa.float64(), classes)))
    for column in columns:
        size = int(np.prod(column.shape))
        kind = {"number": pa.float64(), "category": pa.string(), "tensor": pa.list_(pa.float32(), size)}[column.kind]
        fields.append(pa.field(column.name, kind))
    return pa.schema(fields)


def served_batch(
    schema: pa.Schema,
    *,
    ids: Sequence[str],
    times: NDArray[np.int64],
    partition: int,
    offsets: NDArray[np.int64],
    version: int,
    scores: NDArray[np.float64],
    columns: Columns,
) -> pa.RecordBatch:
    """The rows of one source partition, features as they were served; missing numbers are null."""
    rows = len(ids)
    arrays = [
        pa.array(ids, pa.string()),
        pa.array(times, pa.timestamp("ms", tz="UTC")),
        pa.array(np.full(rows, partition, np.int32)),
        pa.array(offsets, pa.int64()),
        pa.array(np.full(rows, version, np.int32)),
        pa.array(top(scores), pa.float64()),
    ]
    if scores.ndim == 2:
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1)), scores.shape[1]))
    for field in list(schema)[len(arrays) :]:
        values = columns[field.name]
        if pa.types.is_fixed_size_list(field.type):
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), field.type.list_size))
        else:
            arrays.append(pa.array(values, field.type, from_pandas=True))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def encode_served(batch: pa.RecordBatch) -> list[tuple[bytes, int, int]]:
    """Arrow IPC streams of at most 512 KB (one row may be larger), each with its first and last source offset."""
    rows, size = batch.num_rows, batch.nbytes
    if size > _SERVED_LIMIT and rows > 1:  # as many rows in each: where they are larger than others, it is split again
        some = max(1, rows * _SERVED_LIMIT // size)
        return [one for first in range(0, rows, some) for one in encode_served(batch.slice(first, some))]
    # a stream's three messages put together: a stream writer costs five times as much, most of it for memory
    value = b"".join([batch.schema.serialize(), batch.serialize(), _END_OF_STREAM])
    offsets = batch.column("offset")
    return [(value, offsets[0].as_py(), offsets[-1].as_py())]


def encode_on_demand(batch: pa.RecordBatch) -> list[tuple[bytes, int]]:
    """The same of rows that were asked for, each with its number of rows; `served_rows` gives them their places."""
    parts = [batch.slice(first, ROWS) for first in range(0, batch.num_rows, ROWS)]
    return [(value, last - first + 1) for part in parts for value, first, last in encode_served(_numbered(part, 0))]


def _numbered(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """With offsets from `first` on."""
    offsets = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
    return batch.set_column(batch.schema.get_field_index("offset"), batch.schema.field("offset"), offsets)


def on_demand_place(partition: int, offset: int, row: int = 0) -> tuple[int, int]:
    """Of a row of this record of the served topic: a partition below 0, which no event has, and an offset."""
    return ON_DEMAND - partition, (offset << _ROW_BITS) + row


def record_of(partition: int, offset: int) -> tuple[int, int, int]:
    """The other way: where on the served topic a row lies that was asked for on demand, and its number there."""
    return ON_DEMAND - partition, offset >> _ROW_BITS, offset & (ROWS - 1)


def scores_of(rows: pa.RecordBatch | pa.Table, score: str = "score") -> NDArray[np.float64]:
    """As they were served: [n], or [n, k] of k classes. `score` is the column of the former."""
    if PROBABILITIES not in rows.schema.names or not pa.types.is_fixed_size_list(rows.schema.field(PROBABILITIES).type):
        return np.asarray(rows.column(score), np.float64)
    column = rows.column(PROBABILITIES)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(whole.flatten(), np.float64).reshape(rows.num_rows, -1)


def decode_served(value: bytes) -> pa.RecordBatch:
    """Raises EventRejected for anything that is not one Arrow batch of served rows."""
    try:
        with pa.ipc.open_stream(value) as reader:
            table = reader.read_all()
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise EventRejected("not_arrow", f"expected an Arrow IPC stream on the served topic: {error}") from error
    missing = {"id", "event_time", "partition", "offset", "version", "score"} - set(table.column_names)
    if missing:
        raise EventRejected("wrong_shape", f"expected a served batch, it lacks {sorted(missing)}")
    return table.combine_chunks().to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], table.schema)


def served_rows(message: ServedRecord) -> pa.RecordBatch:
    """Of a record of the topic, each with its place. Raises EventRejected as `decode_served` does."""
    batch = decode_served(message.value() or b"")
    if not batch.num_rows or batch.column("partition")[0].as_py() != ON_DEMAND:
        return batch
    partition, first = on_demand_place(message.partition() or 0, message.offset() or 0)
    partitions = pa.array(np.full(batch.num_rows, partition, np.int32))
    placed = batch.set_column(batch.schema.get_field_index("partition"), batch.schema.field("partition"), partitions)
    return _numbered(placed, first)
