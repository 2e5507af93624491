"""How we talk to Kafka: configurations as plain data, and the two questions that every process asks first."""

import logging
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.infra.kafka_options import for_admin, for_consumer, for_producer
from headrace.infra.settings import Settings
from headrace.models.errors import BrokerUnavailable, SettingsError

_log = logging.getLogger("headrace.kafka")

# librdkafka's largest: each topic's own limit decides, and a dead letter has to be as large as its event.
MAX_MESSAGE_BYTES: Final = 1_000_000_000
# How long a killed worker's partitions lie idle. The broker's own minimum; its default is 45 s.
SESSION_TIMEOUT_MS: Final = 6_000
_HEARTBEAT_MS: Final = 2_000  # a third: two may be lost
_CALL_S: Final = 10.0

_CONSUMER: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # The start is chosen once and committed; an offset that retention ate later is an error that names the gap.
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": _HEARTBEAT_MS,
    # By default a consumer whose queue is full looks again after 1 s.
    "fetch.queue.backoff.ms": 5,
    # With the default 1 MB and 100,000 messages the echo ran at a quarter of the speed.
    "fetch.message.max.bytes": 10 * 1024 * 1024,
    "queued.min.messages": 500_000,
    "queued.max.messages.kbytes": 16 * 1024,  # this bounds the memory, per partition
}
_PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "compression.type": "lz4",
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 256 * 1024,
    "message.max.bytes": MAX_MESSAGE_BYTES,
    # What Java's producers and Kafka Streams use, so that keys meet on the same partition number.
    "partitioner": "murmur2_random",
    # A callback per delivered message costs as much as the message.
    "delivery.report.only.error": True,
}


# A transaction that hangs holds back everybody who reads committed records, so the broker ends it soon.
_TRANSACTIONAL: Final[dict[str, Any]] = {
    "transaction.timeout.ms": 15_000,
    "message.timeout.ms": 12_000,  # less, or the client refuses it
    # librdkafka waits so long before it asks the coordinator again; with its 100 ms a commit takes 105 ms, so 10 ms
    "retry.backoff.ms": 5,
    "retry.backoff.max.ms": 50,
}


def consumer_config(settings: Settings, group: str, **extra: Any) -> dict[str, Any]:
    """For `confluent_kafka.Consumer`. `extra`: options with `_` for `.`, over ours and the operator's."""
    own = _CONSUMER | {"group.id": settings.prefixed(group)}
    return _merged(settings, own, for_consumer(settings.kafka), extra)


def producer_config(settings: Settings, **extra: Any) -> dict[str, Any]:
    """For `confluent_kafka.Producer`."""
    return _merged(settings, _PRODUCER, for_producer(settings.kafka), extra)


def transactional_config(settings: Settings, name: str, **extra: Any) -> dict[str, Any]:
    """For a producer whose records and offsets are committed together; a newer one of this name fences it off."""
    own = _PRODUCER | _TRANSACTIONAL | {"transactional.id": settings.prefixed(name)}
    return _merged(settings, own, for_producer(settings.kafka), extra)


def admin_config(settings: Settings) -> dict[str, Any]:
    return _merged(settings, {}, for_admin(settings.kafka), {})


def admin(settings: Settings) -> AdminClient:
    """Raises SettingsError for an option that librdkafka does not know, BrokerUnavailable without an address."""
    return _admin(admin_config(settings))


def ensure_reachable(settings: Settings, timeout: float = _CALL_S) -> None:
    """Raises BrokerUnavailable or SettingsError: one sentence, not a client that retries for ever."""
    said: list[str] = []
    client = _admin(admin_config(settings) | {"error_cb": lambda error: said.append(error.str()), "log_level": 0})
    try:
        client.list_topics(timeout=timeout)
    except KafkaException as error:
        client.poll(0)  # runs error_cb: it knows of a refused password, the call itself only of a timeout
        what = said[-1] if said else error.args[0].str()
        msg = (
            f"Expected Kafka at {settings.bootstrap_servers} to answer within {timeout:g} s, got: {what}."
            " Start it (headrace up), or correct KAFKA_BOOTSTRAP_SERVERS and the table [kafka] in headrace.toml."
        )
        raise BrokerUnavailable(msg) from error


def end_offsets(consumer: Consumer, topic: str, timeout: float = _CALL_S) -> dict[int, int]:
    """Partition -> the offset that the next record will get, as far as this consumer's isolation level sees.

    Raises BrokerUnavailable.
    """
    return {partition: end for partition, (_, end) in watermarks(consumer, topic, timeout).items()}


def watermarks(consumer: Consumer, topic: str, timeout: float = _CALL_S) -> dict[int, tuple[int, int]]:
    """Partition -> (first offset still there, next offset). Raises BrokerUnavailable."""
    try:
        found = consumer.list_topics(topic, timeout=timeout).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)  # noqa: TRY301 - a topic that is not there comes as a value
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout)
            for partition in sorted(found.partitions)
        }
    except KafkaException as error:
        got = error.args[0].str()
        msg = f"Expected the offsets of topic {topic!r}, got: {got}. Run: headrace apply, and look at the broker."
        raise BrokerUnavailable(msg) from error


def _merged(
    settings: Settings, own: dict[str, Any], operators: dict[str, str], extra: dict[str, Any]
) -> dict[str, Any]:
    if settings.bootstrap_servers is None:
        msg = "Expected the address of a Kafka broker, got none. Run: headrace up, or set KAFKA_BOOTSTRAP_SERVERS."
        raise BrokerUnavailable(msg)
    return (
        {"client.id": "headrace", "logger": _log, "error_cb": _report}
        | own
        | operators
        | {"bootstrap.servers": settings.bootstrap_servers}
        | {_dotted(name): value for name, value in extra.items()}
    )


def _dotted(name: str) -> str:
    # The callbacks are the binding's own and keep their underscore.
    return (
        name
        if name.endswith("_cb") or name in {"on_delivery", "on_commit", "logger", "log_level"}
        else name.replace("_", ".")
    )


def _admin(config: dict[str, Any]) -> AdminClient:
    try:
        return AdminClient(config)
    except KafkaException as error:
        msg = (
            f"[kafka]: expected options that librdkafka knows, got: {error.args[0].str()}."
            " Correct it in headrace.toml or in the environment."
        )
        raise SettingsError(msg) from error


def _report(error: KafkaError) -> None:
    """Not raised: librdkafka goes on trying, and a fatal one also comes out of the next call."""
    _log.warning("%s", error.str())
