"""Served rows and labels of a pipeline as Arrow files beside the trainer: read from Kafka once, then only what is new.

Written while they are read: memory is bounded by what is read at once, not by what there is. Names carry the offsets,
so files of other ranges never mix. The folder is a cache: deleting it costs a re-read.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer

from headrace.infra.bulk_reader import runs_until_end, runs_within, uncollected
from headrace.infra.kafka import consumer_config, watermarks
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition
from headrace.models.errors import BadInput, EventRejected
from headrace.models.manifest import OffsetRange
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.streams.served import served_rows
from headrace.trainer.past_file import APPENDED

_LABELS = pa.schema([("id", pa.string()), ("time", pa.int64()), ("value", pa.float64())])
_APPENDED = pa.field(APPENDED, pa.int64())
_WAITING_BYTES = 2 * 1024 * 1024  # of all partitions together
_MOST_ASKED = 8  # files of rows on demand that are open at a time, of each partition


class DatasetFiles:
    """`fetch` brings the folder up to the ends that the topics have now."""

    def __init__(self, settings: Settings, names: Names, folder: Path, *, appended: bool = False) -> None:
        """`appended`: when rows and labels were appended is a column, too."""
        self._settings, self._names, self._folder, self._appended = settings, names, folder, appended
        self._labels = LabelDecoder(names.pipeline.label, names.pipeline.max_future_ms)
        self._firsts: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        shutil.rmtree(folder, ignore_errors=True)  # of another life of the topics, perhaps
        folder.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        return self._folder

    def fetch(self) -> tuple[OffsetRange, ...]:
        """The ranges that the folder holds now."""
        topics = [self._names.topics.served, self._names.labels]
        return self._kept(runs_until_end(self._settings, topics, self._ends))

    def fetch_again(self, ranges: Sequence[OffsetRange]) -> tuple[OffsetRange, ...]:
        """Only these, into an empty folder. Raises BadInput where one of them is no longer on its topic."""
        wanted = {(part.topic, part.partition): (part.first, part.end) for part in ranges}
        self._expect_there(wanted)
        return self._kept(runs_within(self._settings, wanted))

    def _expect_there(self, wanted: Mapping[Partition, tuple[int, int]]) -> None:
        asker = Consumer(consumer_config(self._settings, "headrace.reader"))
        try:
            for topic in sorted({topic for topic, _ in wanted}):
                if topic not in (self._names.topics.served, self._names.labels):
                    raise BadInput(f"dataset: {topic} is neither the pipeline's served rows nor its labels.")
                there = watermarks(asker, topic)
                for number in sorted(number for of, number in wanted if of == topic):
                    _expect_within(f"{topic}/{number}", wanted[topic, number], there.get(number, (0, 0)))
        finally:
            asker.close()

    def _kept(self, runs: Iterable[tuple[Partition, list[Any]]]) -> tuple[OffsetRange, ...]:
        files: dict[Partition, _PartitionFiles] = {}
        try:
            with uncollected():
                self._add(files, runs)
        finally:
            for part in files.values():
                part.close()
        for partition, part in files.items():
            part.keep()
            self._firsts.setdefault(partition, part.first)
            self._ends[partition] = part.end
        return tuple(
            OffsetRange(topic=topic, partition=number, first=self._firsts[topic, number], end=end)
            for (topic, number), end in sorted(self._ends.items())
        )

    def _add(self, files: "dict[Partition, _PartitionFiles]", runs: Iterable[tuple[Partition, list[Any]]]) -> None:
        for partition, messages in runs:
            if partition not in files:
                files[partition] = _PartitionFiles(self._folder, self._kind(partition), messages[0].offset())
            for batch in self._batches(partition, messages):
                files[partition].add(batch)
            files[partition].end = messages[-1].offset() + 1
            if sum(part.waiting_bytes for part in files.values()) > _WAITING_BYTES:
                for part in files.values():
                    part.flush()

    def _kind(self, partition: Partition) -> str:
        return f"{'served' if partition[0] == self._names.topics.served else 'labels'}-{partition[1]:05}"

    def _batches(self, partition: Partition, messages: list[Any]) -> Iterator[pa.RecordBatch]:
        if partition[0] == self._names.topics.served:
            return _served(messages, appended=self._appended)
        # labels that cannot be used are parked by the live join, once
        values, now = [message.value() for message in messages], clock_ms()
        ids, times, learnt = self._labels.columns(values, now)
        if not self._appended:
            return iter([pa.record_batch([ids, times, learnt], schema=_LABELS)])
        usable = range(len(messages)) if len(ids) == len(messages) else self._labels.decode(values, now)[0]
        moments = np.array([messages[at].timestamp()[1] for at in usable], np.int64)
        return iter([pa.record_batch([ids, times, learnt, moments], schema=_LABELS.append(_APPENDED))])


class _PartitionFiles:
    """New records of one partition, as drafts until `keep`.

    Another file begins where the schema changes. Rows that were asked for have files of their own, one per schema: any
    version may be asked for at any time, and none of these rows comes twice, so that their order means nothing. They
    come before the stream's, whose newest schema decides.
    """

    def __init__(self, folder: Path, kind: str, first: int) -> None:
        self.first = self.end = first
        self._folder, self._kind = folder, kind
        self._drafts: dict[str, list[_Draft]] = {"+": [], "-": []}
        self._open: _Draft | None = None  # of the stream's rows, or of labels
        self._asked: dict[pa.Schema, _Draft] = {}  # those that are open

    @property
    def waiting_bytes(self) -> int:
        return sum(draft.waiting_bytes for draft in self._writable())

    def add(self, batch: pa.RecordBatch) -> None:
        if _is_on_demand(batch):
            if batch.schema not in self._asked:
                self._close_asked(_MOST_ASKED - 1)
                self._asked[batch.schema] = self._draft("+", batch.schema)
            self._asked[batch.schema].add(batch)
            return
        if self._open is None or batch.schema != self._open.schema:  # it changes when features or the champion do
            if self._open is not None:
                self._open.close()
            self._open = self._draft("-", batch.schema)
        self._open.add(batch)

    def flush(self) -> None:
        for draft in self._writable():
            draft.flush()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None
        self._close_asked(0)

    def keep(self) -> None:
        """What was read becomes files for the trainer."""
        for sort, drafts in self._drafts.items():
            for number, draft in enumerate(drafts):
                name = f"{self._kind.replace('-', sort, 1)}-{self.first:015}-{self.end:015}-{number}.arrow"
                draft.path.rename(self._folder / name)

    def _draft(self, sort: str, schema: pa.Schema) -> "_Draft":
        drafts = self._drafts[sort]
        name = f"{self._kind.replace('-', sort, 1)}-{self.first:015}-{len(drafts)}.draft"
        drafts.append(_Draft(self._folder / name, schema))
        return drafts[-1]

    def _writable(self) -> "list[_Draft]":
        return [*([] if self._open is None else [self._open]), *self._asked.values()]

    def _close_asked(self, most: int) -> None:
        while len(self._asked) > most:
            self._asked.pop(next(iter(self._asked))).close()


class _Draft:
    """Batches wait for others: read again and again, ten rows in a batch of their own cost as much as thousands."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.waiting_bytes = path, schema, 0
        self._writer, self._waiting = pa.ipc.new_stream(str(path), schema), list[pa.RecordBatch]()

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self.waiting_bytes += batch.get_total_buffer_size()

    def flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting, self.waiting_bytes = [], 0

    def close(self) -> None:
        self.flush()
        self._writer.close()


def _is_on_demand(batch: pa.RecordBatch) -> bool:
    at = batch.schema.get_field_index("partition")  # labels have none
    return bool(at >= 0 and batch.num_rows and batch.column(at)[0].as_py() < 0)


def _expect_within(place: str, wanted: tuple[int, int], there: tuple[int, int]) -> None:
    (first, end), (begin, over) = wanted, there
    if first < begin:
        gone = f"it begins at {begin} now: {min(end, begin) - first:,} offsets are gone by retention"
        raise BadInput(f"dataset: expected {place} from {first} to {end}, {gone}.")
    if end > over:
        raise BadInput(
            f"dataset: expected {place} from {first} to {end}, it ends at {over}: another topic of that name."
        )


def _served(messages: list[Any], *, appended: bool) -> Iterator[pa.RecordBatch]:
    for message in messages:
        try:
            batch = served_rows(message)
        except EventRejected:  # not written by headrace: no row of ours
            continue
        if appended:
            moments = np.full(batch.num_rows, message.timestamp()[1], np.int64)
            batch = batch.append_column(_APPENDED, pa.array(moments))
        yield batch
