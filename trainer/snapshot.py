"""joined rows → their hash, and a Parquet file named by it: what a reproduction compares."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.models.pipeline import PROBABILITIES
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import Joined

_NOT_TRAINED_ON = (
    "version",
    "score",
    PROBABILITIES,
)  # a duplicate around a swap differs in them: no part of a dataset's identity


def dataset_sha256(joined: Joined) -> str:
    """Over names, types and values: the same rows give the same hash in any process, whatever Arrow's padding.

    Column by column and block by block: what is hashed does not depend on where blocks end.
    """
    digest = hashlib.sha256()
    for name in sorted(set(joined.table.column_names) - set(_NOT_TRAINED_ON)):
        kind, rows = joined.table.schema.field(name).type, len(joined.table)
        nulls = sum(block.column(0).null_count for block in joined.blocks(name))
        digest.update(f"{name}\0{kind}\0{rows}\0{nulls}\0".encode())
        if nulls:
            for block in joined.blocks(name):
                digest.update(np.packbits(as_numpy(block.column(0).is_valid())).data)
        if pa.types.is_string(kind):
            for block in joined.blocks(name):
                digest.update(as_numpy(pc.binary_length(block.column(0)).fill_null(0)).data)
        for block in joined.blocks(name):
            for piece in _values(block.column(0)):
                digest.update(piece)
    return digest.hexdigest()


def snapshot(joined: Joined, directory: Path, sha256: str = "") -> Path:
    """The rows as Parquet, named by their content; a snapshot that is there already is not written again."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{(sha256 or dataset_sha256(joined))[:32]}.parquet"
    if not path.exists():
        draft = path.with_suffix(".draft")
        if joined.file is None:
            pq.write_table(joined.table, draft, compression="zstd")
        else:
            with pq.ParquetWriter(draft, joined.table.schema, compression="zstd") as writer:
                for block in joined.blocks(*joined.table.column_names):
                    writer.write_batch(block)
        draft.replace(path)
    return path


def _values(column: pa.Array) -> Iterable[bytes | memoryview]:
    if pa.types.is_string(column.type):
        return _texts(column)
    if pa.types.is_fixed_size_list(column.type):
        return [as_numpy(column.flatten()).data]  # without the null rows
    values = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return [as_numpy(values.fill_null(0)).data]


def _texts(column: pa.StringArray) -> Iterable[bytes | memoryview]:
    """The bytes of all non-null values, in order; from the buffer at once where no row is null."""
    dense = column.drop_null() if column.null_count else column
    _, bounds, data = dense.buffers()
    if data is None:
        return []
    ends = np.frombuffer(bounds, np.int32)[dense.offset : dense.offset + len(dense) + 1]
    return [memoryview(data)[int(ends[0]) : int(ends[-1])]] if len(dense) else []
