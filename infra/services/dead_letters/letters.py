"""`<pipeline>.dead-letters` → what was parked, one by one, and what of it was redriven.

A letter that was redriven has a mark behind it in its partition: a record without a value, which outlives it.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import msgspec
from msgspec.structs import replace

from headrace.infra.names import Names
from headrace.infra.row_format import readable
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.records import (
    BY_HEADER,
    REASON_HEADER,
    REDRIVEN_HEADER,
    REDRIVEN_TO_HEADER,
    SOURCE_HEADER,
    TICK_HEADER,
    WHY_HEADER,
)
from headrace.streams.dead_letters import is_mark

_OURS = (REASON_HEADER, SOURCE_HEADER, TICK_HEADER)
Headers = tuple[tuple[str, bytes | None], ...]


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be used, as it was, and why."""

    place: str  # topic/partition/offset of the letter itself
    source: str  # and of the record that it was
    reason: str  # a short fixed word
    detail: str
    at: str  # when it was parked
    key: bytes | None
    value: bytes | None
    headers: Headers  # the record's own
    tick: str = ""  # of a row that was scored by schedule: the scheduled time
    redriven_at: str = ""  # when it was put back on its topic, if it was
    redriven_by: str = ""
    redriven_why: str = ""
    redriven_to: str = ""  # topic/partition/offset of the record there


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What says of a letter that it was redriven."""

    letter: str  # its place
    at: str
    by: str
    why: str
    to: str  # topic/partition/offset of the record


def letters(settings: Settings, names: Names) -> Iterator[Letter]:
    """In the order of each partition. Reads the topic twice, for the marks come behind. Raises BrokerUnavailable."""
    marks = {}
    for message in _records(settings, names):
        if (mark := mark_of(message)) is not None:
            marks[mark.letter] = mark
    for message in _records(settings, names):
        if not is_mark(message):
            letter = letter_of(message)
            yield marked(letter, marks.get(letter.place))


def letter(settings: Settings, names: Names, wanted: str | None = None) -> Letter:
    """The letter of this source, or at this place of the dead-letter topic, else the newest. Raises BadInput."""
    newest = None
    for one in letters(settings, names):
        if wanted is not None and wanted in (one.source, one.place):
            return one
        newest = one if newest is None or one.at >= newest.at else newest
    if newest is None:
        raise BadInput(f"{names.topics.dead_letters}: expected a dead letter, there is none.")
    if wanted is not None:
        raise BadInput(f"expected topic/partition/offset as `headrace dead-letters list --all` shows; no {wanted!r}.")
    return newest


def shown(data: bytes | None) -> str | None:
    """Bytes for a person; of the format see `readable`."""
    return None if data is None else readable(data)


def shown_value(names: Names, found: Letter) -> str | None:
    """The record, by its topic's format."""
    formats = {names.of(topic.name): topic.format for topic in names.pipeline.inputs}
    topic = found.source.rsplit("/", 2)[0]
    return None if found.value is None else readable(found.value, formats.get(topic, "json"))


def place_of(message: Any) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def letter_of(message: Any) -> Letter:
    """As it was parked: what is known of its mark, `marked` says."""
    headers, ours = _apart(message.headers() or [])
    reason, _, detail = _text(ours.get(REASON_HEADER)).partition(": ")
    return Letter(
        place=place_of(message),
        source=_text(ours.get(SOURCE_HEADER)),
        reason=reason,
        detail=detail,
        at=iso(message.timestamp()[1]),
        key=message.key(),
        value=message.value(),
        headers=headers,
        tick=_text(ours.get(TICK_HEADER)),
    )


def marked(letter: Letter, mark: Mark | None) -> Letter:
    if mark is None:
        return letter
    return replace(letter, redriven_at=mark.at, redriven_by=mark.by, redriven_why=mark.why, redriven_to=mark.to)


def mark_of(message: Any) -> Mark | None:
    """None for a letter."""
    if not is_mark(message):
        return None
    said = dict(message.headers())
    return Mark(
        letter=_text(said[REDRIVEN_HEADER]),
        at=iso(message.timestamp()[1]),
        by=_text(said.get(BY_HEADER)),
        why=_text(said.get(WHY_HEADER)),
        to=_text(said.get(REDRIVEN_TO_HEADER)),
    )


def _records(settings: Settings, names: Names) -> Iterator[Any]:
    with closing(TopicReader(settings, [names.topics.dead_letters], once=True)) as reader:
        for batch in reader.until_end():
            yield from batch


def _apart(headers: Sequence[tuple[str, bytes | None]]) -> tuple[Headers, dict[str, bytes | None]]:
    """The record's own, and ours: they are the last ones. A record that is parked anew may have some of its own."""
    own, ours = list(headers), dict[str, bytes | None]()
    while own and own[-1][0] in _OURS and REASON_HEADER not in ours:
        name, value = own.pop()
        ours[name] = value
    return tuple(own), ours


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")
