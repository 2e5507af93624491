"""a record that cannot be used → `<pipeline>.dead-letters`, with its original bytes and a reason."""

from collections.abc import Callable, Sequence
from operator import methodcaller

from headrace.models.errors import EventRejected
from headrace.models.records import REASON_HEADER, REDRIVEN_HEADER, SOURCE_HEADER
from headrace.streams.out import Headers, Message, Out

_REASON_LIMIT = 1_000  # bytes: the topic allows 64 KB more than the source for our headers

# The client answers and leaves an exception behind. Only a call from C checks for that at once: where the interpreter
# has specialised `message.headers()`, the exception comes out of some later line.
_read_headers: Callable[[Message], Headers | None] = methodcaller("headers")


def headers_of_each(messages: Sequence[Message]) -> tuple[list[Headers | None], set[int]]:
    """Of a chunk, None where there are none; and the indices of those that the client cannot read."""
    found: list[Headers | None] = []
    unreadable = set()
    rest = map(_read_headers, messages)
    while len(found) < len(messages):
        try:
            found.extend(rest)
        except (SystemError, UnicodeDecodeError):
            messages[len(found)].set_headers([])  # type: ignore[attr-defined]  # only a client's message gets here
            unreadable.add(len(found))
            found.append(None)
    return found, unreadable


def dead_letter(topic: str, message: Message, error: EventRejected) -> Out:
    source = f"{message.topic()}/{message.partition()}/{message.offset()}"
    reason = str(error).encode()[:_REASON_LIMIT]
    (own,), _ = headers_of_each([message])
    headers = [*(own or []), (REASON_HEADER, reason), (SOURCE_HEADER, source.encode())]
    return Out(topic, message.key(), message.value(), headers)


def is_mark(message: Message) -> bool:
    """Whether this record of a dead-letter topic only says that a letter was redriven. Every letter has a reason."""
    if message.value() is not None:
        return False
    (headers,), _ = headers_of_each([message])  # of an unusable label, too, which anybody may have written
    names = {name for name, _ in headers or []}
    return REDRIVEN_HEADER in names and REASON_HEADER not in names


def dead_letters(topic: str, messages: Sequence[Message], rejected: Sequence[tuple[int, EventRejected]]) -> list[Out]:
    return [dead_letter(topic, messages[index], error) for index, error in rejected]
