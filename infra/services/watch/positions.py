"""the broker, asked once → how far each pipeline's topics and groups are: a few questions, however many pipelines."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from headrace.infra.kafka import admin
from headrace.infra.names import REGISTRY, Names
from headrace.infra.settings import Settings
from headrace.models.errors import BrokerUnavailable

_SECONDS = 10.0
_TOPICS_SECONDS = 30.0  # that a topic's partitions are taken to be as they were


@dataclass(frozen=True, kw_only=True)
class Positions:
    """One look. Topics are by their full names; one that is not there is left out."""

    at: float  # monotonic seconds
    ends: Mapping[str, int]  # records that were ever written, committed ones and markers, over all partitions
    partitions: Mapping[str, int]
    lag: Mapping[str, int | None]  # by pipeline: events that no worker has committed; None where the topic is not there
    answered: Mapping[str, Mapping[int, int]]  # by pipeline and partition: the event up to which workers have committed
    workers: Mapping[str, int]  # by pipeline: members of its workers' group
    leaders: Mapping[str, int]  # and of its leader's


class Looker:
    """Asks by one client. Used by one thread."""

    def __init__(self, settings: Settings, pipelines: Sequence[Names]) -> None:
        self._names, self._client = list(pipelines), admin(settings)
        self._partitions: dict[str, list[int]] = {}
        self._known_at = float("-inf")

    def look(self) -> Positions:
        """Raises BrokerUnavailable."""
        try:
            return self._look()
        except KafkaException as error:
            raise BrokerUnavailable(f"no answer about offsets and groups: {error.args[0].str()}") from error
        except TimeoutError as error:  # of a future, whose limit may pass before its request's
            raise BrokerUnavailable(f"no answer about offsets and groups within {_SECONDS:.0f} s") from error

    def _look(self) -> Positions:
        client: Any = self._client
        at = monotonic()
        if at - self._known_at > _TOPICS_SECONDS:
            there = client.list_topics(timeout=_SECONDS).topics
            wanted = {topic for names in self._names for topic in topics_of(names)}
            self._partitions = {topic: sorted(there[topic].partitions) for topic in wanted if topic in there}
            self._known_at = at
        places = [TopicPartition(topic, number) for topic, numbers in self._partitions.items() for number in numbers]
        asked = client.list_offsets(
            {place: OffsetSpec.latest() for place in places},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_SECONDS,
        )
        committed = self._committed(client)
        begin = self._begin(client, committed)
        members = self._members(client)
        ends = {(place.topic, place.partition): future.result(_SECONDS).offset for place, future in asked.items()}
        sums: dict[str, int] = {}
        for (topic, _), end in ends.items():
            sums[topic] = sums.get(topic, 0) + end
        return Positions(
            at=at,
            ends=sums,
            partitions={topic: len(numbers) for topic, numbers in self._partitions.items()},
            lag={
                names.pipeline.name: _lag(names.events, ends, committed[names.infer_group] | begin)
                for names in self._names
            },
            answered={
                names.pipeline.name: {
                    number: offset
                    for (topic, number), offset in committed[names.infer_group].items()
                    if topic == names.events and offset >= 0
                }
                for names in self._names
            },
            workers={names.pipeline.name: members[names.infer_group] for names in self._names},
            leaders={names.pipeline.name: members[names.leader_group] for names in self._names},
        )

    def _committed(self, client: Any) -> dict[str, dict[tuple[str, int], int]]:
        """The protocol asks one group at a time; the questions go out together."""
        groups = [names.infer_group for names in self._names]
        asked = [
            client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=_SECONDS)
            for group in groups
        ]
        found = {}
        for group, answer in zip(groups, asked, strict=True):
            places = _or_nothing(answer[group])
            found[group] = {(one.topic, one.partition): one.offset for one in places.topic_partitions} if places else {}
        return found

    def _begin(self, client: Any, committed: Mapping[str, Mapping[tuple[str, int], int]]) -> dict[tuple[str, int], int]:
        """Where a worker would begin that has never committed: the oldest event, unless the topic says otherwise."""
        places = [
            (names.events, number)
            for names in self._names
            if names.pipeline.events.start == "earliest"
            for number in self._partitions.get(names.events, ())
            if committed[names.infer_group].get((names.events, number), -1) < 0
        ]
        if not places:
            return {}
        asked = client.list_offsets(
            {TopicPartition(*place): OffsetSpec.earliest() for place in places}, request_timeout=_SECONDS
        )
        return {(place.topic, place.partition): future.result(_SECONDS).offset for place, future in asked.items()}

    def _members(self, client: Any) -> dict[str, int]:
        groups = [group for names in self._names for group in (names.infer_group, names.leader_group)]
        asked = client.describe_consumer_groups(groups, request_timeout=_SECONDS)
        found = {group: _or_nothing(future) for group, future in asked.items()}
        return {group: len(one.members) if one is not None else 0 for group, one in found.items()}


def topics_of(names: Names) -> Iterable[str]:
    """All that the flow of a pipeline passes through."""
    side = [names.of(topic.name) for topic in names.pipeline.side_topics]
    topics = names.topics
    own = (topics.predictions, topics.served, topics.dead_letters)
    return dict.fromkeys([names.events, names.labels, *side, *own, names.of(REGISTRY)])


def _lag(topic: str, ends: Mapping[tuple[str, int], int], committed: Mapping[tuple[str, int], int]) -> int | None:
    places = [place for place in ends if place[0] == topic]
    known = [max(0, ends[place] - committed[place]) for place in places if committed.get(place, -1) >= 0]
    return sum(known) if known else None


def _or_nothing(future: "Future[Any]") -> Any:
    """A group that is not there yet is nothing to speak of."""
    try:
        return future.result(_SECONDS)
    except KafkaException as error:
        if error.args[0].name() in ("GROUP_ID_NOT_FOUND", "INVALID_GROUP_ID"):
            return None
        raise
