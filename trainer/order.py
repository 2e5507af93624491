"""rows → slices of their order, (event time, partition, offset): what is too much to be sorted at once."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.windows import Places
from headrace.trainer.columns import as_numpy


def places_of(table: pa.Table) -> Places:
    columns = (table["event_time"].cast(pa.int64()), table["partition"], table["offset"])
    return np.stack([as_numpy(column).astype(np.int64) for column in columns])


def order_of(places: Places) -> NDArray[np.int64]:
    times, partitions, offsets = places
    return np.lexsort((offsets, partitions, times))


def evenly(places: Places, count: int) -> Places:
    """So many of them, or all where they are fewer."""
    return places[:, np.linspace(0, places.shape[1] - 1, min(count, places.shape[1])).astype(np.int64)]


def bounds_of(sample: Places, slices: int) -> Places:
    """Each slice but the last ends before its bound; all have about as many rows as the others, by the sample."""
    return evenly(sample[:, order_of(sample)], slices + 1)[:, 1:-1]


def ends_in(places: Places, bounds: Places) -> list[int]:
    """Where each slice ends in rows that are in order."""
    times, partitions, offsets = places
    ends, after = (np.searchsorted(times, bounds[0], side) for side in ("left", "right"))
    for number in np.flatnonzero(after > ends):  # rows at the bound's own time
        same = slice(ends[number], after[number])
        _, partition, offset = bounds[:, number]
        ends[number] += (
            (partitions[same] < partition) | (partitions[same] == partition) & (offsets[same] < offset)
        ).sum()
    return [*ends.tolist(), len(times)]
