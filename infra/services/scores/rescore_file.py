"""replayed rows → Parquet or JSON lines, as they come."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.models.errors import BadInput
from headrace.streams.predictions import times_as_text
from headrace.trainer.columns import as_numpy

_GROUP_ROWS = 50_000  # of Parquet: in memory until they are written together


class FileTarget:
    """The file is there when all of it is; until then it is a draft beside it."""

    def __init__(self, place: str) -> None:
        path = Path(place)
        if path.suffix not in _WRITERS:
            raise BadInput(f"--to-file: expected a name that ends in {' or '.join(_WRITERS)}, got {place!r}.")
        if path.exists():
            raise BadInput(f"--to-file: {place} is there already. Remove it, or give another name.")
        if not path.resolve().parent.is_dir():
            raise BadInput(f"--to-file: expected a folder that is there, got {str(path.parent)!r}.")
        self.name, self._path, self._draft = place, path, path.with_name(f"{path.name}.draft")

    def __enter__(self) -> Self:
        try:
            self._file = self._draft.open("wb")
        except OSError as error:
            raise BadInput(f"--to-file: {self.name} cannot be written: {error}") from error
        self._write, self._end = _WRITERS[self._path.suffix](self._file)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        try:
            self._end()
        finally:
            self._file.close()
            if kind is not None:
                self._draft.unlink(missing_ok=True)
        if kind is None:
            self._draft.rename(self._path)

    def write(self, rows: pa.RecordBatch) -> None:
        self._write(rows)


Writing = tuple[Callable[[pa.RecordBatch], None], Callable[[], None]]
"""Takes rows; takes no more."""


def _parquet(file: BinaryIO) -> Writing:
    writer: pq.ParquetWriter | None = None  # when the first rows say how many classes there are
    waiting, count = list[pa.RecordBatch](), 0

    def group() -> None:
        """Served batches may have ten rows each: a row group has many of them."""
        nonlocal count, writer
        if waiting:
            writer = writer or pq.ParquetWriter(file, waiting[0].schema, compression="zstd")
            writer.write_table(pa.Table.from_batches(waiting).combine_chunks())
        waiting.clear()
        count = 0

    def write(rows: pa.RecordBatch) -> None:
        nonlocal count
        waiting.append(rows)
        count += rows.num_rows
        if count >= _GROUP_ROWS:
            group()

    def end() -> None:
        group()
        if writer is not None:
            writer.close()

    return write, end


def _json_lines(file: BinaryIO) -> Writing:
    encode = msgspec.json.Encoder().encode_lines

    def write(rows: pa.RecordBatch) -> None:
        names = rows.schema.names
        columns = {name: rows.column(name).to_pylist() for name in names if name != "event_time"}
        if rows.num_rows:
            columns["event_time"] = times_as_text(as_numpy(rows.column("event_time").cast(pa.int64())))
            file.write(encode([{name: columns[name][row] for name in names} for row in range(rows.num_rows)]))

    return write, file.flush


_WRITERS: dict[str, Callable[[BinaryIO], Writing]] = {".parquet": _parquet, ".jsonl": _json_lines}
