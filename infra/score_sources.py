"""a topic, or Parquet files → the rows of a tick: all of them once, to see which count, then those alone.

Values are never held: a topic is read from its beginning to its end, and once more from the first row that counts; of
Parquet files, first id and time alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer

from headrace.infra.bulk_reader import runs_within
from headrace.infra.files import parquet_files
from headrace.infra.kafka import consumer_config, end_offsets
from headrace.infra.names import Names
from headrace.infra.rows import parquet_rows
from headrace.infra.settings import Settings
from headrace.infra.topics import topic_id
from headrace.models.errors import RunFailed
from headrace.models.features import Topic
from headrace.models.scoring import Score
from headrace.streams.formats import record_decoder
from headrace.streams.out import Headers, Message
from headrace.streams.rings import entity_text

_Place = tuple[Any, str]  # file system, path


class RowSource(Protocol):
    """Rows by partition and offset, as they were when a tick began."""

    def ends(self) -> dict[int, int]:
        """By partition, the offset after its last row now."""

    def identity(self) -> str:
        """Another one where offsets would mean other rows."""

    def survey(self, partition: int, end: int) -> Iterator[Sequence[Message]]:
        """All rows before `end`, with key, offset, id and time at least."""

    def rows(self, partition: int, first: int, end: int) -> Iterator[Sequence[Message]]:
        """Rows with first ≤ offset < end."""


def source_of(settings: Settings, names: Names, score: Score) -> RowSource:
    if isinstance(score.source, Topic):
        return TopicRows(settings, names.of(score.source.name))
    return ParquetRows(score.source, score.rows(names.pipeline.events))


class TopicRows:
    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self._topic = settings, topic

    def ends(self) -> dict[int, int]:
        asker = Consumer(consumer_config(self._settings, "headrace.reader"))
        try:
            return end_offsets(asker, self._topic)
        finally:
            asker.close()

    def identity(self) -> str:
        return topic_id(self._settings, self._topic)

    def survey(self, partition: int, end: int) -> Iterator[Sequence[Message]]:
        return self.rows(partition, OFFSET_BEGINNING, end)

    def rows(self, partition: int, first: int, end: int) -> Iterator[Sequence[Message]]:
        if end > 0:
            for _, messages in runs_within(self._settings, {(self._topic, partition): (first, end)}):
                yield messages


@dataclass(frozen=True, slots=True)
class _FileRow:
    """A row of a file as a message: what decodes and parks messages takes it."""

    place: str
    number: int
    text: bytes
    entity: bytes | None

    def topic(self) -> str:
        return self.place

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.number

    def key(self) -> bytes | None:
        return self.entity

    def value(self) -> bytes:
        return self.text

    def headers(self) -> Headers | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


class ParquetRows:
    """Rows are numbered from 0 through all files; the id is the key. A file that changes ends the tick."""

    def __init__(self, url: str, topic: Topic) -> None:
        """`topic` says which columns are id and time."""
        self._url, self._columns = url, [topic.id or "", topic.time]
        self._id, held = record_decoder("Key", {topic.id or "": (str | int | float | bool, False)})
        self._held = held[topic.id or ""]

    def ends(self) -> dict[int, int]:
        return {0: sum(rows for _, rows in self._files())}

    def identity(self) -> str:
        """A hash of names, sizes, times of change, or whatever the store tells of its files."""
        known = [f"{path} {files.ukey(path)}" for files, path in parquet_files(self._url)]
        return hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]

    def survey(self, partition: int, end: int) -> Iterator[Sequence[Message]]:  # noqa: ARG002  there is one
        return self._from(0, end, self._columns)

    def rows(self, partition: int, first: int, end: int) -> Iterator[Sequence[Message]]:  # noqa: ARG002  there is one
        return self._from(first, end, None)

    def _from(self, first: int, end: int, columns: Sequence[str] | None) -> Iterator[Sequence[Message]]:
        before = 0  # rows in the files before this one
        for place, size in self._files():
            number = max(first, before)
            if number < min(before + size, end):
                with self._opened(place) as file:
                    for rows in parquet_rows(self._url, file, first=number - before, columns=columns):
                        yield [
                            _FileRow(self._url, at, text, self._key(text))
                            for at, text in enumerate(rows[: end - number], start=number)
                        ]
                        number += len(rows)
            before += size

    def _files(self) -> Iterator[tuple[_Place, int]]:
        """Each with its number of rows: one is open at a time."""
        found = parquet_files(self._url)
        if not found:
            raise FileNotFoundError(f"{self._url}: a folder without Parquet files")
        for place in found:
            with self._opened(place) as file:
                if lacking := [name for name in self._columns if name not in file.schema_arrow.names]:
                    expected = f"expected the columns {' and '.join(self._columns)}, as the events have them"
                    raise RunFailed("no_column", f"{self._url}: {expected}; {', '.join(lacking)} is not there")
                rows: int = file.metadata.num_rows
            yield place, rows

    @contextmanager
    def _opened(self, place: _Place) -> Iterator[Any]:
        import pyarrow.parquet as pq  # noqa: PLC0415  a tenth of a second that a pipeline without need not wait

        files, path = place
        with files.open(path, "rb") as opened, pq.ParquetFile(opened) as file:
            yield file

    def _key(self, text: bytes) -> bytes | None:
        try:
            given = getattr(self._id(text), self._held)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        return None if given is None else entity_text(given).encode("utf-8", "surrogatepass")
