"""topics, from given offsets to their ends → runs of messages of one partition each: what a dataset is made of.

`TopicReader` keeps positions for followers, message by message; here a message costs as little as can be, and what
librdkafka has fetched ahead is bounded, whatever the number of partitions.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.infra.kafka import consumer_config
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, partitions_of

_RUN = 4_000  # messages taken at once
_TOGETHER = 8  # partitions read side by side
_AHEAD = {  # a few MB per partition: the client's own record of a message takes five times as much as a label
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 4 * 1024,
    "fetch.message.max.bytes": 1024 * 1024,  # per partition and answer
    "fetch.max.bytes": 2 * 1024 * 1024,  # per answer
}
_ONCE = {"enable.partition.eof": True, "fetch.wait.max.ms": 10}  # the broker is not to wait at the end for more


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which sweeps all living messages with every few hundred new ones.

    That is a third of all the time that reading takes, and for nothing: messages are in no cycles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def runs_until_end(
    settings: Settings, topics: Sequence[str], begin: Mapping[Partition, int]
) -> Iterator[tuple[Partition, list[Any]]]:
    """Committed messages in order within a partition, from its beginning where `begin` does not say.

    Raises BrokerUnavailable, and KafkaException where an offset of `begin` is no longer there.
    """
    consumer = Consumer(consumer_config(settings, "headrace.reader", **_AHEAD, **_ONCE))
    try:
        partitions = [(topic, number) for topic in topics for number in partitions_of(consumer, topic)]
        for first in range(0, len(partitions), _TOGETHER):
            group = partitions[first : first + _TOGETHER]
            consumer.assign([TopicPartition(*part, begin.get(part, OFFSET_BEGINNING)) for part in group])
            yield from _runs(consumer, set(group))
    finally:
        consumer.close()


def runs_within(
    settings: Settings, ranges: Mapping[Partition, tuple[int, int]]
) -> Iterator[tuple[Partition, list[Any]]]:
    """Committed messages from the first offset of each range to before its end, which was a message's once.

    Raises as `runs_until_end` does; what is missing inside is not seen here.
    """
    consumer = Consumer(consumer_config(settings, "headrace.reader", **_AHEAD, **_ONCE))
    try:
        for partition, (first, end) in ranges.items():
            consumer.assign([TopicPartition(*partition, first)])
            for _, messages in _runs(consumer, {partition}):
                inside = [message for message in messages if message.offset() < end]
                if inside:
                    yield partition, inside
                if messages[-1].offset() >= end - 1:
                    break
    finally:
        consumer.close()


def _runs(consumer: Consumer, to_reach: set[Partition]) -> Iterator[tuple[Partition, list[Any]]]:
    """An end-of-partition event says that an end is reached: the last record may be a marker that nobody is shown."""
    while to_reach:
        batch = consumer.consume(1, timeout=1.0)
        if batch:
            batch += consumer.consume(_RUN - 1, timeout=0)
        events = [message for message in batch if message.error() is not None]
        if events:
            to_reach -= {(message.topic(), message.partition()) for message in events if _is_end(message.error())}
            batch = [message for message in batch if message.error() is None]
        for topic, of_topic in groupby(batch, Message.topic):
            for number, run in groupby(of_topic, Message.partition):
                yield (topic, number), list(run)


def _is_end(error: KafkaError) -> bool:
    if error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  the library's public name
        raise KafkaException(error)
    return bool(error.code() == KafkaError._PARTITION_EOF)  # noqa: SLF001
