"""The feature store's in-memory twin, for `headrace.testing` and unit tests."""

from collections.abc import Mapping, Sequence
from threading import Lock

from headrace.streams.rings import Appended, RingSpec, trimmed


class MemoryFeatureStore:
    """Same behaviour as `RedisFeatureStore`, byte for byte; it dies with the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rings: dict[bytes, bytes] = {}
        self._positions: dict[str, dict[int, int]] = {}
        self._watermarks: dict[str, int] = {}

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
        with self._lock:
            positions = self._positions.setdefault(topic, {})
            if positions.get(partition) != expected:
                return Appended(applied=False, position=positions.get(partition), watermark=self._watermarks.get(topic))
            if newest is not None:
                self._watermarks[topic] = max(newest, self._watermarks.get(topic, newest))
            watermark = self._watermarks.get(topic)
            for ring, by_key in rows.items():
                for key, packed in by_key.items():
                    grown = self._rings.get(key, b"") + packed
                    if watermark is not None:
                        grown = trimmed(grown, ring.width, watermark - ring.keep_ms, keep_last=ring.keep_last)
                    self._rings[key] = grown
            positions[partition] = next_position
            return Appended(applied=True, position=next_position, watermark=watermark)

    def positions(self, topic: str) -> dict[int, int]:
        with self._lock:
            return dict(self._positions.get(topic, {}))

    def watermark(self, topic: str) -> int | None:
        with self._lock:
            return self._watermarks.get(topic)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._lock:
            return [self._rings.get(key) or None for key in keys]
