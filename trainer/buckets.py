"""served + labels that are more than memory has room for → dataset: the join of `dataset.py`, by buckets of ids.

    files of rows   ─► row buckets   ─┐
    files of labels ─► label buckets ─┴► each pair joined on its own ─► slices of time ─► sorted, chosen ─► one file

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
from headrace.models.windows import Places
from headrace.trainer.choice import ANCHOR, KEPT, Choice
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import (
    LABELS,
    Joined,
    Rules,
    choice_of,
    labelled,
    lacking_in,
    matched_rows,
    union_of,
    with_labels,
)
from headrace.trainer.matching import Counts
from headrace.trainer.order import bounds_of, ends_in, evenly, order_of, places_of
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
    numbered = union.schema.append(pa.field(_PART, pa.int32()))
    unused = pa.default_memory_pool().release_unused  # of the step before

    # 1. rows and labels of an id into one bucket; a look at the places that rows have in the order
    unused()
    row_buckets = Spill(folder, "rows", count, numbered)
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

    # 2. each bucket joined on its own, its rows into slices of the order; a look at what there is to choose from
    unused()
    slices, bounds = Spill(folder, "slice", count, with_labels(numbered, rules)), bounds_of(sample, count)
    counts, choice = Counts(), choice_of(rules)
    with slices.filling() as filling:
        for number in range(count):
            rows, answers = row_buckets.taken(number), label_buckets.taken(number)
            counts += _joined(rows, answers, filling, bounds, choice, rules)
            del rows, answers  # before the next are read

    # 3. each slice sorted and chosen from, one after the other
    unused()
    ready, schema = folder / "ready.arrow", with_labels(union.schema, rules)
    chosen = _Chosen(choice, len(schemas), schema)
    block_rows = max(8, min(_LARGEST_BLOCK, piece * total // max(1, size)) // 8 * 8)
    with pa.OSFile(str(ready), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for block in blocks((chosen.kept(slices.taken(number)) for number in range(count)), block_rows):
            writer.write_table(block)
    unused()
    anchor = pa.concat_tables(chosen.anchor).combine_chunks() if rules.get("anchor") else None
    return Joined(mapped(ready), counts, lacking_in(union, schemas, chosen.used), ready, anchor)


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
    rows: pa.Table, labels: pa.Table, slices: Filling, bounds: Places, choice: Choice | None, rules: Rules
) -> Counts:
    matched = matched_rows(rows, labels, **rules)
    used = labelled(rows, matched, rules)
    places = places_of(used)
    if choice is not None:
        choice.look(places)
    slices.write(used, ends_in(places, bounds))
    return matched.counts


class _Chosen:
    """What is chosen of slices that come in order. The anchor is small, and stays in memory."""

    def __init__(self, choice: Choice | None, schemas: int, schema: pa.Schema) -> None:
        self._choice = choice
        self.used = np.zeros(schemas, np.int64)  # kept rows by the schema that they were served with
        self.anchor = [schema.empty_table()]

    def kept(self, rows: pa.Table) -> pa.Table:
        places = places_of(rows)
        order = order_of(places)
        if self._choice is not None:
            roles = self._choice.roles(places[:, order])
            self.anchor.append(rows.take(pa.array(order[roles == ANCHOR])).drop_columns([_PART]))
            order = order[roles == KEPT]
        rows = rows.take(pa.array(order))
        self.used += np.bincount(as_numpy(rows[_PART]), minlength=len(self.used))
        return rows.drop_columns([_PART])
