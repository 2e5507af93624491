"""served + labels → one file of the whole past: each row with its label, and since when both are there.

One join, as of the end. A row whose event was served as it happened is there from the moment at which it was appended,
and so is its label. What was replayed is there from its own time on: its appending says when somebody replayed it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import LABEL, LABELS, read_stream_files
from headrace.trainer.ready import ready_dataset

Int64s = NDArray[np.int64]
APPENDED = "\0appended"  # Unix ms, in files of rows and of labels that have it; no feature has such a name
LABEL_TIME, CAME, SEEN = "\0label_time", "\0came", "\0seen"  # Unix ms: the label's own, when it came, when the row did
NEVER = 1 << 50  # Unix ms: when a label comes that did not
_LIVE_MS = 3_600_000  # a row that was appended later than this after its event was replayed
_SILENT = -1.0  # no label's place


def write_past(directory: Path, scratch: Path, file: Path, within_ms: int) -> None:
    """From served*.arrow and labels*.arrow, ordered by (event time, partition, offset). Raises RunFailed: no_rows,
    memory."""
    ranked = scratch / "ranked"
    ranked.mkdir()
    for path in directory.glob("served*.arrow"):
        (ranked / path.name).symlink_to(path.resolve())
    labels = _Labels.ranked(directory, ranked / "labels.arrow")
    # all rows, each with the place of its label instead of the label
    joined = ready_dataset(ranked, scratch, within_ms=within_ms, if_absent=_SILENT, as_of_ms=NEVER, window_ms=NEVER)
    writer: Any = None
    try:
        for block in joined.blocks(*joined.table.column_names):
            rows = labels.put_to(block)
            writer = writer or pa.ipc.new_file(str(file), rows.schema)
            writer.write_batch(rows)
    finally:
        if writer is not None:
            writer.close()


@dataclass(frozen=True)
class _Labels:
    """By value, so that of two at one time the smaller one has the lower place, and wins as it does in `matching`."""

    values: NDArray[np.float64]
    times: Int64s
    appended: Int64s

    @classmethod
    def ranked(cls, directory: Path, file: Path) -> "_Labels":
        """Writes the labels with their places for values."""
        batches = read_stream_files(directory, "labels*.arrow")
        if not batches:
            return cls(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
        table = pa.Table.from_batches(batches)
        values, times = as_numpy(table["value"]), as_numpy(table["time"])
        order = np.argsort(values, kind="stable")
        places = np.empty(len(order))
        places[order] = np.arange(len(order))
        with pa.ipc.new_stream(str(file), LABELS) as writer:
            writer.write_table(table.select(["id", "time"]).append_column("value", pa.array(places)))
        appended = as_numpy(table[APPENDED]) if APPENDED in table.column_names else times
        return cls(values[order], times[order], appended[order])

    def put_to(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        event_times = as_numpy(rows.column("event_time").cast(pa.int64()))
        appended = as_numpy(rows.column(APPENDED).fill_null(NEVER)) if APPENDED in rows.schema.names else event_times
        is_live = appended - event_times <= _LIVE_MS
        places = as_numpy(rows.column(LABEL)).astype(np.int64)
        there = places >= 0
        values, times, came = np.full(len(places), np.nan), np.full(len(places), NEVER), np.full(len(places), NEVER)
        values[there], times[there], came[there] = (
            of[places[there]] for of in (self.values, self.times, self.appended)
        )
        added = {
            LABEL: values,
            LABEL_TIME: times,
            CAME: np.where(is_live, np.maximum(times, came), times),
            SEEN: np.where(is_live, np.maximum(event_times, appended), event_times),
        }
        kept = [name for name in rows.schema.names if name not in (LABEL, APPENDED)]
        columns = [*map(rows.column, kept), *map(pa.array, added.values())]
        return pa.record_batch(columns, names=[*kept, *added])
