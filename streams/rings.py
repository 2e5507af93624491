"""stored features → the rings that hold them, and what a feature store must be able to do.

A ring is the dated rows of one entity: `<q` event time (Unix ms) and one `<d` per value field, in order of arrival.
Rows are only appended, and trimmed from the front once no event that is still allowed to come can see them. So a
reader sorts: nothing depends on the order in which consumers happened to run.

Keys are `<ring id>:<entity>`. The ring id is `l` (lookup) or `a` (aggregate) and ten hex digits over topic, time
field, `by` and value fields; how long rows are kept is not part of it, so a longer window goes on with the same ring.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from struct import Struct
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import DeclarationError
from headrace.models.features import Aggregate, Lookup

TRIM_FROM = 8  # rows: below that, checking a ring costs more than what it wastes
Scalar = str | int | float | bool

_TIME = Struct("<q")


@dataclass(frozen=True, kw_only=True)
class RingSpec:
    """One family of rings: what a side topic's rows are filed under, and which of their values.

    A lookup's rows keep missing values (NaN); an aggregate's are not appended without one.
    """

    kind: Literal["lookup", "aggregate"]
    topic: str
    time: str  # the payload field of the event time
    by: tuple[str, ...]  # sorted
    fields: tuple[str, ...]  # sorted
    keep_ms: int  # behind the watermark: the longest window or max_age, and the lateness
    keep_last: bool  # a lookup without max_age: of the older rows, the newest stays

    @cached_property
    def id(self) -> str:
        meaning = json.dumps([self.kind, self.topic, self.time, self.by, self.fields])
        return self.kind[0] + hashlib.sha256(meaning.encode()).hexdigest()[:10]

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return 8 * (1 + len(self.fields))

    def key(self, entity: Sequence[str]) -> bytes:
        """The ring of an entity, its texts in the order of `by`. Several are length-prefixed, so that no two meet."""
        text = entity[0] if len(entity) == 1 else "".join([f"{len(part)}:{part}" for part in entity])
        return f"{self.id}:{text}".encode("utf-8", "surrogatepass")


def rings_of(features: Iterable[Lookup | Aggregate]) -> dict[RingSpec, tuple[Lookup | Aggregate, ...]]:
    """The rings that the features need, each with the features that read it."""
    readers: dict[str, list[Lookup | Aggregate]] = {}
    for feature in features:
        readers.setdefault(_ring([feature]).id, []).append(feature)
    return {_ring(sharing): tuple(sharing) for sharing in readers.values()}


def _ring(sharing: Sequence[Lookup | Aggregate]) -> RingSpec:
    one = sharing[0]
    if one.topic.time in one.by:
        raise DeclarationError(f"{one.topic.name!r} by", "an entity", one.topic.time, "A time identifies no entity.")
    return RingSpec(
        kind="lookup" if isinstance(one, Lookup) else "aggregate",
        topic=one.topic.name,
        time=one.topic.time,
        by=tuple(sorted(one.by)),
        fields=tuple(sorted(one.fields)) if isinstance(one, Lookup) else (one.field,),
        keep_ms=max((reach_ms(feature) or 0) + feature.lateness_ms for feature in sharing),
        keep_last=any(reach_ms(feature) is None for feature in sharing),
    )


def reach_ms(feature: Lookup | Aggregate) -> int | None:
    """How far behind an event the feature looks; None for as far as there are rows."""
    return feature.max_age_ms if isinstance(feature, Lookup) else feature.over_ms


def entity_text(value: Scalar) -> str:
    """The one text of a JSON scalar on both sides of a `by`: 3, 3.0 and "3" meet, and so do true and "true"."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def entity_texts(values: Iterable[Scalar | None]) -> list[str | None]:
    return [value if value is None or type(value) is str else entity_text(value) for value in values]


def ring_keys(ring: RingSpec, by: Mapping[str, Sequence[Scalar | None]]) -> tuple[list[bytes], NDArray[np.intp]]:
    """The distinct keys that a chunk of events reads, and each event's place among them: -1 where an entity is missing.

    `by` has the events' fields as decoded.
    """
    places: dict[tuple[str | None, ...], int] = {}
    entities = zip(*(entity_texts(by[name]) for name in ring.by), strict=True)
    index = [-1 if None in entity else places.setdefault(entity, len(places)) for entity in entities]
    return [ring.key(entity) for entity in places], np.array(index, np.intp)  # type: ignore[arg-type]  # no None there


def trimmed(data: bytes, width: int, cutoff: int, *, keep_last: bool) -> bytes:
    """A ring without the rows at its front that are older than `cutoff`; `keep_last` spares the newest of those.

    Only the front: a late row stays behind a newer one. What this does, `infra/feature_store.lua` does.
    """
    if len(data) < TRIM_FROM * width or _time_at(data, len(data) // width // 2 * width) >= cutoff:
        return data  # less than about half of it is old: each row is so looked at twice at most
    spared, newest, at = b"", 0, 0
    while at < len(data) and (time := _time_at(data, at)) < cutoff:
        if keep_last and (not spared or time >= newest):  # rows of one time all stay: the reader decides among them
            spared = (spared if time == newest else b"") + data[at : at + width]
            newest = time
        at += width
    return spared + data[at:]


def _time_at(data: bytes, at: int) -> int:
    time: int = _TIME.unpack_from(data, at)[0]
    return time


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What became of a chunk. Not applied: go on at `position`; None there means that everything is to be rebuilt."""

    applied: bool
    position: int | None  # stored now
    watermark: int | None  # newest event time applied from any partition of the topic, Unix ms


class FeatureStore(Protocol):
    """Where rings live, and how far each side topic was applied to them: both move together or not at all.

    Every method raises `StoreUnavailable` where there is no answer; a chunk may then have been applied or not, and
    asking again with the same `expected` tells.
    """

    def append(
        self,
        topic: str,
        partition: int,
        *,
        expected: int | None,
        next_position: int,
        rows: Mapping[RingSpec, Mapping[bytes, bytes]],
        newest: int | None,
    ) -> Appended:
        """Appends packed rows by ring key if the stored position is `expected` (None: there is none yet).

        `newest` is the chunk's newest event time; rings that grow are trimmed by the watermark less `keep_ms`.
        """

    def positions(self, topic: str) -> dict[int, int]:
        """The next offset to apply, by partition."""

    def watermark(self, topic: str) -> int | None: ...

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Whole rings, None where there is none, in one round trip."""
