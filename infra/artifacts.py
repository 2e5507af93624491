"""manifests, graphs and sources → chunks on `headrace.artifacts`, or files in an object store → bytes, verified.

Found by partition and offset, or by URL, as their record says; by a `Relocated` record where `model gc` has moved them.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from time import monotonic
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.names import ARTIFACTS
from headrace.infra.object_store import LARGEST, ObjectStore
from headrace.infra.relocations import Relocations
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.models.errors import BadInput, BrokerUnavailable, RegistryRefused
from headrace.models.manifest import Blob

CHUNK = 512 * 1024  # bytes: under the broker's default of 1 MB a record
MB = 1024 * 1024
_UNDER_WAY = 32  # chunks that the client holds: it copies each one, and the artifact is in memory already
_WAIT_MS = 0
_SECONDS = 30.0  # without a chunk
_SLOW = 1_000_000  # bytes a second: a writer waits as long as such a line takes


def write_blob(producer: Any, topic: str, data: bytes) -> Blob:
    """Produces the chunks, in the producer's open transaction if it has one, and waits until all are acknowledged."""
    sha256, chunks = hashlib.sha256(data).hexdigest(), max(1, -(-len(data) // CHUNK))
    deadline = monotonic() + write_seconds(len(data))
    reports = _Reports()
    for number in range(chunks):
        while len(producer) >= _UNDER_WAY and monotonic() < deadline:
            producer.poll(0.05)
        if reports.failure is not None:
            break
        piece = data[number * CHUNK : (number + 1) * CHUNK]
        producer.produce(topic, piece, chunk_key(sha256, number), partition=0, on_delivery=reports)
    producer.flush(max(1.0, deadline - monotonic()))
    if len(reports.offsets) != chunks:
        why = reports.failure.str() if reports.failure else f"no answer within {write_seconds(len(data)):.0f} s"
        raise BrokerUnavailable(f"{topic}: an artifact of {len(data):,} bytes was not acknowledged: {why}")
    return Blob(sha256=sha256, size=len(data), partition=0, offset=min(reports.offsets), chunks=chunks)


def write_seconds(size: int) -> float:
    """How long writing so many bytes may take; the leader's transactions last longer than its largest artifact."""
    return _SECONDS + size / _SLOW


def in_store(settings: Settings, size: int) -> bool:
    """Whether an artifact of so many bytes goes to the object store. Raises BadInput where it would, without one."""
    if size <= settings.artifact_kafka_limit_mb * MB:
        return False
    if not settings.artifact_store:
        limit = f"up to {settings.artifact_kafka_limit_mb} MB (artifact_kafka_limit_mb)"
        raise BadInput(
            f"artifact: expected {limit}, got {size / MB:,.1f} MB. Set artifact_store to a URL, or raise the limit."
        )
    if size > LARGEST:
        raise BadInput(f"artifact: expected up to {LARGEST:,} bytes, which is protobuf's own limit, got {size:,}.")
    return True


def put(settings: Settings, data: bytes) -> Blob:
    """An artifact that no record refers to yet: whoever writes that record takes the blob. Until then it is garbage,
    which `model gc` leaves alone for an hour."""
    if in_store(settings, len(data)):
        return ObjectStore(settings.artifact_store).write(data)
    producer = Producer(producer_config(settings, linger_ms=0, delivery_report_only_error=False))
    return write_blob(producer, settings.prefixed(ARTIFACTS), data)


def chunk_key(sha256: str, number: int) -> bytes:
    return f"{sha256}/{number}".encode()


class _Reports:
    """Of deliveries. An error is only kept: the client may be raising another one while it reports it, and then no
    call may be made."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.failure: Any = None

    def __call__(self, error: Any, message: Any) -> None:
        if error is None:
            self.offsets.append(message.offset())
        else:
            self.failure = error


class Artifacts:
    """Reads blobs. Chunks of another writer's may lie between: they are told apart by their key.

    One client, kept: to make one and to find the broker took longer than all else of a swap. Used by one thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.prefixed(ARTIFACTS)
        self._store, self._moved = ObjectStore(settings.artifact_store), Relocations(settings)
        self._client: Consumer | None = None
        self._partitions: frozenset[int] = frozenset()

    def read(self, blob: Blob) -> bytes:
        """Raises RegistryRefused for what is not there or not whole, BrokerUnavailable where nobody answers."""
        if blob.url:
            if not self._settings.artifact_store:
                raise RegistryRefused("foreign_url", f"no artifact_store is set, so {blob.url!r} is not opened")
            return self._store.read(blob)
        if (data := self._copy_of(self._moved.of(blob))) is not None:
            return data
        try:
            return self._read(blob)
        except RegistryRefused as error:
            if error.reason != "missing_chunks" or (data := self._copy_of(self._moved.find(blob))) is None:
                raise
            return data

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _copy_of(self, places: Sequence[Blob]) -> bytes | None:
        for place in places:
            with suppress(RegistryRefused):
                return self._read(place)
        return None

    def _read(self, blob: Blob) -> bytes:
        chunks_fit, is_offset = 1 <= blob.chunks <= LARGEST // CHUNK + 1, 0 <= blob.offset < 1 << 63
        if not (0 <= blob.size <= LARGEST and chunks_fit and is_offset):
            raise RegistryRefused("bad_blob", f"expected up to {LARGEST} bytes in chunks of {CHUNK}, got {blob}")
        client = self._connected()
        if blob.partition not in self._partitions:
            raise RegistryRefused("bad_blob", f"expected a partition of the topic, got {blob}")
        client.assign([TopicPartition(self._topic, blob.partition, blob.offset)])
        try:
            data = self._whole(client, blob)
        finally:
            client.unassign()
        if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.sha256:
            raise RegistryRefused("bad_hash", f"expected {blob.size} bytes with sha256 {blob.sha256}, got {len(data)}")
        return data

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

    def _whole(self, client: Consumer, blob: Blob) -> bytes:
        """The chunks, one after the other as they lie on the topic; in memory once."""
        data, number = BytesIO(), 0
        deadline = monotonic() + _SECONDS
        while data.tell() <= blob.size:  # more are other bytes, which the hash will say
            batch = client.consume(1, timeout=1.0)  # of more it would wait for the last, or for the timeout
            batch += client.consume(_UNDER_WAY, timeout=0) if batch else []
            for message in batch:
                if (error := message.error()) is None:
                    if message.key() == chunk_key(blob.sha256, number):
                        data.write(message.value() or b"")
                        number, deadline = number + 1, monotonic() + _SECONDS
                        if number == blob.chunks:
                            return data.getvalue()
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  the library's public name for it
                    left = blob.chunks - number
                    raise RegistryRefused("missing_chunks", f"{left} of {blob.chunks} are not on the topic")
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
                    raise RegistryRefused("missing_chunks", f"offset {blob.offset} is not on the topic")
                elif error.fatal():
                    raise BrokerUnavailable(f"{self._topic}: {error.str()}")
            if monotonic() > deadline:
                raise BrokerUnavailable(f"{self._topic}: an artifact was not to be had within {_SECONDS:.0f} s")
        return data.getvalue()
