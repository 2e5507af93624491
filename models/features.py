"""Feature declarations → the event fields they read and the columns they make.

Declarations are msgspec structs: a manifest carries them as JSON, and a worker tells by equality whether it feeds what
a version needs. Columns hold *raw* values: encoders and vocabularies belong to a version (`schema`).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Protocol, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.structs import force_setattr

from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError

ColumnKind = Literal["number", "category", "tensor"]
Format = Literal["json", "msgpack"]
FieldKind = Literal["number", "category", "datetime", "tensor", "entity"]
Part = Literal["minute", "hour", "day", "weekday", "month"]
Statistic = Literal["mean", "sum", "count", "min", "max"]


class Field(msgspec.Struct, frozen=True):
    """One field of an event that a feature reads."""

    name: str
    kind: FieldKind
    required: bool
    shape: tuple[int, ...] = ()


class Column(msgspec.Struct, frozen=True):
    """One column of a batch: float64 (NaN is missing), object of str (None is missing) or float32[n, *shape]."""

    name: str
    kind: ColumnKind
    nullable: bool = False
    shape: tuple[int, ...] = ()


class Feature(Protocol):
    """What a declaration answers: which event fields it reads, which columns it makes."""

    @property
    def reads(self) -> tuple[Field, ...]: ...
    @property
    def columns(self) -> tuple[Column, ...]: ...


class _Topic(msgspec.Struct, frozen=True):
    name: str


class Topic(_Topic, frozen=True, kw_only=True):
    """A topic of the user's.

    `time` names the payload field that holds the event time (RFC 3339 with an offset, or Unix milliseconds), `id` the
    one that identifies a row; events and labels need it. `start` says where a group without offsets begins. `format`
    says how values are written: as JSON objects, or as MessagePack maps with the same fields.
    """

    time: str
    id: str | None = None
    start: Literal["earliest", "latest"] = "earliest"
    format: Format = "json"
    partitions: int = 1  # when `apply` creates it

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _TOPIC_NAME.fullmatch(self.name):
            raise DeclarationError("Topic", "a Kafka topic's name: letters, digits, . _ -", self.name, "Rename it.")
        _expect_name(f"Topic({self.name!r}).time", self.time)
        if self.id == self.time:
            raise DeclarationError(
                f"Topic({self.name!r}).id", "another field than time", self.id, "Name the id's field."
            )
        _expect_choice(f"Topic({self.name!r}).start", self.start, ("earliest", "latest"))
        _expect_choice(f"Topic({self.name!r}).format", self.format, get_args(Format))
        if not isinstance(self.partitions, int) or self.partitions < 1:
            raise DeclarationError(f"Topic({self.name!r}).partitions", "a number from 1", self.partitions, "Set it.")


class _OfField(msgspec.Struct, frozen=True):
    field: str


class _Scalar(_OfField, frozen=True, kw_only=True):
    nullable: bool = False
    kind: ClassVar[Literal["number", "category"]]

    def __post_init__(self) -> None:
        what = type(self).__name__
        _expect_name(what, self.field)
        _expect_choice(f"{what}({self.field!r}).nullable", self.nullable, (True, False))

    @property
    def reads(self) -> tuple[Field, ...]:
        return (Field(self.field, self.kind, not self.nullable),)

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column(self.field, self.kind, self.nullable),)


class Number(_Scalar, frozen=True, kw_only=True, tag="number", tag_field="feature"):
    """A JSON number of the event, kept as float64."""

    kind: ClassVar[Literal["number", "category"]] = "number"


class Category(_Scalar, frozen=True, kw_only=True, tag="category", tag_field="feature"):
    """A JSON string, integer or boolean of the event, kept as text. Values that training never saw are allowed."""

    kind: ClassVar[Literal["number", "category"]] = "category"


class Datetime(_OfField, frozen=True, kw_only=True, tag="datetime", tag_field="feature"):
    """Calendar parts of a moment, each a category: `hour` "0".."23", `weekday` "1" (Monday).."7", `month` "1".."12"."""

    parts: Sequence[Part]
    timezone: str
    nullable: bool = False

    def __post_init__(self) -> None:
        where = f"Datetime({self.field!r})"
        _expect_name("Datetime", self.field)
        force_setattr(self, "parts", _names(f"{where}.parts", self.parts, get_args(Part)))
        expect_timezone(f"{where}.timezone", self.timezone)

    @property
    def reads(self) -> tuple[Field, ...]:
        return (Field(self.field, "datetime", not self.nullable),)

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(f"{self.field}_{part}", "category", self.nullable) for part in self.parts)


class Tensor(_OfField, frozen=True, kw_only=True, tag="tensor", tag_field="feature"):
    """Arrays of numbers, kept as float32[n, *shape].

    In an event: the bytes of float32, little-endian and row-major (in JSON as base64), or nested arrays, or a flat one.
    """

    shape: Sequence[int]

    def __post_init__(self) -> None:
        _expect_name("Tensor", self.field)
        sizes = tuple(self.shape) if isinstance(self.shape, list | tuple) else ()
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise DeclarationError(f"Tensor({self.field!r}).shape", "sizes from 1", self.shape, "For example [3, 64].")
        force_setattr(self, "shape", sizes)

    @property
    def reads(self) -> tuple[Field, ...]:
        return (Field(self.field, "tensor", required=True, shape=tuple(self.shape)),)

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column(self.field, "tensor", shape=tuple(self.shape)),)


class _OfTopic(msgspec.Struct, frozen=True):
    topic: Topic

    def _check_topic(self) -> None:
        if not isinstance(self.topic, Topic):
            raise DeclarationError(f"{type(self).__name__}.topic", "a Topic", self.topic, "Topic(name, time=…).")


class Lookup(_OfTopic, frozen=True, kw_only=True, tag="lookup", tag_field="feature"):
    """The newest row of a side topic that has the event's `by` and a time strictly before the event's.

    `fields` are numbers of that row; a row older than `max_age` counts as missing. `lateness` is how far the side
    topic may run ahead of the events before rows that they still need are trimmed.
    """

    by: str | Sequence[str]
    fields: Sequence[str]
    max_age: str | None = None
    lateness: str = "2d"

    def __post_init__(self) -> None:
        self._check_topic()
        where = f"Lookup({self.topic.name!r})"
        force_setattr(self, "by", _names(f"{where}.by", self.by))
        force_setattr(self, "fields", _names(f"{where}.fields", self.fields))
        milliseconds(f"{where}.lateness", self.lateness)
        if self.max_age is not None:
            milliseconds(f"{where}.max_age", self.max_age)

    @property
    def max_age_ms(self) -> int | None:
        return None if self.max_age is None else milliseconds("max_age", self.max_age)

    @property
    def lateness_ms(self) -> int:
        return milliseconds("lateness", self.lateness)

    @property
    def reads(self) -> tuple[Field, ...]:
        return tuple(Field(name, "entity", required=False) for name in self.by)

    @property
    def columns(self) -> tuple[Column, ...]:
        by = "_".join(self.by)
        return tuple(Column(f"{self.topic.name}_{field}_by_{by}", "number", nullable=True) for field in self.fields)


class _Aggregated(_OfTopic, frozen=True):
    field: str
    statistic: Statistic


class Aggregate(_Aggregated, frozen=True, kw_only=True, tag="aggregate", tag_field="feature"):
    """A statistic of one numeric field over the side rows with the event's `by` in [t - over, t), t the event's time.

    Where there is no row it is missing (`count` and `sum` are 0). `lateness` as in `Lookup`.
    """

    over: str
    by: str | Sequence[str]
    lateness: str = "2d"

    def __post_init__(self) -> None:
        self._check_topic()
        where = f"Aggregate({self.topic.name!r}, {self.field!r})"
        _expect_name(f"{where} field", self.field)
        _expect_choice(f"{where} statistic", self.statistic, get_args(Statistic))
        force_setattr(self, "by", _names(f"{where}.by", self.by))
        milliseconds(f"{where}.over", self.over)
        milliseconds(f"{where}.lateness", self.lateness)

    @property
    def over_ms(self) -> int:
        return milliseconds("over", self.over)

    @property
    def lateness_ms(self) -> int:
        return milliseconds("lateness", self.lateness)

    @property
    def reads(self) -> tuple[Field, ...]:
        return tuple(Field(name, "entity", required=False) for name in self.by)

    @property
    def columns(self) -> tuple[Column, ...]:
        by = "_".join(self.by)
        name = f"{self.topic.name}_{self.field}_{self.statistic}_{self.over}_by_{by}"
        return (Column(name, "number", self.statistic not in ("count", "sum")),)


class _OfFunction(msgspec.Struct, frozen=True):
    fn: Any


class Function(_OfFunction, frozen=True, kw_only=True, tag="function", tag_field="feature"):
    """A user's vectorised function: columns in (arrays of length n, in the order of `inputs`), one array [n] out.

    An input is the name of a column that another feature makes, or a feature of its own (decoded, but no model
    input). `kind` says what comes out: float64 with NaN for missing, or text with None. A manifest names the function
    (`module:name`); it never carries code.
    """

    inputs: Sequence[str | Number | Category | Datetime | Tensor]
    name: str = ""
    kind: Literal["number", "category"] = "number"

    def __post_init__(self) -> None:
        if not callable(self.fn) and not (isinstance(self.fn, str) and ":" in self.fn):
            raise DeclarationError("Function", "a function, or its place as 'module:name'", self.fn, "Pass def f(…).")
        if callable(self.fn) and "<" in getattr(self.fn, "__qualname__", "<"):
            raise DeclarationError(
                "Function", "a function at module level", self.fn, "Give the lambda or inner function a name there."
            )
        if not self.inputs or isinstance(self.inputs, str):
            raise DeclarationError("Function.inputs", "columns or features", self.inputs, "List what it reads.")
        _expect_choice("Function.kind", self.kind, ("number", "category"))
        force_setattr(self, "inputs", tuple(self.inputs))
        force_setattr(self, "name", self.name or self.place.rpartition(":")[2])
        _expect_name("Function.name", self.name)

    @property
    def place(self) -> str:
        """`module:name`, what a manifest says of the function."""
        return self.fn if isinstance(self.fn, str) else f"{self.fn.__module__}:{self.fn.__qualname__}"

    @property
    def own_inputs(self) -> tuple[Number | Category | Datetime | Tensor, ...]:
        return tuple(given for given in self.inputs if not isinstance(given, str))

    @property
    def input_columns(self) -> tuple[str, ...]:
        return tuple(
            name
            for given in self.inputs
            for name in ([given] if isinstance(given, str) else [column.name for column in given.columns])
        )

    @property
    def reads(self) -> tuple[Field, ...]:
        return tuple(field for feature in self.own_inputs for field in feature.reads)

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column(self.name, self.kind, nullable=True),)


_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_BOTH = ({"entity", "category"}, {"entity", "number"})  # kinds that one field can be at once
AnyFeature = Number | Category | Datetime | Tensor | Lookup | Aggregate | Function


def columns_of(features: Iterable[AnyFeature]) -> tuple[Column, ...]:
    """All columns in order of declaration; one name that two different features make is an error."""
    found: dict[str, Column] = {}
    makers: dict[str, AnyFeature] = {}
    for feature in features:
        for column in feature.columns:
            if makers.setdefault(column.name, feature) != feature:
                raise DeclarationError(
                    f"column {column.name!r}", "one feature that makes it", feature, "Drop one of two."
                )
            found[column.name] = column
    return tuple(found.values())


def fields_of(features: Iterable[AnyFeature]) -> tuple[Field, ...]:
    """All event fields that the features read: required if one of them needs it; only `entity` mixes with others."""
    found: dict[str, Field] = {}
    for feature in features:
        for field in feature.reads:
            other = found.get(field.name, field)
            if other.kind != field.kind and {other.kind, field.kind} not in _BOTH:
                raise DeclarationError(f"event field {field.name!r}", other.kind, field.kind, "Read it in one way.")
            kind = other if other.kind != "entity" else field
            found[field.name] = Field(field.name, kind.kind, other.required or field.required, kind.shape)
    return tuple(found.values())


def to_json(features: Sequence[AnyFeature]) -> bytes:
    """Canonical JSON, the form in which manifests carry features."""
    return msgspec.json.encode(features, enc_hook=_function_place, order="sorted")


def from_json(data: bytes) -> tuple[AnyFeature, ...]:
    return msgspec.json.decode(data, type=tuple[AnyFeature, ...])


def fingerprint(features: Sequence[AnyFeature]) -> str:
    """Identifies a list of features across processes and machines: 16 hex digits of SHA-256 over `to_json`."""
    return hashlib.sha256(to_json(features)).hexdigest()[:16]


def _function_place(value: Any) -> str:
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    raise DeclarationError("feature", "something that JSON can hold", value, "Use text, numbers and lists.")


def expect_timezone(where: str, name: object) -> None:
    try:
        ZoneInfo(name if isinstance(name, str) else "")
    except (ZoneInfoNotFoundError, ValueError):
        raise DeclarationError(where, "an IANA timezone", name, 'For example "America/New_York" or "UTC".') from None


def _expect_name(where: str, name: object) -> None:
    if not isinstance(name, str) or not name or name.isspace():
        raise DeclarationError(where, "a name", name, "Give the field or topic as text.")


def _expect_choice(where: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise DeclarationError(where, " or ".join(map(repr, choices)), value, "Take one of these.")


def _names(where: str, given: object, choices: Sequence[str] | None = None) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    if not names or len(set(names)) != len(names):
        raise DeclarationError(where, "one name or a list of different names", given, "Name each once.")
    for name in names:
        _expect_name(where, name)
        if choices is not None:
            _expect_choice(where, name, choices)
    return names
