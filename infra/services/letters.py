"""`<pipeline>.dead-letters` → what was parked, by reason and one by one."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from headrace.infra.names import Names
from headrace.infra.row_format import readable
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.records import REASON_HEADER, SOURCE_HEADER


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be used, as it was, and why."""

    place: str  # topic/partition/offset of the letter itself
    source: str  # and of the record that it was
    reason: str  # a short fixed word
    detail: str
    at: str  # when it was parked
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # the record's own


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of one topic for one reason."""

    reason: str
    topic: str  # where the records came from
    count: int
    newest_at: str
    newest: str  # source of the newest


def letters(settings: Settings, names: Names) -> Iterator[Letter]:
    """In the order of each partition. Raises BrokerUnavailable."""
    reader = TopicReader(settings, [names.topics.dead_letters], once=True)
    try:
        for batch in reader.until_end():
            yield from map(_letter, batch)
    finally:
        reader.close()


def by_reason(found: Iterator[Letter] | Sequence[Letter]) -> list[Reason]:
    """Most frequent first."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for letter in found:
        topic = letter.source.rsplit("/", 2)[0]
        group = groups.setdefault((letter.reason, topic), [0, "", ""])
        group[0] += 1
        if letter.at >= group[1]:
            group[1:] = [letter.at, letter.source]
    table = [
        Reason(reason=reason, topic=topic, count=count, newest_at=at, newest=source)
        for (reason, topic), (count, at, source) in groups.items()
    ]
    return sorted(table, key=lambda one: (-one.count, one.reason, one.topic))


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


def _letter(message: Any) -> Letter:
    headers = list(message.headers() or [])
    ours = dict(headers)
    reason, _, detail = (ours.get(REASON_HEADER) or b"").decode(errors="replace").partition(": ")
    return Letter(
        place=f"{message.topic()}/{message.partition()}/{message.offset()}",
        source=(ours.get(SOURCE_HEADER) or b"").decode(errors="replace"),
        reason=reason,
        detail=detail,
        at=iso(message.timestamp()[1]),
        key=message.key(),
        value=message.value(),
        headers=tuple((name, value) for name, value in headers if name not in (REASON_HEADER, SOURCE_HEADER)),
    )
