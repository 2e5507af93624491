"""Kafka's side of the leader: the runs log as a group member, the registry as a reader, and the fenced transactions."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from headrace.infra.artifacts import MB, Artifacts, write_blob, write_seconds
from headrace.infra.fenced import CALL_SECONDS, Fenced
from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.keys import signer
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS, Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models import manifest as manifests
from headrace.models.manifest import Blob, Manifest
from headrace.models.records import Moved, RegistryRecord, RunRecord

_CATCH_UP_SECONDS = 60.0
_BATCH = 1_000
_decode = msgspec.json.Decoder(RunRecord).decode


class KafkaRunsLog:
    """All records from the beginning, whatever the group committed: the state is a fold over them. The group only
    says who leads, and lends its generation to the writer's transactions."""

    def __init__(self, settings: Settings, names: Names, group: str = "leader") -> None:
        config = consumer_config(settings, f"{names.pipeline.name}.{group}", enable_partition_eof=True)
        self.consumer = Consumer(config)
        self.position = 0
        self._held: list[RunRecord] = []  # until it leads
        self._owns = self._at_end = self._resigned = False
        topic = names.of(RUNS)
        self.consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    @property
    def leads(self) -> bool:
        return self._owns and self._at_end and not self._resigned

    def resign(self) -> None:
        """From any thread: leads no more, so that a training that goes on is dropped and not waited for."""
        self._resigned = True

    def poll(self, seconds: float) -> Sequence[RunRecord]:
        """Nothing before it leads, then everything from the beginning: to a caller who saw that it leads."""
        led = self.leads
        batch = self.consumer.consume(1, timeout=seconds)
        batch += self.consumer.consume(_BATCH, timeout=0) if batch else []
        for message in batch:
            error = message.error()
            if error is not None:
                self._at_end = self._at_end or error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
                continue
            self.position = message.offset() + 1
            with suppress(msgspec.DecodeError, ValueError, RecursionError):  # somebody else's says nothing to us
                self._held.append(_decode(message.value() or b""))
        if not led or not self.leads:
            return []
        records, self._held = self._held, []
        return records

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            partition.offset = OFFSET_BEGINNING
        consumer.incremental_assign(partitions)
        if partitions:  # an assignment that changes nothing is empty
            self._held, self._owns, self._at_end = [], True, False

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        if partitions:
            self._owns = self._at_end = False


class KafkaRegistry:
    """The registry for one who asks now and then."""

    def __init__(self, settings: Settings) -> None:
        self._reader = TopicReader(settings, [settings.prefixed(REGISTRY)])
        self._artifacts = Artifacts(settings)

    def catch_up(self) -> Sequence[bytes | None]:
        return [message.value() for message in self._reader.up_to_now(_CATCH_UP_SECONDS)]

    def manifest(self, blob: Blob) -> Manifest:
        return manifests.decode(self._artifacts.read(blob))

    def onnx(self, manifest: Manifest) -> bytes:
        return self._artifacts.read(manifest.onnx)

    def close(self) -> None:
        self._reader.close()
        self._artifacts.close()


class KafkaWriter(Fenced):
    """Transactions that carry the group's offsets: a leader that lost the group is refused by the broker."""

    def __init__(self, settings: Settings, names: Names, log: KafkaRunsLog) -> None:
        self._names = names
        self._sign = signer(settings, names.pipeline)
        config = producer_config(
            settings,
            transactional_id=names.leader_transaction,
            transaction_timeout_ms=_transaction_ms(settings),
            delivery_report_only_error=False,
            linger_ms=0,
            # every transaction waits for the one before it to be marked: by default 100 ms a try
            retry_backoff_ms=5,
            retry_backoff_max_ms=50,
        )
        super().__init__(config, log, names.of(RUNS), names.pipeline.name)

    def record(self, *records: RegistryRecord | RunRecord) -> None:
        self.transaction(lambda: self._produce(records))

    def publish(
        self,
        onnx: bytes | Blob,
        manifest: Callable[[Blob], Manifest],
        records: Callable[[Blob], Sequence[RegistryRecord | RunRecord]],
    ) -> None:
        """(1) ONNX chunks, (2) the manifest that points at them, (3) the records that point at it, (4) commit."""
        topic = self._names.of(ARTIFACTS)

        def write() -> None:
            graph = onnx if isinstance(onnx, Blob) else write_blob(self._producer, topic, onnx)
            place = write_blob(self._producer, topic, manifests.encode(manifest(graph)))
            self._produce(records(place))

        self.transaction(write)

    def _produce(self, records: Sequence[RegistryRecord | RunRecord]) -> None:
        for record in records:
            topic, said = RUNS, record
            if isinstance(record, Moved):
                topic, said = REGISTRY, self._sign(record) if self._sign else record
            self._producer.produce(self._names.of(topic), msgspec.json.encode(said), record.pipeline.encode())


def _transaction_ms(settings: Settings) -> int:
    """As long as its largest artifact takes on a slow line, and the call that ends it."""
    return round(1000 * (write_seconds(settings.artifact_kafka_limit_mb * MB) + CALL_SECONDS))
