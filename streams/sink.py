"""outcomes → Kafka. A failed delivery ends the process: the events behind it are not committed and come again."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError

from headrace.models.errors import BrokerUnavailable, Stalled
from headrace.streams.out import Call, Out, Outs

_FLUSH_SECONDS = 30.0
_QUEUE_FULL_SECONDS = 0.01
_HURRY_SECONDS = 0.001  # the client forgets linger.ms while somebody flushes; at 0 it does not notice

DeliveryReport = Callable[[KafkaError | None, Any], None]


class AcknowledgedSink:
    """A producer and its failed deliveries. Used by one thread.

    `make_producer` is given the delivery callback; reports of success are off (they cost more than the produce).
    """

    def __init__(self, make_producer: Callable[[DeliveryReport], Any]) -> None:
        self._failures: list[str] = []
        self._producer = make_producer(self._on_delivery)

    def produce(self, records: Out | Outs) -> None:
        produce_all(self._producer, records)

    def acknowledged(self) -> bool:
        """Whether nothing is waiting for the broker."""
        self._producer.poll(0)
        self._raise_failures()
        return len(self._producer) == 0

    def hurry(self) -> None:
        """What waits for company in its batch goes out now."""
        self._producer.flush(_HURRY_SECONDS)

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
            raise undelivered(self._failures)


def undelivered(failures: Sequence[str]) -> BrokerUnavailable:
    return BrokerUnavailable(f"{len(failures)} records were not delivered, the first to {failures[0]}")


def produce_all(producer: Any, records: Out | Outs) -> None:
    """In order; waits where the producer's own queue is full."""
    produce = producer.produce
    for call in records.calls():
        try:
            produce(*call)
        except BufferError:  # let deliveries go out first
            _produce_later(producer, call)


def _produce_later(producer: Any, call: Call) -> None:
    while True:
        producer.poll(_QUEUE_FULL_SECONDS)
        with suppress(BufferError):
            producer.produce(*call)
            return
