"""`headrace apply`: the topics that a pipeline needs, created where missing, refused where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, OffsetSpec, ResourceType

from headrace.infra.kafka import admin
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS, Names
from headrace.infra.settings import Settings
from headrace.models.aliases import CHAMPION
from headrace.models.errors import BadInput, BrokerUnavailable
from headrace.models.pipeline import Pipeline

_KEEP = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_HEADER_ROOM = 64 * 1024  # bytes that a dead letter may be larger than its source
_AT_LEAST = frozenset({"max.message.bytes", "retention.ms", "retention.bytes"})  # -1 is without limit
_WEEK_MS = 7 * 86_400_000
_DEAD_LETTERS_MS = 30 * 86_400_000
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

    Served rows are what trainings read: they are kept for the window and the horizon, or for ever where the window has
    no end or there is an anchor. Registry, artifacts, runs and
    history are kept for ever, dead letters long enough to be looked at. Predictions follow the broker's default.
    """
    pipeline, topics = names.pipeline, names.topics
    reach_ms = pipeline.reach_ms
    served_ms = -1 if reach_ms is None else reach_ms + pipeline.label.within_ms + _WEEK_MS
    users = {topic.name: topic.partitions for topic in pipeline.inputs}
    users[pipeline.events.name] = partitions
    read_as_streams = {topic.name for topic in (*pipeline.side_topics, pipeline.label.topic, pipeline.events)}
    compacted = {topic.name for topic in pipeline.scored_topics} - read_as_streams
    larger = {"max.message.bytes": str(max_bytes + _HEADER_ROOM)}
    return [
        *[
            Wanted(
                name=names.of(n),
                partitions=p,
                config={"cleanup.policy": "compact"} if n in compacted else {},
                owner="yours",
            )
            for n, p in users.items()
        ],
        Wanted(  # it carries the event's headers and id
            name=topics.predictions,
            partitions=partitions,
            config={"cleanup.policy": "delete"} | larger,
            owner="headrace's",
        ),
        Wanted(
            name=topics.served,
            partitions=partitions,
            config={"cleanup.policy": "delete", "retention.ms": str(served_ms)} | larger,
            owner="headrace's",
        ),
        Wanted(
            name=topics.dead_letters,
            partitions=partitions,
            config={"cleanup.policy": "delete", "retention.ms": str(_DEAD_LETTERS_MS)} | larger,
            owner="headrace's",
        ),
        Wanted(name=topics.history, partitions=1, config=_KEEP, owner="headrace's"),
        *[
            Wanted(name=names.of(name), partitions=1, config=_KEEP, owner="headrace's")
            for name in (REGISTRY, ARTIFACTS, RUNS)
        ],
    ]


def apply(
    settings: Settings, pipeline: Pipeline, partitions: int | None = None, *, alias: str = CHAMPION
) -> list[Applied]:
    """Creates what is missing; idempotent. Raises BadInput with every difference of what is already there."""
    client = admin(settings)
    table, missing, wrong = _compared(client, Names(settings.prefix, pipeline, alias), partitions)
    if wrong:
        raise BadInput("topics differ from what the pipeline needs: " + "; ".join(wrong) + ". Alter or rename them.")
    _create(client, missing, settings.replication)
    created = {wanted.name for wanted in missing}
    return [Applied(topic=w.name, partitions=w.partitions, created=w.name in created) for w in table]


def topic_id(settings: Settings, topic: str) -> str:
    """The broker's own name for it: another one when the topic is deleted and made again. Raises BrokerUnavailable."""
    client: Any = admin(settings)
    try:
        answer = client.describe_topics(TopicCollection([topic]), request_timeout=_SECONDS)[topic]
        return str(answer.result(_SECONDS).topic_id)
    except KafkaException as error:
        raise BrokerUnavailable(f"topic {topic}: {error.args[0].str()}") from error
    except TimeoutError as error:  # of the future, whose limit may pass before its request's
        raise BrokerUnavailable(f"topic {topic}: no answer within {_SECONDS:.0f} s") from error


