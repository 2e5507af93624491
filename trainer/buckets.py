"""served + labels that are more than memory has room for → dataset: the join of `dataset.py`, by buckets of ids.

    files of rows   ─► row buckets   ─┐
    files of labels ─► label buckets ─┴► each pair joined on its own ─► slices of time ─► each sorted ─► one file

An id's rows and labels meet in one bucket, in the order in which they were read, so each bucket is joined by the rules
that hold for the whole; a source offset is one event and has one id. Memory is bounded by what is given. Disk is not:
each step writes as much as it reads, which is then deleted.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import LABEL, LABELS, Joined, Rules, lacking_in, matched_rows, union_of
from headrace.trainer.matching import Counts
from headrace.trainer.order import Places, bounds_of, ends_in, evenly, order_of, places_of
from headrace.trainer.spill import Filling, Spill, blocks, mapped, pieces, schema_of, tables_of
from headrace.trainer.union import Union

_MOST = 400  # buckets, and slices, each an open file: a process may have 1024
_BUCKET = 4  # a bucket's part of the memory: its join takes two to three times as much as its rows
_PIECE = 8  # the same of what is moved at once
_SAMPLE = 16  # rows of each piece: so the size of a slice is known to an eighth or so
_LARGEST_BLOCK = 65_536  # rows
_PART = "\0part"  # which of the schemas a row was served with; no feature has such a name


def join_in_buckets(
    served: Sequence[Path], labels: Sequence[Path], folder: Path, memory_bytes: int, **rules: Unpack[Rules]
) -> Joined:
    """Files are Arrow IPC streams, in the order of reading. Raises RunFailed: no_rows, memory."""
    size = sum(path.stat().st_size for path in (*served, *labels))
    count, piece = max(1, -(-size * _BUCKET // memory_bytes)), memory_bytes // _PIECE
    if count > _MOST:
        least = (size * _BUCKET // _MOST >> 20) + 1
        raise RunFailed("memory", f"{size >> 20} MB to join: allow {least} MB for it, or shorten train_on's window")
    schemas = [schema_of(path) for path in served]
    union = union_of(schemas)
    schema = union.schema.append(pa.field(LABEL, pa.float64()))
    unused = pa.default_memory_pool().release_unused  # of the step before

    # 1. rows and labels of an id into one bucket; a look at the places that rows have in the order
    unused()
    row_buckets = Spill(folder, "rows", count, union.schema.append(pa.field(_PART, pa.int32())))
    label_buckets = Spill(folder, "labels", count, LABELS)
    total, sample = 0, np.empty((3, 0), np.int64)
    with row_buckets.filling() as filling:
        for table in pieces(_numbered(served, union), piece):
            filling.write(*_by_id(table, count))
            sample = np.hstack([sample, evenly(_within(places_of(table), rules), _SAMPLE)])
            total += len(table)
    with label_buckets.filling() as filling:
        for table in pieces((part for path in labels for part in tables_of(path)), piece):
            filling.write(*_by_id(table, count))

    # 2. each bucket joined on its own, its rows into slices of the order
    unused()
    slices, bounds = Spill(folder, "slice", count, schema), bounds_of(sample, count)
    counts, used = Counts(), np.zeros(len(schemas), np.int64)
    with slices.filling() as filling:
        for number in range(count):
            rows, answers = row_buckets.taken(number), label_buckets.taken(number)
            some, by_schema = _joined(rows, answers, filling, bounds, rules)
            del rows, answers  # before the next are read
            counts += some
            used[: len(by_schema)] += by_schema

    # 3. each slice sorted, one after the other
    unused()
    ready = folder / "ready.arrow"
    block_rows = max(8, min(_LARGEST_BLOCK, piece * total // max(1, size)) // 8 * 8)
    with pa.OSFile(str(ready), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for block in blocks((_sorted(slices.taken(number)) for number in range(count)), block_rows):
            writer.write_table(block)
    unused()
    return Joined(mapped(ready), counts, lacking_in(union, schemas, used), ready)


def _numbered(served: Sequence[Path], union: Union) -> Iterator[pa.Table]:
    """Rows in the common schema, with the number of the file that they came from."""
    for number, path in enumerate(served):
        for table in tables_of(path):
            yield union.fitted(table).append_column(_PART, pa.array(np.full(len(table), number, np.int32)))


def _by_id(table: pa.Table, count: int) -> tuple[pa.Table, list[int]]:
    """The rows by the bucket of their id, within a bucket as they came, and where each bucket ends."""
    ids = table["id"].cast(pa.binary()).to_pylist()
    buckets = np.fromiter(map(zlib.crc32, ids), np.int64, len(ids)) % count
    by_bucket: NDArray[np.int64] = np.argsort(buckets, kind="stable")
    return table.take(pa.array(by_bucket)), np.cumsum(np.bincount(buckets, minlength=count)).tolist()


def _within(places: Places, rules: Rules) -> Places:
    times = places[0]
    return places[:, (times <= rules["as_of_ms"]) & (times >= rules["as_of_ms"] - rules["window_ms"])]


def _joined(
    rows: pa.Table, labels: pa.Table, slices: Filling, bounds: Places, rules: Rules
) -> tuple[Counts, NDArray[np.int64]]:
    """What was counted, and how many of the used rows are of each schema."""
    matched = matched_rows(rows, labels, **rules)
    used = rows.take(pa.array(matched.rows))
    by_schema = np.bincount(as_numpy(used[_PART]))
    used = used.drop_columns([_PART]).append_column(LABEL, pa.array(matched.labels))
    slices.write(used, ends_in(places_of(used), bounds))
    return matched.counts, by_schema


def _sorted(table: pa.Table) -> pa.Table:
    return table.take(pa.array(order_of(places_of(table))))
