"""outcomes → Kafka. A failed delivery ends the process: the events behind it are not committed and come again."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from headrace.models.errors import BrokerUnavailable, Stalled
from headrace.streams.dead_letters import Out

_FLUSH_SECONDS = 30.0
_QUEUE_FULL_SECONDS = 0.01

DeliveryReport = Callable[[KafkaError | None, Any], None]


class Sink:
    """A producer and its failed deliveries. Used by one thread.

    `make_producer` is given the delivery callback; reports of success are off (they cost more than the produce).
    """

    def __init__(self, make_producer: Callable[[DeliveryReport], Any]) -> None:
        self._failures: list[str] = []
        self._producer = make_producer(self._on_delivery)

    def produce(self, record: Out) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, partition=record.partition, headers=record.headers
                )
            except BufferError:  # the local queue is full: let deliveries go out first
                self._producer.poll(_QUEUE_FULL_SECONDS)
            else:
                return

    def acknowledged(self) -> bool:
        """Whether nothing is waiting for the broker."""
        self._producer.poll(0)
        self._raise_failures()
        return len(self._producer) == 0

    def flush(self) -> None:
        """Returns when the broker has acknowledged everything."""
        waiting = self._producer.flush(_FLUSH_SECONDS)
        self._raise_failures()
        if waiting:
            raise Stalled(f"the broker left {waiting} records unacknowledged for {_FLUSH_SECONDS:.0f} s; is it there?")

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failures.append(f"{message.topic()}: {error.str()}")

    def _raise_failures(self) -> None:
        if self._failures:
            raise BrokerUnavailable(
                f"{len(self._failures)} records were not delivered, the first to {self._failures[0]}"
            )
