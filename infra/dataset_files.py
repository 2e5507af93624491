"""Served rows and labels of a pipeline as Arrow files beside the trainer: read from Kafka once, then only what is new.

Names carry the offsets, so files of other ranges never mix. The folder is a cache: deleting it costs a re-read.
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, TopicReader
from headrace.models.errors import EventRejected
from headrace.models.manifest import OffsetRange
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.streams.served import decode_served

_LABELS = pa.schema([("id", pa.string()), ("time", pa.int64()), ("value", pa.float64())])


class DatasetFiles:
    """`fetch` brings the folder up to the ends that the topics have now."""

    def __init__(self, settings: Settings, names: Names, folder: Path) -> None:
        self._settings, self._names, self._folder = settings, names, folder
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
        reader = TopicReader(self._settings, topics, self._ends, once=True)
        messages: dict[Partition, list[Any]] = {}
        try:
            for batch in reader.until_end():
                for message in batch:
                    messages.setdefault((message.topic(), message.partition()), []).append(message)
        finally:
            reader.close()
        for partition, found in messages.items():
            self._write(partition, found)
        return tuple(
            OffsetRange(topic=topic, partition=number, first=self._firsts[topic, number], end=end)
            for (topic, number), end in sorted(self._ends.items())
        )

    def _write(self, partition: Partition, messages: list[Any]) -> None:
        first, end = messages[0].offset(), messages[-1].offset() + 1
        self._firsts.setdefault(partition, first)
        self._ends[partition] = end
        served = partition[0] == self._names.topics.served
        tables = _served(messages) if served else [self._label_table(messages)]
        for number, table in enumerate(tables):
            kind = "served" if served else "labels"
            name = f"{kind}-{partition[1]:05}-{first:015}-{end:015}-{number}.arrow"
            draft = self._folder / f"{name}.draft"
            with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            draft.rename(self._folder / name)

    def _label_table(self, messages: list[Any]) -> pa.Table:
        """Labels that cannot be used are parked by the live join, once."""
        _, rows, _ = self._labels.decode([message.value() for message in messages], clock_ms())
        return pa.table(
            [[row.id for row in rows], [row.time for row in rows], [row.value for row in rows]], schema=_LABELS
        )


def _served(messages: list[Any]) -> list[pa.Table]:
    """One table per run of batches that share a schema: it changes when features or the champion do."""
    runs: list[list[pa.RecordBatch]] = []
    for message in messages:
        try:
            batch = decode_served(message.value() or b"")
        except EventRejected:  # not written by headrace: no row of ours
            continue
        if not runs or runs[-1][0].schema != batch.schema:
            runs.append([])
        runs[-1].append(batch)
    return [pa.Table.from_batches(run).combine_chunks() for run in runs]