def differences(settings: Settings, names: Names) -> list[str]:
    """What `apply` would create or refuse, one sentence each; nothing is changed."""
    _, missing, wrong = _compared(admin(settings), names, None)
    return [*wrong, *[f"{wanted.name}: is not there" for wanted in missing]]


def _compared(client: Any, names: Names, partitions: int | None) -> tuple[list[Wanted], list[Wanted], list[str]]:
    """The table, what of it is missing, and how the rest differs."""
    try:
        existing = client.list_topics(timeout=_SECONDS).topics
    except KafkaException as error:
        raise BrokerUnavailable(f"no answer from the broker: {error.args[0].str()}") from error
    there = existing.get(names.events)
    count = len(there.partitions) if there is not None else partitions or names.pipeline.events.partitions
    pipeline = names.pipeline
    sources = {names.of(topic.name) for topic in pipeline.inputs}
    max_bytes = max([_max_bytes(client, topic) for topic in sources & existing.keys()], default=_DEFAULT_MAX)
    table = wanted_topics(names, count, max_bytes)
    wrong = [line for wanted in table if wanted.name in existing for line in _differences(client, wanted, existing)]
    if partitions is not None and partitions != count:
        wrong.append(f"{names.events}: has {count} partitions, asked for {partitions}")
    return table, [wanted for wanted in table if wanted.name not in existing], wrong


def _differences(client: Any, wanted: Wanted, existing: Any) -> list[str]:
    if wanted.owner == "yours":
        return []  # partitions and retention of the user's topics are the user's
    found = []
    partitions = len(existing[wanted.name].partitions)
    if partitions != wanted.partitions:
        found.append(f"{wanted.name}: expected {wanted.partitions} partitions, has {partitions}")
    config = _config(client, wanted.name)
    for key, value in wanted.config.items():
        if not _suffices(key, value, config.get(key, "")):
            least = " or more" if key in _AT_LEAST else ""
            found.append(f"{wanted.name}: expected {key}={value}{least}, has {config.get(key)}")
    return found


def _suffices(key: str, wanted: str, there: str) -> bool:
    if key not in _AT_LEAST or there == wanted:
        return there == wanted
    return there == "-1" or (wanted != "-1" and int(there) >= int(wanted))


def _max_bytes(client: Any, topic: str) -> int:
    return int(_config(client, topic)["max.message.bytes"])


def config_of(settings: Settings, topic: str) -> dict[str, str]:
    """What the broker says of a topic. Raises BrokerUnavailable."""
    client = admin(settings)
    try:
        return _config(client, topic)
    except KafkaException as error:
        raise BrokerUnavailable(f"topic {topic}: no configuration, {error.args[0].str()}") from error


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
    await_visible(client, {wanted.name for wanted in missing})


def await_visible(client: Any, names: set[str]) -> None:
    """A created topic is known to clients a moment later than to its creator, and served a moment after that."""
    deadline = monotonic() + _SECONDS
    while True:
        known = client.list_topics(timeout=_SECONDS).topics
        if all(name in known and _has_leaders(known[name]) for name in names) and _served(
            client, [TopicPartition(name, number) for name in names for number in known[name].partitions]
        ):
            return
        if monotonic() > deadline:
            raise BrokerUnavailable(f"created topics have no leader after {_SECONDS:.0f} s: {sorted(names)}")
        sleep(_LOOK_SECONDS)


def _has_leaders(topic: Any) -> bool:
    return topic.error is None and all(partition.leader >= 0 for partition in topic.partitions.values())


def _served(client: Any, partitions: list[TopicPartition]) -> bool:
    """Whether each answers what its end is: a leader by the metadata may not know yet that it leads."""
    answers = client.list_offsets(dict.fromkeys(partitions, OffsetSpec.latest()), request_timeout=_SECONDS)
    try:
        for answer in answers.values():
            answer.result(_SECONDS)
    except KafkaException:  # leader, epoch and log become known one after the other; the caller has a deadline
        return False
    return True
