"""The newest records of a topic, as bytes: what `check` looks at."""

from confluent_kafka import Consumer

from headrace.infra.kafka import consumer_config, watermarks
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader


def newest(settings: Settings, topic: str, count: int) -> list[bytes]:
    """Up to `count` values, a like share of each partition, tombstones as empty. Raises BrokerUnavailable."""
    asker = Consumer(consumer_config(settings, "headrace.reader"))
    try:
        bounds = watermarks(asker, topic)
    finally:
        asker.close()
    share = -(-count // max(1, len(bounds)))
    begin = {(topic, number): max(first, end - share) for number, (first, end) in bounds.items()}
    reader = TopicReader(settings, [topic], begin, once=True)
    try:
        values = [message.value() or b"" for batch in reader.until_end() for message in batch]
    finally:
        reader.close()
    return values[:count]
