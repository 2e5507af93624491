"""messages of a partition, from its beginning → the offsets of the rows that count as of a tick: the latest per key."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.streams.codec import EventDecoder
from headrace.streams.out import Message, each


class LatestRows:
    """As compaction keeps them: of each message key (a row without one goes by its id) the row with the highest offset,
    unless a record without a value follows it. Rows with a time after the tick are looked past; a row that cannot be
    decoded counts, to be parked.

    In memory are the keys and offsets of one partition, some 150 bytes and the key's length for each; never a value.
    """

    def __init__(self, decoder: EventDecoder, tick: int) -> None:
        """`decoder` needs nothing but id and time."""
        self._decoder, self._tick = decoder, tick
        self._latest: dict[bytes | int, int] = {}  # entity → offset
        self._newer: set[bytes | int] = set()

    @property
    def newer(self) -> int:
        """Entities of which there are only rows with a time after the tick."""
        return len(self._newer)

    def take(self, messages: Sequence[Message], now_ms: int) -> None:
        """In the order of their offsets."""
        keys, values, offsets = each("key", messages), each("value", messages), each("offset", messages)
        decoded = self._decoder.decode(values, now_ms)
        times: list[int | None] = [None] * len(messages)
        ids: list[str | None] = [None] * len(messages)
        for at, time, found in zip(decoded.kept, decoded.times.tolist(), decoded.ids, strict=True):
            times[at], ids[at] = time, found
        for key, value, offset, time, row_id in zip(keys, values, offsets, times, ids, strict=True):
            entity = _entity(key, row_id, offset)
            if value is None and key is not None:
                self._latest.pop(entity, None)
                self._newer.discard(entity)
            elif time is None or time <= self._tick:
                self._latest[entity] = offset
                self._newer.discard(entity)
            elif entity not in self._latest:
                self._newer.add(entity)

    def offsets(self) -> NDArray[np.int64]:
        """Ascending."""
        return np.sort(np.fromiter(self._latest.values(), np.int64, len(self._latest)))


def _entity(key: bytes | None, row_id: str | None, offset: int) -> bytes | int:
    if key is not None:
        return key
    return offset if row_id is None else row_id.encode("utf-8", "surrogatepass")
