"""event and label bytes → decoded fields.

Messages are decoded one by one: joined into one array, two broken ones could mend each other (`{"a":[{}` `{}]}`),
and for a typed struct the single call costs no more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from headrace.models.durations import iso
from headrace.models.errors import EventRejected
from headrace.models.features import Field, FieldKind, Topic
from headrace.models.labels import Label

Rejected = tuple[int, EventRejected]
"""Index in the chunk, and why."""

_END_OF_TIME = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can write, Unix ms
Moment = Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[int, msgspec.Meta(ge=0, le=_END_OF_TIME)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_TYPES: Mapping[FieldKind, Any] = {
    "number": float,
    "category": str | int | bool,
    "datetime": Moment,
    "tensor": list[Any],
    "entity": str | int | float | bool,
}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The good events of a chunk by field, and the others with their reasons."""

    kept: list[int]  # index in the chunk
    ids: list[str]
    times: NDArray[np.int64]  # Unix ms
    fields: Mapping[str, Sequence[Any]]
    rejected: list[Rejected]

    def without(self, bad: Sequence[Rejected]) -> "Decoded":
        """The same less some rows, given by their place among the kept ones."""
        gone = {row for row, _ in bad}
        good = self.only([row for row in range(len(self.kept)) if row not in gone])
        return replace(good, rejected=self.rejected + [(self.kept[row], error) for row, error in bad])

    def only(self, rows: Sequence[int]) -> "Decoded":
        """These rows, given by their places among the kept ones."""
        return replace(
            self,
            kept=[self.kept[row] for row in rows],
            ids=[self.ids[row] for row in rows],
            times=self.times[rows],
            fields={name: [values[row] for row in rows] for name, values in self.fields.items()},
        )


def decode_each(
    decode: Callable[[bytes], Any], values: Sequence[bytes | None], time_field: str
) -> tuple[list[int], list[Any], list[Rejected]]:
    """Every value through `decode`: indexes and rows of the good ones, and the rejected. No bytes raise."""
    try:
        return list(range(len(values))), [decode(value) for value in values], []  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  one at a time below, where each gets its reason
        kept: list[int] = []
        rows: list[Any] = []
        rejected: list[Rejected] = []
        for index, value in enumerate(values):
            try:
                rows.append(_decode_one(decode, value, time_field))
                kept.append(index)
            except EventRejected as error:
                rejected.append((index, error))
        return kept, rows, rejected


def _decode_one(decode: Callable[[bytes], Any], value: bytes | None, time_field: str) -> Any:
    if value is None:
        raise EventRejected("tombstone", "expected a JSON object, got a record without a value")
    if not value:
        raise EventRejected("empty", "expected a JSON object, got an empty value")
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        of_time = f"`$.{time_field}`" in str(error) or f"required field `{time_field}`" in str(error)
        raise EventRejected("no_time" if of_time else "wrong_shape", str(error)) from error
    except UnicodeDecodeError as error:
        raise EventRejected("not_utf8", str(error)) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EventRejected("not_json" if _is_utf8(value) else "not_utf8", str(error)) from error


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def record_decoder(name: str, types: Mapping[str, tuple[Any, bool]]) -> tuple[Callable[[bytes], Any], dict[str, str]]:
    """A decoder for objects with these fields (JSON name → type, required), and the attribute that holds each."""
    attributes = {field: f"f{place}" for place, field in enumerate(types)}
    members: list[Any] = []
    for field, (kind, required) in types.items():
        members.append((attributes[field], kind) if required else (attributes[field], kind | None, None))
    struct = msgspec.defstruct(
        name, members, rename={held: field for field, held in attributes.items()}, kw_only=True, gc=False
    )
    return msgspec.json.Decoder(struct).decode, attributes


def unix_ms(moment: datetime | int) -> int:
    return moment if isinstance(moment, int) else round(moment.timestamp() * 1000)


