"""`headrace apply`: the topics that a pipeline needs, created where missing, refused where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from headrace.infra.kafka import admin
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS, Names
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, BrokerUnavailable
from headrace.models.pipeline import Pipeline

_KEEP = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_HEADER_ROOM = 64 * 1024  # bytes that a dead letter may be larger than its source
_DEFAULT_MAX = 1_048_588  # the broker's max.message.bytes
_SECONDS = 30.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Wanted:
    name: str
    partitions: int
    config: dict[str, str]
    owner: str  # "yours" or "headrace's"


@dataclass(frozen=True, kw_only=True)
class Applied:
    topic: str
    partitions: int
    created: bool


def wanted_topics(names: Names, partitions: int, max_bytes: int = _DEFAULT_MAX) -> list[Wanted]:
    """The topic table. `partitions` are those of the events, which predictions and served rows share.

    Retention of predictions, served rows and dead letters is the broker's default unless an operator sets it; the
    registry, its artifacts, runs and history are kept for ever. No topic's retention rests on event time.
    """
    pipeline, topics = names.pipeline, names.topics
    users = {topic.name: topic.partitions for topic in (*pipeline.side_topics, pipeline.label.topic)}
    users[pipeline.events.name] = partitions
    larger = {"max.message.bytes": str(max_bytes + _HEADER_ROOM)}
    return [
        *[Wanted(name=names.of(n), partitions=p, config={}, owner="yours") for n, p in users.items()],
        Wanted(name=topics.predictions, partitions=partitions, config={"cleanup.policy": "delete"}, owner="headrace's"),
        Wanted(
            name=topics.served, partitions=partitions, config={"cleanup.policy": "delete"} | larger, owner="headrace's"
        ),
        Wanted(
            name=topics.dead_letters,
            partitions=partitions,
            config={"cleanup.policy": "delete"} | larger,
            owner="headrace's",
        ),
        Wanted(name=topics.history, partitions=1, config=_KEEP, owner="headrace's"),
        *[
            Wanted(name=names.of(name), partitions=1, config=_KEEP, owner="headrace's")
            for name in (REGISTRY, ARTIFACTS, RUNS)
        ],
    ]


def apply(settings: Settings, pipeline: Pipeline, partitions: int | None = None) -> list[Applied]:
    """Creates what is missing; idempotent. Raises BadInput with every difference of what is already there."""
    client = admin(settings)
    try:
        existing = client.list_topics(timeout=_SECONDS).topics
    except KafkaException as error:
        raise BrokerUnavailable(f"no answer from {settings.bootstrap_servers}: {error.args[0].str()}") from error
    names = Names(settings.prefix, pipeline)
    there = existing.get(names.events)
    count = len(there.partitions) if there is not None else partitions or pipeline.events.partitions
    max_bytes = _max_bytes(client, names.events) if there is not None else _DEFAULT_MAX
    table = wanted_topics(names, count, max_bytes)
    differences = [
        line for wanted in table if wanted.name in existing for line in _differences(client, wanted, existing)
    ]
    if partitions is not None and partitions != count:
        differences.append(f"{names.events}: has {count} partitions, asked for {partitions}")
    if differences:
        raise BadInput(
            "topics differ from what the pipeline needs: " + "; ".join(differences) + ". Alter or rename them."
        )
    missing = [wanted for wanted in table if wanted.name not in existing]
    _create(client, missing, settings.replication)
    created = {wanted.name for wanted in missing}
    return [Applied(topic=w.name, partitions=w.partitions, created=w.name in created) for w in table]


def _differences(client: Any, wanted: Wanted, existing: Any) -> list[str]:
    if wanted.owner == "yours":
        return []  # partitions and retention of the user's topics are the user's
    found = []
    partitions = len(existing[wanted.name].partitions)
    if partitions != wanted.partitions:
        found.append(f"{wanted.name}: expected {wanted.partitions} partitions, has {partitions}")
    config = _config(client, wanted.name)
    found += [
        f"{wanted.name}: expected {key}={value}, has {config.get(key)}"
        for key, value in wanted.config.items()
        if key != "max.message.bytes" and config.get(key) != value
    ]
    if "max.message.bytes" in wanted.config and int(config["max.message.bytes"]) < int(
        wanted.config["max.message.bytes"]
    ):
        expected = wanted.config["max.message.bytes"]
        found.append(f"{wanted.name}: expected max.message.bytes>={expected}, has {config['max.message.bytes']}")
    return found


def _max_bytes(client: Any, topic: str) -> int:
    return int(_config(client, topic)["max.message.bytes"])


def _config(client: Any, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    (answer,) = client.describe_configs([resource], request_timeout=_SECONDS).values()
    return {name: entry.value for name, entry in answer.result(_SECONDS).items()}


def _create(client: Any, missing: Sequence[Wanted], replication: int) -> None:
    new = [NewTopic(w.name, w.partitions, replication, config=w.config) for w in missing]
    if not new:
        return
    for name, answer in client.create_topics(new, operation_timeout=_SECONDS).items():
        try:
            answer.result(_SECONDS)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":  # another `apply` beside this one
                raise BrokerUnavailable(f"topic {name}: {error.args[0].str()}") from error
    _await_visible(client, {wanted.name for wanted in missing})


def _await_visible(client: Any, names: set[str]) -> None:
    """A created topic is known to the broker's clients a moment later than to its creator."""
    deadline = monotonic() + _SECONDS
    while True:
        known = client.list_topics(timeout=_SECONDS).topics
        if all(name in known and _has_leaders(known[name]) for name in names):
            return
        if monotonic() > deadline:
            raise BrokerUnavailable(f"created topics have no leader after {_SECONDS:.0f} s: {sorted(names)}")
        sleep(_LOOK_SECONDS)


def _has_leaders(topic: Any) -> bool:
    return topic.error is None and all(partition.leader >= 0 for partition in topic.partitions.values())
