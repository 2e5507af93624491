"""Manifests and ONNX bytes in chunks on `headrace.artifacts`, found by partition and offset, verified when read."""

import hashlib
from collections.abc import Callable
from time import monotonic
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace.infra.kafka import consumer_config
from headrace.infra.names import ARTIFACTS
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.models.errors import BrokerUnavailable, RegistryRefused
from headrace.models.manifest import Blob

_CHUNK = 512 * 1024  # bytes: under the broker's default of 1 MB a record
_WAIT_MS = 0
_SECONDS = 30.0
_LIMIT = 256 * 1024 * 1024  # bytes of one artifact: checked before anything is allocated for it


def write_blob(producer: Any, topic: str, data: bytes) -> Blob:
    """Produces the chunks inside the producer's open transaction and waits for their offsets."""
    sha256 = hashlib.sha256(data).hexdigest()
    pieces = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)] or [b""]
    first: list[Any] = []
    for number, piece in enumerate(pieces):
        report = _keep_offset(first) if number == 0 else None
        producer.produce(topic, piece, _key(sha256, number), partition=0, on_delivery=report)
    producer.flush(30)
    if not first:
        raise BrokerUnavailable(f"{topic}: the broker did not acknowledge an artifact of {len(data)} bytes")
    return Blob(sha256=sha256, size=len(data), partition=0, offset=first[0], chunks=len(pieces))


def _keep_offset(kept: list[int]) -> Callable[[Any, Any], None]:
    def report(error: Any, message: Any) -> None:
        if error is None:
            kept.append(message.offset())

    return report


def _key(sha256: str, number: int) -> bytes:
    return f"{sha256}/{number}".encode()


class Artifacts:
    """Reads blobs. Chunks of another writer's may lie between: they are told apart by their key.

    One client, kept: to make one and to find the broker took longer than all else of a swap. Used by one thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.prefixed(ARTIFACTS)
        self._client: Consumer | None = None
        self._partitions: frozenset[int] = frozenset()

    def read(self, blob: Blob) -> bytes:
        """Raises RegistryRefused for what is not there or not whole, BrokerUnavailable where nobody answers."""
        chunks_fit, is_offset = 1 <= blob.chunks <= _LIMIT // _CHUNK + 1, 0 <= blob.offset < 1 << 63
        if not (0 <= blob.size <= _LIMIT and chunks_fit and is_offset):
            raise RegistryRefused("bad_blob", f"expected up to {_LIMIT} bytes in chunks of {_CHUNK}, got {blob}")
        client = self._connected()
        if blob.partition not in self._partitions:
            raise RegistryRefused("bad_blob", f"expected a partition of the topic, got {blob}")
        client.assign([TopicPartition(self._topic, blob.partition, blob.offset)])
        try:
            pieces = self._pieces(client, blob)
        finally:
            client.unassign()
        if len(pieces) < blob.chunks:
            raise RegistryRefused(
                "missing_chunks", f"{blob.chunks - len(pieces)} of {blob.chunks} are not on the topic"
            )
        data = b"".join(pieces[number] for number in range(blob.chunks))
        if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.sha256:
            raise RegistryRefused("bad_hash", f"expected {blob.size} bytes with sha256 {blob.sha256}, got {len(data)}")
        return data

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Consumer:
        if self._client is None:
            # the broker is not to wait at the end for more records: the next question would wait behind that
            config = consumer_config(
                self._settings, "headrace.reader", enable_partition_eof=True, fetch_wait_max_ms=_WAIT_MS
            )
            client = Consumer(config)
            self._partitions = frozenset(partitions_of(client, self._topic))
            self._client = client
        return self._client

    def _pieces(self, client: Consumer, blob: Blob) -> dict[int, bytes]:
        """Chunks by number, as far as the topic's end."""
        wanted = {_key(blob.sha256, number): number for number in range(blob.chunks)}
        pieces: dict[int, bytes] = {}
        deadline = monotonic() + _SECONDS
        while len(pieces) < blob.chunks:
            for message in client.consume(min(100, blob.chunks - len(pieces)), timeout=1.0):
                if (error := message.error()) is None:
                    if (number := wanted.get(message.key() or b"")) is not None:
                        pieces.setdefault(number, message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  the library's public name for it
                    return pieces
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
                    raise RegistryRefused("missing_chunks", f"offset {blob.offset} is not on the topic")
                elif error.fatal():
                    raise BrokerUnavailable(f"{self._topic}: {error.str()}")
            if monotonic() > deadline:
                raise BrokerUnavailable(f"{self._topic}: an artifact was not to be had within {_SECONDS:.0f} s")
        return pieces
