"""side rows → rings: the bytes of a side topic's chunk become packed rows by ring key."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import nan
from operator import attrgetter
from struct import Struct
from typing import Any

from headrace.models.errors import EventRejected
from headrace.models.features import Format
from headrace.streams.codec import Finite, Moment, time_error, unix_ms
from headrace.streams.formats import Rejected, decode_each, record_decoder
from headrace.streams.rings import RingSpec, entity_texts

_ENTITY = str | int | Finite | bool
_VALUE = Finite | bool


@dataclass(frozen=True, kw_only=True)
class SideChunk:
    """What `FeatureStore.append` takes of a chunk, and what could not be used."""

    rows: Mapping[RingSpec, Mapping[bytes, bytes]]  # packed, by ring key, in the order of the messages
    newest: int | None  # newest event time of the good rows, Unix ms
    accepted: int
    rejected: list[Rejected]  # in the order of the messages


class SideDecoder:
    """Decodes chunks of one side topic for all rings that it feeds. No bytes make it raise.

    A row that lacks one of a ring's `by`, or an aggregate's value, is a good row that this ring does not hold.
    """

    def __init__(self, rings: Sequence[RingSpec], max_future_ms: int, written: Format = "json") -> None:
        (self._time,) = {ring.time for ring in rings}
        entities = {name for ring in rings for name in ring.by}
        values = {name for ring in rings for name in ring.fields} - {self._time}
        types: dict[str, tuple[Any, bool]] = dict.fromkeys(sorted(values), (_VALUE, False))
        types |= dict.fromkeys(sorted(entities), (_ENTITY, False))
        types[self._time] = (Moment, False)  # optional here: its absence has a reason of its own
        self._decode, held = record_decoder("SideRow", types, written)
        self._of = {name: attrgetter(attribute) for name, attribute in held.items()}
        self._entities, self._values, self._both = entities, values, sorted(entities & values)
        self._rings, self._max_future_ms, self._written = tuple(rings), max_future_ms, written

    def decode(self, values: Sequence[bytes | None], now_ms: int) -> SideChunk:
        """`now_ms` is the clock, Unix ms: a row from further ahead than `max_future_ms` would poison the watermark."""
        kept, decoded, rejected = decode_each(self._decode, values, self._time, self._written)
        rows: list[Any] = []
        times: list[int] = []
        moment_of, latest = self._of[self._time], now_ms + self._max_future_ms
        for index, row in zip(kept, decoded, strict=True):
            try:
                time = _event_time(self._time, moment_of(row), latest)
                if self._both:
                    self._expect_numbers(row)
            except EventRejected as error:
                rejected.append((index, error))
            else:
                times.append(time)
                rows.append(row)
        return SideChunk(
            rows=self._packed(rows, times),
            newest=max(times, default=None),
            accepted=len(rows),
            rejected=sorted(rejected, key=lambda found: found[0]),
        )

    def _packed(self, rows: Sequence[Any], times: Sequence[int]) -> dict[RingSpec, dict[bytes, bytes]]:
        entities = {name: entity_texts(map(self._of[name], rows)) for name in self._entities}
        values: dict[str, Sequence[float | None]] = {name: list(map(self._of[name], rows)) for name in self._values}
        values[self._time] = times
        packed = {ring: _by_key(ring, times, entities, values) for ring in self._rings}
        return {ring: by_key for ring, by_key in packed.items() if by_key}

    def _expect_numbers(self, row: Any) -> None:
        for name in self._both:
            if isinstance(value := self._of[name](row), str):
                raise EventRejected("wrong_shape", f"expected a number in {name!r}, got {value[:80]!r}")


def _event_time(name: str, moment: datetime | int | None, latest: int) -> int:
    if moment is None:
        raise EventRejected("no_time", f"expected an event time in {name!r}: RFC 3339 with an offset, or Unix ms")
    time = unix_ms(moment)
    if error := time_error(time, latest):
        raise error
    return time


def _by_key(
    ring: RingSpec,
    times: Sequence[int],
    entities: Mapping[str, Sequence[str | None]],
    values: Mapping[str, Sequence[float | None]],
) -> dict[bytes, bytes]:
    """The rows that the ring's family holds, each entity's in one piece."""
    pack = Struct(f"<q{len(ring.fields)}d").pack
    found: defaultdict[Any, list[bytes]] = defaultdict(list)  # by the entity's text, or texts
    by = [entities[name] for name in ring.by]
    owners: Sequence[Any] = by[0] if len(by) == 1 else [None if None in e else e for e in zip(*by, strict=True)]
    if ring.kind == "aggregate":
        for time, owner, value in zip(times, owners, values[ring.fields[0]], strict=True):
            if owner is not None and value is not None:
                found[owner].append(pack(time, value))
    else:
        numbers = [[nan if value is None else value for value in values[name]] for name in ring.fields]
        for time, owner, *row in zip(times, owners, *numbers, strict=True):
            if owner is not None:
                found[owner].append(pack(time, *row))
    one = len(by) == 1
    return {ring.key((owner,) if one else owner): b"".join(rows) for owner, rows in found.items()}
