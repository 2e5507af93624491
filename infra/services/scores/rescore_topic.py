"""replayed rows → prediction records on a topic of the user's, marked as a replay."""

from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import NewTopic

from headrace.infra.kafka import admin, producer_config
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS, Names
from headrace.infra.services.scores.rescore import RESCORED
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.errors import BadInput, BrokerUnavailable
from headrace.streams.codec import clock_ms
from headrace.streams.out import Headers
from headrace.streams.predictions import Predictions
from headrace.streams.served import scores_of
from headrace.streams.sink import AcknowledgedSink
from headrace.trainer.columns import as_numpy

REPLAY_HEADER = "headrace-replay"  # when the replay began, RFC 3339 UTC: what tells two of them apart
SERVED_VERSION_HEADER, SERVED_SCORE_HEADER = "headrace-served-version", "headrace-served-score"
_QUEUE_KB = 16 * 1024  # records that the client holds for the broker
_CALL_SECONDS = 30.0
_OURS = (".predictions", ".served", ".dead-letters", ".history")


class TopicTarget:
    """Prediction records in their event's partition, with the event id as key: the served log has no other.

    What was asked for on demand goes by its key; its `source` is its place on the served topic.
    """

    def __init__(self, settings: Settings, names: Names, topic: str) -> None:
        self.name = own_topic(settings, names, topic, "--to-topic")
        self._events, self._served = names.events, names.topics.served
        self._started = iso(clock_ms()).encode()
        self._records = Predictions(names.pipeline.name, names.pipeline.label, self.name).records
        self._sink = AcknowledgedSink(lambda report: _producer(settings, report))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is None:
            self._sink.flush()

    def write(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        columns = {name: rows.column(name).to_pylist() for name in RESCORED.names if name != "event_time"}
        served = zip(columns["served_version"], columns["served_score"], strict=True)
        headers: list[Headers | None] = [
            [
                (REPLAY_HEADER, self._started),
                (SERVED_VERSION_HEADER, str(version).encode()),
                (SERVED_SCORE_HEADER, repr(score).encode()),
            ]
            for version, score in served
        ]
        records = self._records(
            ids=columns["id"],
            times=as_numpy(rows.column("event_time").cast(pa.int64())),
            scores=scores_of(rows, "replayed_score"),
            version=columns["replayed_version"][0],
            sources=[
                (self._events if place[0] >= 0 else self._served, *place)
                for place in zip(columns["partition"], columns["offset"], strict=True)
            ],
            keys=[one.encode("utf-8", "surrogatepass") for one in columns["id"]],
            headers=headers,
        )
        self._sink.produce(records)
        self._sink.acknowledged()  # raises what the broker refused so far


def _producer(settings: Settings, report: Any) -> Producer:
    return Producer(producer_config(settings, queue_buffering_max_kbytes=_QUEUE_KB, on_delivery=report))


def own_topic(settings: Settings, names: Names, topic: str, option: str) -> str:
    """Its full name; it is there, with the events' partitions at least. Raises BadInput where it is not the user's."""
    name = settings.prefixed(topic)
    _expect_own(names, name, option)
    _ensure_topic(settings, names, name, option)
    return name


def _expect_own(names: Names, topic: str, option: str) -> None:
    """Neither headrace's topics, of any pipeline, nor what the pipeline reads."""
    read = {names.of(one.name) for one in names.pipeline.inputs}
    shared = {names.of(one) for one in (REGISTRY, ARTIFACTS, RUNS)}
    variants = tuple(names.of(names.pipeline.name) + kind + "." for kind in _OURS)
    if topic in read | shared or topic.endswith(_OURS) or topic.startswith(variants):
        whose = f"{names.pipeline.name} reads it" if topic in read else "headrace writes it"
        raise BadInput(f"{option}: expected a topic of your own, got {topic!r}: {whose}.")


def _ensure_topic(settings: Settings, names: Names, topic: str, option: str) -> None:
    """There, with the events' partitions at least: created where it is missing."""
    client: Any = admin(settings)
    try:
        known = client.list_topics(timeout=_CALL_SECONDS).topics
        if names.events not in known:
            raise BrokerUnavailable(f"topic {names.events!r} is not there: run `headrace apply` first")
        wanted = len(known[names.events].partitions)
        if topic not in known:
            new = NewTopic(topic, num_partitions=wanted, replication_factor=settings.replication)
            client.create_topics([new], operation_timeout=_CALL_SECONDS)[topic].result(_CALL_SECONDS)
            return
    except KafkaException as error:
        raise BrokerUnavailable(f"topic {topic}: {error.args[0].str()}") from error
    if (there := len(known[topic].partitions)) < wanted:
        raise BadInput(f"{option}: expected {wanted} partitions, as {names.events} has; {topic} has {there}.")
