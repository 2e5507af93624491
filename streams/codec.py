"""event and label bytes → decoded fields."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple
from numpy.typing import NDArray

from headrace.models.durations import iso
from headrace.models.errors import EventRejected
from headrace.models.features import Field, FieldKind, Topic
from headrace.models.labels import Label
from headrace.streams.formats import Rejected, decode_each, record_decoder

_USUAL_LENGTHS = (20, 24)  # of 2013-07-04T11:00:00Z and 2013-07-04T11:00:00.000Z, which Arrow reads as msgspec does
_END_OF_TIME = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can write, Unix ms
Moment = Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[int, msgspec.Meta(ge=0, le=_END_OF_TIME)]
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]  # MessagePack has NaN
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_TYPES: Mapping[FieldKind, Any] = {
    "number": Finite,
    "category": str | int | bool,
    "datetime": Moment,
    "tensor": memoryview | list[Any],  # of the message's own bytes, where they are its format's
    "entity": str | int | Finite | bool,
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
        self._decode, attributes = record_decoder("Event", types, topic.format)
        self._columns = tuple(attributes)  # in the order of the decoded rows
        self._topic, self._names, self._max_future_ms = topic, [field.name for field in fields], max_future_ms

    def decode(self, values: Sequence[bytes | None], now_ms: int) -> Decoded:
        """`now_ms` is the clock, Unix ms."""
        kept, rows, rejected = decode_each(self._decode, values, self._topic.time, self._topic.format)
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
        kind = Finite | bool | str if label.classes else Finite | bool
        types: dict[str, tuple[Any, bool]] = {label.field: (kind, True)}
        types[topic.id or ""] = (_Text | int, True)
        types[topic.time] = (Moment, True)
        self._decode, held = record_decoder("Label", types, topic.format)
        self._id, self._time, self._field = held[topic.id or ""], held[topic.time], held[label.field]
        self._label, self._max_future_ms = label, max_future_ms
        # a datetime object per label would cost more than all the rest of it: `columns` reads its text at once
        self._unparsed, _ = record_decoder("Label", types | {topic.time: (str | int, True)}, topic.format)

    def decode(self, values: Sequence[bytes | None], now_ms: int) -> tuple[list[int], list[LabelRow], list[Rejected]]:
        """Indexes and rows of the good labels, and the rejected."""
        topic = self._label.topic
        kept, rows, rejected = decode_each(self._decode, values, topic.time, topic.format)
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

    def columns(
        self, values: Sequence[bytes | None], now_ms: int
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
        """Ids, times (Unix ms) and values of the labels that `decode` calls good, without an object for each."""
        try:
            return self._columns_at_once(values, now_ms + self._max_future_ms)
        except Exception:  # noqa: BLE001  one at a time below: what is wrong costs one label and not the chunk
            _, rows, _ = self.decode(values, now_ms)
            times, given = np.array([row.time for row in rows], np.int64), [row.value for row in rows]
            return [row.id for row in rows], times, np.array(given, np.float64)

    def _columns_at_once(
        self, values: Sequence[bytes | None], latest_ms: int
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
        """Raises where any label is not good, or its time is not written in the usual way."""
        rows = [self._unparsed(value) for value in values]  # type: ignore[arg-type]  # None raises
        ids, moments, given = (list(map(attrgetter(held), rows)) for held in (self._id, self._time, self._field))
        times = _usual_times(moments)
        if len(times) and not 0 <= times.min() <= times.max() <= min(latest_ms, _END_OF_TIME):
            raise ValueError(times)
        if self._label.classes:
            encoded = pa.array(given).dictionary_encode()  # names, or numbers: of both kinds is not usual
            distinct = encoded.dictionary.to_pylist()
        else:  # by bits, or -0.0 would be merged with 0.0
            encoded = pa.array(np.array(given, np.float64).view(np.int64)).dictionary_encode()
            distinct = encoded.dictionary.to_numpy().view(np.float64).tolist()
        learnt = np.array([self._label.value({self._label.field: value}) for value in distinct], np.float64)
        if set(map(type, ids)) - {str}:
            ids = [str(value) for value in ids]
        return ids, times, learnt[encoded.indices.to_numpy()]


def _usual_times(moments: list[str | int]) -> NDArray[np.int64]:
    """Unix ms of a chunk that has numbers alone, or texts in UTC with seconds or milliseconds alone. Raises else."""
    kinds = set(map(type, moments))
    if kinds <= {int}:
        return np.array(moments, np.int64)
    texts = pa.array(moments, pa.string())
    lengths = pc.binary_length(texts).to_numpy()
    if not (np.isin(lengths, _USUAL_LENGTHS).all() and pc.all(pc.ends_with(texts, "Z")).as_py()):
        raise ValueError(moments)
    return np.asarray(texts.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()))


def clock_ms() -> int:
    return round(datetime.now(UTC).timestamp() * 1000)
