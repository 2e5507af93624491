"""What is read of a Kafka message, and what is given to a producer: one record, or the columns of many."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

Headers = list[tuple[str, bytes | None]]
Call = tuple[str, bytes | None, bytes | None, int, None, None, int, Headers | None]
"""The positional arguments of `confluent_kafka.Producer.produce`: topic, value, key, partition, two callbacks,
timestamp (0: now), headers. By name they cost 0.3 µs more per record."""


class Message(Protocol):
    """What we read of a confluent_kafka message."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Headers | None: ...
    def timestamp(self) -> tuple[int, int]: ...


def each(read: str, messages: Sequence[Message]) -> list[Any]:
    """What `message.<read>()` gives of every message of a chunk (all of one class), without a step of the interpreter
    per message: `each("value", messages)`."""
    return list(map(getattr(type(messages[0]), read), messages)) if messages else []


@dataclass(frozen=True, slots=True)
class Out:
    """A record to produce. `partition` -1 leaves it to the producer's partitioner."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = -1

    def calls(self) -> Iterable[Call]:
        return ((self.topic, self.value, self.key, self.partition, None, None, 0, self.headers),)

    def each(self) -> "Iterator[Out]":
        yield self


@dataclass(frozen=True, slots=True, kw_only=True)
class Outs:
    """Records of one topic as columns of one length: an object per prediction would cost as much as encoding it."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    headers: Sequence[Headers]
    partitions: Sequence[int]

    def calls(self) -> Iterable[Call]:
        topic, nothing, now = repeat(self.topic), repeat(None), repeat(0)
        return zip(topic, self.values, self.keys, self.partitions, nothing, nothing, now, self.headers, strict=False)

    def each(self) -> Iterator[Out]:
        for key, value, headers, partition in zip(self.keys, self.values, self.headers, self.partitions, strict=True):
            yield Out(self.topic, key, value, headers, partition)
