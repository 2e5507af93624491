"""joined rows → their hash, and a Parquet file named by it: what a reproduction compares."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.trainer.dataset import Joined, as_numpy, one_array

_NOT_TRAINED_ON = ("version", "score")  # a duplicate around a swap differs in them: no part of a dataset's identity


def dataset_sha256(joined: Joined) -> str:
    """Over names, types and values: the same rows give the same hash in any process, whatever Arrow's padding."""
    digest = hashlib.sha256()
    for name in sorted(set(joined.table.column_names) - set(_NOT_TRAINED_ON)):
        column = one_array(joined.table[name])
        digest.update(f"{name}\0{column.type}\0{len(column)}\0{column.null_count}\0".encode())
        if column.null_count:
            digest.update(np.packbits(as_numpy(column.is_valid())).tobytes())
        if pa.types.is_string(column.type):
            lengths = pc.binary_length(column).fill_null(0)
            digest.update(as_numpy(lengths).tobytes())
            digest.update(b"".join(_texts(column)))
        elif pa.types.is_fixed_size_list(column.type):
            digest.update(as_numpy(column.flatten()).tobytes())  # without the null rows
        else:
            values = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            digest.update(as_numpy(values.fill_null(0)).tobytes())
    return digest.hexdigest()


def snapshot(joined: Joined, directory: Path, sha256: str = "") -> Path:
    """The rows as Parquet, named by their content; a snapshot that is there already is not written again."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{(sha256 or dataset_sha256(joined))[:32]}.parquet"
    if not path.exists():
        draft = path.with_suffix(".draft")
        pq.write_table(joined.table, draft, compression="zstd")
        draft.replace(path)
    return path


def _texts(column: pa.StringArray) -> Iterable[bytes | memoryview]:
    """The bytes of all non-null values, in order; from the buffer at once where no row is null."""
    dense = column.drop_null() if column.null_count else column
    _, bounds, data = dense.buffers()
    if data is None:
        return []
    ends = np.frombuffer(bounds, np.int32)[dense.offset : dense.offset + len(dense) + 1]
    return [memoryview(data)[int(ends[0]) : int(ends[-1])]] if len(dense) else []
