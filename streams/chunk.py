"""What travels between the thread that talks to Kafka and the agents: a chunk of messages, and its outcome."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from headrace.streams.out import Message, Out, Outs, each

TopicPartition = tuple[str, int]
Stamp = TypeVar("Stamp")
Part = tuple[Stamp, Sequence[Message], Sequence[Out]]
"""A chunk to be: its stamp, its messages, and what is produced before it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a chunk came to. `rows` is whatever the source's `settle` needs of it besides the records."""

    records: Sequence[Out | Outs]
    facts: Sequence[object] = ()  # frozen records for logs and metrics
    rows: object = None


@dataclass(frozen=True, kw_only=True)
class Chunk(Generic[Stamp]):
    """Messages of one or several partitions, in order within each.

    `stamp` is what the source fixed when it took the chunk (the model that serves it); the agent resolves `outcome`.
    """

    messages: Sequence[Message]
    stamp: Stamp
    begins: Mapping[TopicPartition, int]  # the position of each of its partitions before it (offsets may have gaps)
    ends: Mapping[TopicPartition, int]  # and after it
    outcome: Future[Outcome] = field(default_factory=Future)
    taken_at: float = field(default_factory=monotonic)  # seconds


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What is left of a chunk whose records are produced: enough to commit it. Its messages are free to go."""

    ends: Mapping[TopicPartition, int]
    messages: int
    oldest_ms: int  # when its first event was appended, Unix ms
    rows: object


def next_offsets(messages: Sequence[Message], topics: Collection[str]) -> Mapping[TopicPartition, int]:
    """Where each partition goes on after these messages of these topics."""
    partitions = each("partition", messages)
    if len(topics) == 1 and len(set(partitions)) == 1:  # each topic() would be a string of its own
        return {(messages[-1].topic() or "", partitions[-1]): (messages[-1].offset() or 0) + 1}
    places = zip(each("topic", messages), partitions, strict=True)
    return {place: offset + 1 for place, offset in zip(places, each("offset", messages), strict=True)}
