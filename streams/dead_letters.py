"""a record that cannot be used → `<pipeline>.dead-letters`, with its original bytes and a reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Protocol

from headrace.models.errors import EventRejected
from headrace.models.records import REASON_HEADER, SOURCE_HEADER

_REASON_LIMIT = 1_000  # bytes: the topic allows 64 KB more than the source for our headers
Headers = list[tuple[str, bytes | None]]


class Message(Protocol):
    """What we read of a confluent_kafka message."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Headers | None: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Out:
    """A record to produce. `partition` -1 leaves it to the producer's partitioner."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = -1


# The client answers and leaves an exception behind. Only a call from C checks for that at once: where the interpreter
# has specialised `message.headers()`, the exception comes out of some later line.
_read_headers: Callable[[Message], Headers | None] = methodcaller("headers")


def headers_of(message: Message) -> Headers | None:
    """None, once, where the client cannot read them (a name that is not UTF-8); from then on the message has none."""
    try:
        return _read_headers(message) or []
    except (SystemError, UnicodeDecodeError):
        message.set_headers([])  # type: ignore[attr-defined]  # only a client's message gets here
        return None


def dead_letter(topic: str, message: Message, error: EventRejected) -> Out:
    source = f"{message.topic()}/{message.partition()}/{message.offset()}"
    reason = str(error).encode()[:_REASON_LIMIT]
    headers = [*(headers_of(message) or []), (REASON_HEADER, reason), (SOURCE_HEADER, source.encode())]
    return Out(topic, message.key(), message.value(), headers)


def dead_letters(topic: str, messages: Sequence[Message], rejected: Sequence[tuple[int, EventRejected]]) -> list[Out]:
    return [dead_letter(topic, messages[index], error) for index, error in rejected]