def _unix_ms_of_each(moments: Sequence[datetime | int]) -> NDArray[np.int64]:
    try:
        return np.array(moments, np.int64)  # where all are numbers already
    except TypeError:
        return np.array([unix_ms(moment) for moment in moments], np.int64)


def time_error(ms: int, latest_ms: int) -> EventRejected | None:
    """Why a time cannot be used: it would poison a watermark, or no calendar holds it."""
    if not 0 <= ms <= _END_OF_TIME:
        return EventRejected("no_time", f"expected an event time from 1970 to 9999, got {ms} ms")
    if ms > latest_ms:
        return EventRejected("future", f"expected an event time up to {iso(latest_ms)}, got {iso(ms)}")
    return None


class EventDecoder:
    """Decodes chunks of one topic into the fields that its features read."""

    def __init__(self, topic: Topic, fields: Sequence[Field], max_future_ms: int) -> None:
        if topic.id is None:  # a Pipeline refuses it before
            raise ValueError(topic)
        types: dict[str, tuple[Any, bool]] = {
            field.name: (_TYPES[field.kind], field.required) for field in fields if field.name != topic.id
        }
        types[topic.id] = (_Text | int, True)
        types[topic.time] = (Moment, True)
        self._decode, attributes = record_decoder("Event", types)
        self._columns = tuple(attributes)  # in the order of the decoded rows
        self._topic, self._names, self._max_future_ms = topic, [field.name for field in fields], max_future_ms

    def decode(self, values: Sequence[bytes | None], now_ms: int) -> Decoded:
        """`now_ms` is the clock, Unix ms."""
        kept, rows, rejected = decode_each(self._decode, values, self._topic.time)
        columns: Mapping[str, Sequence[Any]] = dict.fromkeys(self._columns, ())
        if rows:  # one transposition for all fields: an attribute at a time costs half as much again
            columns = dict(zip(self._columns, zip(*map(astuple, rows), strict=True), strict=True))
        times = _unix_ms_of_each(columns[self._topic.time])
        decoded = Decoded(
            kept=kept,
            ids=[value if type(value) is str else str(value) for value in columns[self._topic.id or ""]],
            times=times,
            fields={name: columns[name] for name in self._names},
            rejected=rejected,
        )
        latest = now_ms + self._max_future_ms
        if not ((times > latest) | (times < 0)).any():
            return decoded
        errors = [(row, time_error(time, latest)) for row, time in enumerate(times.tolist())]
        return decoded.without([(row, error) for row, error in errors if error is not None])


@dataclass(frozen=True)
class LabelRow:
    id: str
    time: int  # Unix ms
    value: float


class LabelDecoder:
    """Decodes chunks of a label topic."""

    def __init__(self, label: Label, max_future_ms: int) -> None:
        topic = label.topic
        types: dict[str, tuple[Any, bool]] = {label.field: (float | bool, True)}
        types[topic.id or ""] = (_Text | int, True)
        types[topic.time] = (Moment, True)
        self._decode, held = record_decoder("Label", types)
        self._id, self._time, self._field = held[topic.id or ""], held[topic.time], held[label.field]
        self._label, self._max_future_ms = label, max_future_ms

    def decode(self, values: Sequence[bytes | None], now_ms: int) -> tuple[list[int], list[LabelRow], list[Rejected]]:
        """Indexes and rows of the good labels, and the rejected."""
        kept, rows, rejected = decode_each(self._decode, values, self._label.topic.time)
        good: list[int] = []
        labels: list[LabelRow] = []
        for index, row in zip(kept, rows, strict=True):
            try:
                time = unix_ms(getattr(row, self._time))
                if error := time_error(time, now_ms + self._max_future_ms):
                    rejected.append((index, error))
                    continue
                value = self._label.value({self._label.field: getattr(row, self._field)})
                labels.append(LabelRow(str(getattr(row, self._id)), time, value))
                good.append(index)
            except EventRejected as error:
                rejected.append((index, error))
        return good, labels, rejected


def clock_ms() -> int:
    return round(datetime.now(UTC).timestamp() * 1000)
