"""Rings and positions in Redis (6.2 or newer, or Valkey), on any number of machines that share it.

    <namespace>:p:<topic>               hash: partition → next offset, `watermark` → newest event time, Unix ms
    <namespace>:r:<ring id>:<entity>    string: packed rows (see `streams/rings.py`)

A short namespace saves memory: it is part of every key. The script touches keys of many entities, so it does
not run on a Redis Cluster.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from headrace.models.errors import SettingsError, StoreUnavailable
from headrace.streams.rings import TRIM_FROM, Appended, RingSpec

_SCRIPT = Path(__file__).with_name("feature_store.lua")
_RETRY_BASE_S, _RETRY_CAP_S = 0.05, 2.5  # seconds between two tries
_TIMEOUT_S = 10.0  # a chunk takes milliseconds; a Redis that forks for a snapshot may hang for seconds


class RedisFeatureStore:
    """A `FeatureStore`. The namespace belongs to one pipeline: positions say what was applied to *its* rings."""

    def __init__(self, url: str, namespace: str, *, retries: int = 0) -> None:
        """`retries` bridges a Redis that is away: 30 wait about a minute. A chunk that was applied unheard is told
        apart by its position."""
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(ExponentialBackoff(cap=_RETRY_CAP_S, base=_RETRY_BASE_S), retries),
                retry_on_error=[redis.ConnectionError, redis.TimeoutError] if retries else [],
            )
        except ValueError as error:
            raise SettingsError(f"Redis: expected a URL like redis://host:6379/0, got {_public(url)!r}.") from error
        self._where = _public(url)
        self._rings = f"{namespace}:r:".encode()
        self._progress = f"{namespace}:p:".encode()
        self._apply = self._redis.register_script(_SCRIPT.read_text())

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
        keys = [self._progress + topic.encode()]
        families: list[int] = []
        packed: list[bytes] = []
        for ring, by_key in rows.items():
            families += [ring.width, ring.keep_ms, int(ring.keep_last), len(by_key)]
            keys += [self._rings + key for key in by_key]
            packed += by_key.values()
        head: list[str | int] = [partition, _text(expected), next_position, _text(newest), TRIM_FROM, len(rows)]
        try:
            applied, position, watermark = self._apply(keys=keys, args=[*head, *families, *packed])
        except redis.RedisError as error:
            self._unavailable("take rows", error)
        return Appended(applied=applied == 1, position=_number(position), watermark=_number(watermark))

    def positions(self, topic: str) -> dict[int, int]:
        try:
            stored: dict[bytes, bytes] = self._redis.hgetall(self._progress + topic.encode())
        except redis.RedisError as error:
            self._unavailable("say its positions", error)
        return {int(name): int(value) for name, value in stored.items() if name != b"watermark"}

    def watermark(self, topic: str) -> int | None:
        try:
            stored: bytes | None = self._redis.hget(self._progress + topic.encode(), "watermark")
        except redis.RedisError as error:
            self._unavailable("say its watermark", error)
        return _number(stored or b"")

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        prefix = self._rings
        try:
            rings: list[bytes | None] = self._redis.mget([prefix + key for key in keys])
        except redis.RedisError as error:
            self._unavailable("hand out rows", error)
        return rings

    def close(self) -> None:
        self._redis.close()

    def _unavailable(self, what: str, error: redis.RedisError) -> NoReturn:
        raise StoreUnavailable(
            f"Redis at {self._where} does not {what} ({error}): check that it runs, is reachable and has memory left."
        ) from error


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _number(text: bytes) -> int | None:
    return int(text) if text else None


def _public(url: str) -> str:
    """A URL without its password."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
