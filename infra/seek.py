"""a partition, and an offset of another topic's that its records name → the records that name it: by bisection.

What workers write about events lies in the order of the events' offsets, but for what was written again after a crash:
offsets then fall back, and rise over the same events once more. Between a record of earlier events and one of later
events there is thus one of the wanted, if there is any.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from time import monotonic
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.infra.kafka import consumer_config, watermarks
from headrace.infra.settings import Settings
from headrace.models.errors import BrokerUnavailable

_NEAR = 8  # records: fewer are read one after the other
_AROUND = (
    4_000  # records before and behind: a canary's of a chunk follow all of the champion's; and what was written again
)
_RUN = 1_000  # messages taken at once
_TOGETHER = 8  # partitions read side by side: each may have 1 MB waiting
_SECONDS = 30.0  # for one answer
_SMALL = {  # a look costs one record and what lies beside it
    "fetch.message.max.bytes": 64 * 1024,
    "queued.max.messages.kbytes": 1024,
    "fetch.wait.max.ms": 10,
    "enable.partition.eof": True,
}
Span = tuple[int, int]
"""The first and the last of the events' offsets that a record is about."""


class Seeker:
    """Reads a topic's partitions anywhere, without a group; committed records only. Used by one thread."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(consumer_config(settings, "headrace.reader", **_SMALL))

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that is still there, and the next one. Raises BrokerUnavailable."""
        place = TopicPartition(self._topic, partition)
        try:
            first, end = self._consumer.get_watermark_offsets(place, timeout=_SECONDS, cached=False)
        except KafkaException as error:
            raise BrokerUnavailable(f"{self._topic}/{partition}: no offsets, {error.args[0].str()}") from error
        return int(first), int(end)

    def all_bounds(self) -> dict[int, tuple[int, int]]:
        """Those of every partition, before anything is read. Raises BrokerUnavailable."""
        return watermarks(self._consumer, self._topic)

    def between(self, partition: int, first: int, end: int) -> Iterator[list[Any]]:
        """Messages with first ≤ offset < end, as far as they are there. Raises BrokerUnavailable."""
        yield from self.within({partition: (first, end)})

    def within(self, ranges: Mapping[int, tuple[int, int]]) -> Iterator[list[Any]]:
        """The same of several partitions side by side: one wait for all of them. In order within each."""
        wanted = {number: span for number, span in ranges.items() if span[0] < span[1]}
        places = iter(wanted.items())
        while some := dict(islice(places, _TOGETHER)):
            yield from self._within(some)

    def _within(self, wanted: dict[int, tuple[int, int]]) -> Iterator[list[Any]]:
        self._consumer.assign([TopicPartition(self._topic, number, first) for number, (first, _) in wanted.items()])
        to_reach, deadline = set(wanted), monotonic() + _SECONDS
        while to_reach:
            batch = self._consumer.consume(1, timeout=1.0)
            if batch:
                batch += self._consumer.consume(_RUN - 1, timeout=0)
                deadline = monotonic() + _SECONDS
            ours = [message for message in batch if message.error() is None and self._is_within(message, wanted)]
            if ours:
                yield ours
            reached = {message.partition() for message in batch if self._is_end(message, wanted)} & to_reach
            to_reach -= reached
            if to_reach and reached:  # what follows there is not to be fetched while others are still read
                self._consumer.incremental_unassign([TopicPartition(self._topic, number) for number in reached])
            if to_reach and monotonic() > deadline:
                places = ", ".join(f"{self._topic}/{number}" for number in sorted(to_reach))
                raise BrokerUnavailable(f"{places}: nothing read within {_SECONDS:.0f} s")

    def close(self) -> None:
        self._consumer.close()

    def _is_within(self, message: Any, wanted: Mapping[int, tuple[int, int]]) -> bool:
        first, end = wanted.get(message.partition(), (0, 0))
        return bool(first <= message.offset() < end)

    def _is_end(self, message: Any, wanted: Mapping[int, tuple[int, int]]) -> bool:
        error = message.error()
        if error is None:
            return message.partition() in wanted and bool(message.offset() >= wanted[message.partition()][1] - 1)
        if error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  the library's public name
            raise BrokerUnavailable(f"{self._topic}: {error.str()}")
        return bool(error.code() == KafkaError._PARTITION_EOF)  # noqa: SLF001


def about(seeker: Seeker, partition: int, wanted: int, span: Callable[[Any], Span | None]) -> list[Any]:
    """The records whose span has the offset, oldest first; `span` is None for what is not headrace's.

    A second one, from after a crash, is found where it lies within 4,000 records of the first.
    """
    first, end = seeker.bounds(partition)
    low, high = first, end  # the wanted one is from `low` on and before `high`
    while high - low > _NEAR:
        middle = (low + high) // 2
        place, found = _next(seeker, partition, (middle, high), span)
        if found[0] > wanted:
            high = middle
        elif found[1] < wanted:
            low = place + 1
        else:
            low, high = place, place + 1
    near = seeker.between(partition, max(first, low - _AROUND), min(end, high + _AROUND))
    return [message for batch in near for message in batch if _has(span(message), wanted)]


def at_or_after(seeker: Seeker, partition: int, wanted: int, span: Callable[[Any], Span | None]) -> Any | None:
    """The first record whose span ends at the offset or behind it: the one that has it, where there is one. None where
    no record is so new. Costs a look for each time that the topic can be halved."""
    low, high = seeker.bounds(partition)
    while high - low > _NEAR:
        middle = (low + high) // 2
        place, found = _next(seeker, partition, (middle, high), span)
        if found[1] >= wanted:
            high = middle
        else:
            low = place + 1
    near = seeker.between(partition, low, seeker.bounds(partition)[1])
    return next((one for batch in near for one in batch if (of := span(one)) is not None and of[1] >= wanted), None)


def _next(
    seeker: Seeker, partition: int, within: tuple[int, int], span: Callable[[Any], Span | None]
) -> tuple[int, Span]:
    """The first record of ours in this range, and its span; without one, it is as if the wanted lay before."""
    for batch in seeker.between(partition, *within):
        for message in batch:
            if (found := span(message)) is not None:
                return message.offset(), found
    return within[1], (1 << 63, 1 << 63)


def _has(span: Span | None, wanted: int) -> bool:
    return span is not None and span[0] <= wanted <= span[1]


def is_place(partition: str, offset: str) -> bool:
    """Whether a text may be a partition, and another one an offset: digits, and no more than they have."""
    return partition.isdecimal() and offset.isdecimal() and len(partition) < 10 and len(offset) < 20
