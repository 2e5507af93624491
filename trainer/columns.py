"""Arrow columns → raw columns as numpy: all at once, or each when it is asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.features import Column
from headrace.models.schema import Schema


class StoredColumns(Mapping[str, NDArray[Any]]):
    """Columns of rows that are more than memory has room for: each is made when it is asked for, and not kept."""

    def __init__(self, table: pa.Table, schema: Schema, rows: NDArray[np.int64] | None = None) -> None:
        """`rows`: only these of the table, in this order; they are looked up column by column."""
        self._table, self._schema, self._rows = table, schema, rows
        self._columns = {column.name: column for column in schema.columns}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self._rows is None:
            return to_numpy(self._table, self._columns[name])
        there = name if name in self._table.column_names else self._table.column_names[0]
        return to_numpy(self._table.select([there]).take(pa.array(self._rows)), self._columns[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def take(self, rows: NDArray[Any] | slice) -> "StoredColumns":
        if isinstance(rows, slice) and self._rows is None:
            first, end, step = rows.indices(len(self._table))
            if step == 1:
                return StoredColumns(self._table.slice(first, max(0, end - first)), self._schema)
        known = np.arange(len(self._table)) if self._rows is None else self._rows
        return StoredColumns(self._table, self._schema, known[rows])


def to_numpy(table: pa.Table, column: Column) -> NDArray[Any]:
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
