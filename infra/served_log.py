"""`<pipeline>.served` → served rows: the batch of one event, the newest ones, or all since a time."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, TopicPartition

from headrace.infra.bulk_reader import runs_until_end
from headrace.infra.kafka import consumer_config, watermarks
from headrace.infra.names import Names
from headrace.infra.seek import Seeker, Span, about, at_or_after
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, partitions_of
from headrace.models.errors import EventRejected
from headrace.models.records import FIRST_OFFSET_HEADER, LAST_OFFSET_HEADER
from headrace.streams.served import record_of, served_rows
from headrace.trainer.columns import as_numpy

_FIRST_STEP = 16  # records of each partition, then twice as many, and so on
_LAST_STEP = 4  # records: the newest one may have a transaction's marker behind it
_SLACK_MS = 3_600_000  # clocks differ
_SECONDS = 30.0


class _Predicted(msgspec.Struct):
    """What is looked at of a prediction."""

    source: tuple[str, int, int]
    tick: str = ""


_decode = msgspec.json.Decoder(_Predicted).decode


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One record of the topic."""

    place: str  # topic/partition/offset
    written_ms: int
    rows: pa.RecordBatch

    def row(self, offset: int) -> int | None:
        """Of the event with this offset; headers only say that it may be there."""
        at = int(pc.index(self.rows.column("offset"), offset).as_py())
        return None if at < 0 else at


def source_of(events: str, names: Names, partition: int, offset: int) -> str:
    """What a person calls a served row's event: its place on the topic `events`; of one that was asked for on demand,
    where its row lies on the served topic."""
    if partition >= 0:
        return f"{events}/{partition}/{offset}"
    return "/".join(map(str, (names.topics.served, *record_of(partition, offset))))


def served_with(settings: Settings, topic: str, partition: int, offset: int) -> list[Batch]:
    """The batches in which this event was served, oldest first: more than one where it was served again.

    Of one that was asked for on demand its place says in which.
    """
    with closing(Seeker(settings, topic)) as seeker:
        if partition < 0:
            number, record, _ = record_of(partition, offset)
            end = min(record + 1, seeker.bounds(number)[1])
            found = [message for some in seeker.between(number, record, end) for message in some]
        else:
            found = about(seeker, partition, offset, _served_span)
    return [batch for batch in _batches(found) if batch.row(offset) is not None]


def event_time_from(seeker: Seeker, partition: int, offset: int) -> int | Literal["gone"] | None:
    """Unix ms, of the first event at this offset or behind it that was served. "gone" where its rows were deleted, None
    where nothing so new was served so far."""
    found = at_or_after(seeker, partition, offset, _served_span)
    for batch in [] if found is None else _batches([found]):
        offsets, times = (as_numpy(batch.rows.column(name).cast(pa.int64())) for name in ("offset", "event_time"))
        behind = np.flatnonzero(offsets >= offset)
        first = int(behind[np.argmin(offsets[behind])]) if len(behind) else 0
        return "gone" if offsets[first] > offset and _is_oldest(seeker, found) else int(times[first])
    return None


def newest_event_time(seeker: Seeker, partition: int) -> int | None:
    """Unix ms, of the newest event in the batch that was written last. None where there is no batch."""
    first, end = seeker.bounds(partition)
    step = _LAST_STEP
    while first < end:
        for batch in reversed([one for some in seeker.between(partition, max(first, end - step), end) for one in some]):
            for read in _batches([batch]):
                return int(as_numpy(read.rows.column("event_time").cast(pa.int64())).max())
        end, step = end - step, 2 * step  # only markers of transactions: further back
    return None


def predicted_with(settings: Settings, topic: str, partition: int, offset: int) -> list[Any]:
    """The predictions of this event that are still on the topic, as messages."""
    with closing(Seeker(settings, topic)) as seeker:
        return about(seeker, partition, offset, _predicted_span)


def newest_first(settings: Settings, topic: str) -> Iterator[list[Batch]]:
    """Round by round: some of every partition's newest batches, then those before them, and so on to the oldest.

    Within a round by partition, and in order. What is written meanwhile is not among them.
    """
    with closing(Seeker(settings, topic)) as seeker:
        left = _bounds(settings, topic)
        step = _FIRST_STEP
        while any(first < end for first, end in left.values()):
            found: list[Batch] = []
            for partition, (first, end) in left.items():
                begin = max(first, end - step)
                for messages in seeker.between(partition, begin, end):
                    found += _batches(messages)
                left[partition] = first, begin
            yield found
            step *= 2


def since(settings: Settings, topic: str, event_ms: int, max_future_ms: int) -> Iterator[Batch]:
    """Batches that may have rows with an event time from `event_ms` on, a partition's in order, to the topic's end.

    An event lies at most `max_future_ms` ahead of the clock that stamped its batch.
    """
    begin = offsets_since(settings, [topic], event_ms - max_future_ms - _SLACK_MS)
    for _, messages in runs_until_end(settings, [topic], begin):
        yield from _batches(messages)


def offsets_since(settings: Settings, topics: Sequence[str], written_ms: int) -> dict[Partition, int]:
    """Where each partition's first record with this timestamp or a later one is; its end, where there is none."""
    client = Consumer(consumer_config(settings, "headrace.reader"))
    try:
        places = [
            TopicPartition(topic, number, max(0, written_ms))
            for topic in topics
            for number in partitions_of(client, topic)
        ]
        # the ends first: a record that comes meanwhile is behind them
        ends = {topic: watermarks(client, topic) for topic in topics}
        found = client.offsets_for_times(places, timeout=_SECONDS)
    finally:
        client.close()
    return {
        (one.topic, one.partition): one.offset if one.offset >= 0 else ends[one.topic][one.partition][1]
        for one in found
    }


def _bounds(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    client = Consumer(consumer_config(settings, "headrace.reader"))
    try:
        return watermarks(client, topic)
    finally:
        client.close()


def _batches(messages: Sequence[Any]) -> Iterator[Batch]:
    for message in messages:
        try:
            rows = served_rows(message)
        except EventRejected:  # not written by headrace
            continue
        place = f"{message.topic()}/{message.partition()}/{message.offset()}"
        yield Batch(place=place, written_ms=message.timestamp()[1], rows=rows)


def _is_oldest(seeker: Seeker, message: Any) -> bool:
    """Of those that are left, where some were deleted."""
    first, _ = seeker.bounds(message.partition())
    return bool(first > 0 and message.offset() <= first + 1)  # a transaction's marker may be what is left of another


def _served_span(message: Any) -> Span | None:
    """None for rows that were asked for on demand, too: they lie between the events' and have no offsets of theirs."""
    headers = dict(message.headers() or [])
    try:
        return int(headers[FIRST_OFFSET_HEADER]), int(headers[LAST_OFFSET_HEADER])
    except (KeyError, TypeError, ValueError):
        return None


def _predicted_span(message: Any) -> Span | None:
    """None for rows that were scored by schedule: they lie between the events' in no order."""
    try:
        found = _decode(message.value() or b"")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None if found.tick else (found.source[2], found.source[2])
