"""a name → one of a pipeline's topics; a message of it → a record that people can read, cut where it is long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from headrace.infra.names import Names
from headrace.infra.row_format import readable
from headrace.infra.rows import Scalar, event_ms
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.features import Format, Topic
from headrace.models.records import SOURCE_HEADER
from headrace.streams.dead_letters import headers_of_each
from headrace.streams.formats import record_decoder

Kind = Literal["events", "labels", "side", "scored", "predictions", "dead-letters"]
_MOST_HEADERS = 50  # of one record
_Identify = Callable[[bytes], tuple[str, str]]
_PREDICTION = Topic("predictions", id="id", time="event_time")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a topic; its texts are cut to what the asker wanted to see."""

    topic: str
    partition: int
    offset: int
    place: str  # topic/partition/offset
    written_at: str  # RFC 3339 UTC; "" where the record has no timestamp
    key: str | None
    id: str  # of the event; "" where the value does not tell
    event_time: str  # RFC 3339 UTC; "" where the value does not tell
    value: str | None  # None: a tombstone
    is_cut: bool  # whether there is more of the value
    size: int  # bytes of the value
    headers: tuple[tuple[str, str | None], ...]  # the first 50


@dataclass(frozen=True, kw_only=True)
class Browsed:
    """A topic of the pipeline, and how its values are written."""

    name: str  # as users call it, without the prefix
    full: str
    kind: Kind
    format: Format
    formats: Mapping[str, Format]  # of the topics that dead letters come from
    identify: Mapping[str, _Identify]  # a value of this topic, or of the one that it comes from → id and event time

    def record(self, message: Any, width: int) -> Record:
        """`width`: characters of the value; of key and headers there are at most as many."""
        value = message.value()
        (headers,), _ = headers_of_each([message])  # those whose names are no text are left out, as by workers
        source = self._source(message)
        text = self.text(value, source)
        about, at = self._identified(value, source)
        written_ms = message.timestamp()[1]
        return Record(
            topic=self.name,
            partition=message.partition(),
            offset=message.offset(),
            place=f"{self.name}/{message.partition()}/{message.offset()}",
            written_at=iso(written_ms) if written_ms >= 0 else "",
            key=_cut(_text(message.key()), width),
            id=about[:width],
            event_time=at,
            value=_cut(text, width),
            is_cut=text is not None and len(text) > width,
            size=len(value or b""),
            headers=tuple((name[:width], _cut(_text(held), width)) for name, held in (headers or [])[:_MOST_HEADERS]),
        )

    def has(self, message: Any, wanted: str) -> bool:
        """Whether it is in the readable key or value, or is the event's id."""
        value, source = message.value(), self._source(message)
        return (
            wanted in (_text(message.key()) or "")
            or wanted in (self.text(value, source) or "")
            or wanted == self._identified(value, source)[0]
        )

    def text(self, value: bytes | None, source: str) -> str | None:
        return None if value is None else readable(value, self.formats.get(source, self.format))

    def _identified(self, value: bytes | None, source: str) -> tuple[str, str]:
        identify = self.identify.get(source)
        return ("", "") if value is None or identify is None else identify(value)

    def _source(self, message: Any) -> str:
        """The topic that the value was written for, in full."""
        if self.kind != "dead-letters":
            return self.full
        held = dict(message.headers() or []).get(SOURCE_HEADER) or b""
        return held.decode(errors="replace").rsplit("/", 2)[0]


def browsed(names: Names, wanted: str) -> Browsed:
    """By its name, with the prefix or without, or by what it is: events, labels, predictions, dead-letters.

    Raises BadInput for any other topic.
    """
    inputs = {topic.name: topic for topic in names.pipeline.inputs}
    kinds = _kinds(names)
    own = {"predictions": names.topics.predictions, "dead-letters": names.topics.dead_letters}
    by_name = {names.of(name): kind for name, kind in kinds.items()} | {full: kind for kind, full in own.items()}
    short = {"events": names.events, "labels": names.labels} | own
    full = next((one for one in (names.of(wanted), wanted, short.get(wanted, "")) if one in by_name), None)
    if full is None:
        there = ", ".join([*short, *[name for name in inputs if name not in short]])
        raise BadInput(
            f"topic: expected one of {names.pipeline.name}'s ({there}), got {wanted[:100]!r}. For what was served:"
            " headrace data served."
        )
    name = full.removeprefix(names.prefix)
    identify = {names.of(one.name): _identifier(one) for one in inputs.values()}
    return Browsed(
        name=name,
        full=full,
        kind=by_name[full],  # type: ignore[arg-type]  # the keys of `own` are kinds, too
        format=inputs[name].format if name in inputs else "json",
        formats={names.of(one.name): one.format for one in inputs.values()},
        identify=identify | {names.topics.predictions: _identifier(_PREDICTION)},
    )


def _kinds(names: Names) -> dict[str, Kind]:
    """By name; a topic that is more than one thing is the first of them."""
    pipeline, found = names.pipeline, dict[str, Kind]()
    found[pipeline.events.name] = "events"
    found.setdefault(pipeline.label.topic.name, "labels")
    for topic in pipeline.side_topics:
        found.setdefault(topic.name, "side")
    for topic in pipeline.scored_topics:
        found.setdefault(topic.name, "scored")
    return found


def _identifier(topic: Topic) -> _Identify:
    """Never raises: what cannot be read is ""."""
    types: dict[str, tuple[Any, bool]] = {topic.time: (Scalar, False)}
    if topic.id is not None:
        types[topic.id] = (str | int, False)
    decode, held = record_decoder("Named", types, topic.format)

    def identify(value: bytes) -> tuple[str, str]:
        try:
            row = decode(value)
            at = event_ms(getattr(row, held[topic.time]))
        except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):  # MessagePack has NaN and infinity
            return "", ""
        about = None if topic.id is None else getattr(row, held[topic.id])
        return "" if about is None else str(about), iso(at) if at >= 0 else ""

    return identify


def _text(data: bytes | None) -> str | None:
    return None if data is None else readable(data)


def _cut(text: str | None, width: int) -> str | None:
    return text if text is None or len(text) <= width else f"{text[:width]}…"
