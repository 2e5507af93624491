"""events → as many bytes back: the raw librdkafka loop in Python that headrace is held against.

Fetch, linger and batch settings are headrace's own. No decoding, no model, no callback, and nobody looks at errors: the
verifier counts. Every 200 ms all is acknowledged and offsets are committed, as headrace does.
"""

import argparse
import signal
import threading
from time import monotonic

from confluent_kafka import Consumer, Producer

from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.settings import Settings

_CHUNK_ROWS = 1_000
_COPIED_BYTES = 88  # with as many, lz4 leaves of a value what it leaves of a prediction: 38 bytes (84 of a whole event)
_IDLE_SECONDS = 0.05
_COMMIT_SECONDS = 0.2
_FLUSH_SECONDS = 30.0


def echo(settings: Settings, events: str, predictions: str, group: str, size: int, stop: threading.Event) -> None:
    """`size`: bytes of each value that goes out, the event's first ones and zeros behind."""
    consumer = Consumer(consumer_config(settings, group, auto_offset_reset="earliest"))
    producer = Producer(producer_config(settings))
    produce, consume = producer.produce, consumer.consume
    padding = b"0" * (size - _COPIED_BYTES)
    consumer.subscribe([events])
    commit_at, waiting = monotonic() + _COMMIT_SECONDS, 0
    while not stop.is_set():
        messages = consume(1, timeout=_IDLE_SECONDS)  # `consume(n)` would wait for all n
        messages += consume(_CHUNK_ROWS - 1, timeout=0) if messages else []
        for message in messages:
            produce(predictions, message.value()[:_COPIED_BYTES] + padding, message.key())
        waiting += len(messages)
        if waiting and monotonic() >= commit_at:
            producer.flush(_FLUSH_SECONDS)
            consumer.commit(offsets=consumer.position(consumer.assignment()), asynchronous=True)
            commit_at, waiting = monotonic() + _COMMIT_SECONDS, 0
    producer.flush(_FLUSH_SECONDS)
    consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap-servers", "events", "predictions", "group", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--size", type=int, required=True)
    given = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = Settings(bootstrap_servers=given.bootstrap_servers)
    echo(settings, given.events, given.predictions, given.group, given.size, stop)


if __name__ == "__main__":
    main()
