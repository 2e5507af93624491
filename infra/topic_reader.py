"""Reads whole partitions without a group: registry, runs, history, ranges of served rows and labels."""

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from headrace.infra.kafka import consumer_config, end_offsets
from headrace.infra.settings import Settings
from headrace.models.errors import BrokerUnavailable

_METADATA_SECONDS = 10.0
_BATCH = 10_000
_ONCE_MS = 10
Partition = tuple[str, int]


class TopicReader:
    """Assigned to all partitions of some topics, from the beginning or from given offsets, transactions committed only.

    `caught_up` is true when every partition's end was reached once: an end-of-partition event, since the record before
    the end may be a transaction's marker that nobody is shown.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        begin: Mapping[Partition, int] | None = None,
        *,
        once: bool = False,
    ) -> None:
        """`once`: to the end and no further, so the broker is not to wait there for more records, 500 ms by default."""
        config = consumer_config(settings, "headrace.reader", **{"enable.partition.eof": True})
        if once:
            config["fetch.wait.max.ms"] = _ONCE_MS
        self._consumer = Consumer(config)
        self._asker = Consumer(config)  # on the reader's own connection a question waits behind its fetch, for 500 ms
        partitions = [(topic, number) for topic in topics for number in partitions_of(self._consumer, topic)]
        self.positions: dict[Partition, int] = {
            partition: (begin or {}).get(partition, OFFSET_BEGINNING) for partition in partitions
        }
        self._to_reach = set(partitions)
        self._consumer.assign([TopicPartition(*partition, at) for partition, at in self.positions.items()])

    @property
    def caught_up(self) -> bool:
        return not self._to_reach

    def poll(self, timeout: float, limit: int = _BATCH) -> list[Any]:
        """Messages that are there, waiting up to `timeout` seconds for the first."""
        batch = self._consumer.consume(1, timeout=timeout)
        if batch:
            batch += self._consumer.consume(limit - 1, timeout=0)
        return [message for message in batch if self._is_record(message)]

    def until_end(self) -> Iterator[list[Any]]:
        """Batches up to the end of every partition."""
        while not self.caught_up:
            yield self.poll(1.0)

    def up_to_now(self, seconds: float) -> list[Any]:
        """Everything that is new, to the ends that the partitions have at the call.

        Raises BrokerUnavailable where that takes longer than `seconds`.
        """
        found, ends, deadline = self.poll(0), self.ends(), monotonic() + seconds
        while any(self.positions[partition] < end for partition, end in ends.items()):
            found += self.poll(0.1)
            if monotonic() > deadline:
                topics = ", ".join(sorted({topic for topic, _ in self.positions}))
                raise BrokerUnavailable(f"{topics}: not read to the end within {seconds:.0f} s")
        return found

    def ends(self) -> dict[Partition, int]:
        """The end offset of each partition now."""
        return {
            partition: self._asker.get_watermark_offsets(
                TopicPartition(*partition), timeout=_METADATA_SECONDS, cached=False
            )[1]
            for partition in self.positions
        }

    def close(self) -> None:
        self._consumer.close()
        self._asker.close()

    def _is_record(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            self.positions[message.topic(), message.partition()] = message.offset() + 1
            return True
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  the library's public name for it
            self.positions[message.topic(), message.partition()] = message.offset()  # past the markers
            self._to_reach.discard((message.topic(), message.partition()))
        elif error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            raise KafkaException(error)
        return False


def from_end(settings: Settings, topics: Sequence[str]) -> TopicReader:
    """A reader whose first record is the next one that is written. Raises BrokerUnavailable."""
    return TopicReader(settings, topics, ends_of(settings, topics))


def ends_of(settings: Settings, topics: Sequence[str]) -> dict[Partition, int]:
    """The end offset of each partition now, for one who asks once. Raises BrokerUnavailable."""
    asker = Consumer(consumer_config(settings, "headrace.reader"))
    try:
        return {(topic, number): end for topic in topics for number, end in end_offsets(asker, topic).items()}
    finally:
        asker.close()


class Values:
    """A reader whose records are only values: what the registry's followers take."""

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader

    def poll(self, timeout: float) -> list[bytes | None]:
        return [message.value() for message in self._reader.poll(timeout)]

    @property
    def caught_up(self) -> bool:
        return self._reader.caught_up


def partitions_of(client: Any, topic: str) -> list[int]:
    """Raises BrokerUnavailable where the topic or the broker is not there."""
    try:
        found = client.list_topics(topic, timeout=_METADATA_SECONDS).topics[topic]
    except KafkaException as error:
        raise BrokerUnavailable(f"no answer from the broker about topic {topic!r}: {error.args[0].str()}") from error
    if found.error is not None:
        raise BrokerUnavailable(f"topic {topic!r} is not there: run `headrace apply` first ({found.error.str()})")
    return sorted(found.partitions)
