"""What travels between the thread that talks to Kafka and the agents: a chunk of messages, and its outcome."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from headrace.streams.dead_letters import Message, Out

TopicPartition = tuple[str, int]
Stamp = TypeVar("Stamp")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a chunk came to. `rows` is whatever the source's `settle` needs of it besides the records."""

    records: Sequence[Out]
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
    outcome: Future[Outcome] = field(default_factory=Future)
    taken_at: float = field(default_factory=monotonic)  # seconds

    def next_offsets(self) -> Mapping[TopicPartition, int]:
        """Where each partition goes on after this chunk."""
        return {(_text(m.topic()), _number(m.partition())): _number(m.offset()) + 1 for m in self.messages}


def _text(value: str | None) -> str:
    return value or ""


def _number(value: int | None) -> int:
    return -1 if value is None else value
