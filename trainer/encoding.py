"""raw columns → what a network takes: float32 numbers and int64 categories, as fitted on the training rows.

The arithmetic is float32 and in the graph's own order (`export`), so that both give the same bits where they can.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.models.protocols import Columns
from headrace.models.schema import Schema

# standard deviations: beyond them a reading is an outlier or an infinity, and must not saturate the whole network
CLIP = 10.0
# values per category that get an embedding of their own, the most frequent ones: an id as a category must not eat the
# memory of every worker
MAX_VOCABULARY = 100_000


@dataclass(frozen=True)
class NetInputs:
    """What a network's `build` is given."""

    numbers: int  # columns of `numbers`, missing flags included
    categories: tuple[int, ...]  # cardinalities; index 0, unknown or missing, is counted
    tensors: tuple[tuple[int, ...], ...]
    outputs: int = 1  # values per row to give: as many as there are classes, where there are several


@dataclass(frozen=True)
class Encoded:
    numbers: NDArray[np.float32]  # [n, p + flags]
    categories: NDArray[np.int64]  # [n, q]
    tensors: tuple[NDArray[np.float32], ...]  # [n, *shape] each


@dataclass(frozen=True)
class Encoder:
    schema: Schema
    mean: NDArray[np.float32]  # [p]
    scale: NDArray[np.float32]  # [p], never 0
    vocabularies: tuple[tuple[str, ...], ...]  # per category; the value at i is index i + 1. As fitted, sorted

    @property
    def flagged(self) -> tuple[int, ...]:
        """The number columns that get a missing flag, by place."""
        return tuple(place for place, column in enumerate(self.schema.numbers) if column.nullable)

    @property
    def inputs(self) -> NetInputs:
        return NetInputs(
            numbers=len(self.schema.numbers) + len(self.flagged),
            categories=tuple(len(vocabulary) + 1 for vocabulary in self.vocabularies),
            tensors=tuple(column.shape for column in self.schema.tensors),
        )

    def transform(self, columns: Columns, rows: int) -> Encoded:
        width = len(self.schema.numbers)
        numbers = np.empty((rows, width + len(self.flagged)), np.float32)
        missing = np.empty((rows, width), bool)
        for place, column in enumerate(self.schema.numbers):
            raw = _float32(columns[column.name])
            missing[:, place] = np.isnan(raw)
            with np.errstate(over="ignore"):  # an infinity, and clipped
                standard = (raw - self.mean[place]) / self.scale[place]
            numbers[:, place] = np.clip(np.where(missing[:, place], np.float32(0), standard), -CLIP, CLIP)
        numbers[:, width:] = missing[:, list(self.flagged)]
        categories = np.empty((rows, len(self.vocabularies)), np.int64)
        for place, (column, vocabulary) in enumerate(zip(self.schema.categories, self.vocabularies, strict=True)):
            found = pc.index_in(_strings(columns[column.name]), value_set=pa.array(vocabulary, pa.string()))
            categories[:, place] = found.fill_null(-1).to_numpy(zero_copy_only=False) + 1
        tensors = tuple(np.ascontiguousarray(columns[column.name], np.float32) for column in self.schema.tensors)
        return Encoded(numbers, categories, tensors)


def fit(columns: Columns, schema: Schema) -> Encoder:
    """Means and deviations of the finite values; vocabularies of all values but the empty string, which is missing."""
    mean = np.zeros(len(schema.numbers), np.float32)
    scale = np.ones(len(schema.numbers), np.float32)
    for place, column in enumerate(schema.numbers):
        values = _float32(columns[column.name]).astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            mean[place] = values.mean()
            scale[place] = np.float32(values.std()) or np.float32(1)
    vocabularies = tuple(_vocabulary(_strings(columns[column.name])) for column in schema.categories)
    return Encoder(schema, mean, scale, vocabularies)


def _vocabulary(values: pa.Array) -> tuple[str, ...]:
    counted = sorted((-entry["counts"], entry["values"]) for entry in pc.value_counts(values.drop_null()).to_pylist())
    return tuple(sorted([value for _, value in counted if value][:MAX_VOCABULARY]))


def _strings(values: NDArray[np.object_]) -> pa.Array:
    return pa.array(values, pa.string(), from_pandas=True)


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # as above
        return np.asarray(values).astype(np.float32)
