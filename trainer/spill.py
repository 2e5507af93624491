"""tables ⇄ Arrow files on disk, a bounded number of bytes at a time.

Files are read, not mapped: what is mapped stays resident for as long as there is room.
"""

import mmap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

_BUFFER_BYTES = 8 * 1024  # of each file that is written, and there are hundreds: rows come to it a few at a time


class Spill:
    """A row of files of one schema, `<kind>-<number>`: filled side by side, then taken one by one."""

    def __init__(self, folder: Path, kind: str, count: int, schema: pa.Schema) -> None:
        self._paths = [folder / f"{kind}-{number}" for number in range(count)]
        self._schema = schema

    @contextmanager
    def filling(self) -> Iterator["Filling"]:
        writers: list[Any] = []
        with ExitStack() as stack:
            for path in self._paths:
                file = stack.enter_context(pa.output_stream(str(path), None, _BUFFER_BYTES))
                writers.append(stack.enter_context(pa.ipc.new_stream(file, self._schema)))
            yield Filling(writers)
        writers.clear()  # their buffers live as long as they do

    def taken(self, number: int) -> pa.Table:
        """All rows of a file, in the order in which they came; the file is no more."""
        with pa.OSFile(str(self._paths[number])) as file, pa.ipc.open_stream(file) as stream:
            table = stream.read_all().combine_chunks()
        self._paths[number].unlink()
        return table


class Filling:
    def __init__(self, writers: list[Any]) -> None:
        self._writers = writers

    def write(self, rows: pa.Table, ends: Iterable[int]) -> None:
        """The first rows into the first file, up to its end, and so on."""
        first = 0
        for writer, end in zip(self._writers, ends, strict=False):
            if end > first:
                writer.write_table(rows.slice(first, end - first))
            first = end


def mapped(path: Path) -> pa.Table:
    """A file of record batches, as it lies on disk: pages become resident as they are looked at."""
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(memory))).read_all()
    memory.madvise(mmap.MADV_DONTNEED)  # a page per batch was looked at, and 15 came with each
    return table


def schema_of(path: Path) -> pa.Schema:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.schema


def tables_of(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])


def pieces(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables together until they have so many bytes."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(held.nbytes for held in waiting) >= size:
            yield _whole(waiting)
    if waiting:
        yield _whole(waiting)


def _whole(waiting: list[pa.Table]) -> pa.Table:
    """Of all that waited, which then wait no more."""
    table = pa.concat_tables(waiting).combine_chunks()
    waiting.clear()
    return table


def blocks(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, so many at a time; fewer in the last."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        del table  # here, as below, nothing is to be held while the next table is made
        whole = pa.concat_tables(waiting)
        end = len(whole) // rows * rows
        for first in range(0, end, rows):
            yield whole.slice(first, rows).combine_chunks()
        waiting = [whole.slice(end).combine_chunks()]  # a copy: a slice would hold all of it
        del whole
    if waiting and len(waiting[0]):
        yield waiting[0]
