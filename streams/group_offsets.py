"""positions → offsets of the consumer group: committed after their records are acknowledged (at least once)."""

from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from headrace.models.errors import BrokerUnavailable
from headrace.models.features import Topic
from headrace.streams.chunk import Settled, TopicPartition

_BROKER_SECONDS = 30.0

_GROUP_MOVED_ON = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._NO_OFFSET,  # noqa: SLF001  the library's public name for it
    }
)
_COORDINATOR_MOVES = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError._WAIT_COORD,  # noqa: SLF001
    }
)


class GroupOffsets:
    """Positions as offsets of the consumer group."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._starts = {topic.name: topic.start for topic in topics}
        self.waiting: dict[TopicPartition, int] = {}  # refused: the group was between two generations

    @property
    def pending(self) -> bool:
        return bool(self.waiting)

    def begin(self, consumer: Any, places: Sequence[Place]) -> Mapping[TopicPartition, int]:
        found = {}
        first = []
        for place in places:
            self.waiting.pop((place.topic, place.partition), None)  # of a former ownership
        for place in positions_of_group(consumer, places):
            if place.error is not None:  # an unknown position is not a missing one: "latest" would skip events
                raise BrokerUnavailable(f"{place.topic}/{place.partition}: no position, {place.error.str()}")
            if place.offset < 0:
                place.offset = first_offset(consumer, place, self._starts[place.topic])
                first.append(place)
            found[place.topic, place.partition] = place.offset
        if first and not _accepted(consumer, first):  # or a crash before the first commit starts at another "latest"
            self.waiting.update({(place.topic, place.partition): place.offset for place in first})
        return found

    def commit(
        self, consumer: Any, settled: Sequence[Settled], owned: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        for chunk in settled:
            self.waiting.update(chunk.ends)
        self.waiting = {partition: offset for partition, offset in self.waiting.items() if partition in owned}
        offsets = [Place(*partition, offset) for partition, offset in self.waiting.items()]
        if not offsets or _accepted(consumer, offsets):
            self.waiting.clear()
        return {}

    def abandon(self, _consumer: Any, _owned: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """What was produced stays: whoever owns the partitions now produces it once more."""
        return {}


def positions_of_group(consumer: Any, places: Sequence[Place]) -> list[Any]:
    """What the group committed; a coordinator that moves is asked again."""
    if not places:
        return []
    deadline = monotonic() + _BROKER_SECONDS
    while True:
        try:
            return list(consumer.committed(list(places), timeout=_BROKER_SECONDS))
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR_MOVES or monotonic() > deadline:
                raise
        consumer.list_topics(places[0].topic, timeout=_BROKER_SECONDS)  # a round trip, in which it finds its way


def first_offset(consumer: Any, place: Place, start: str) -> int:
    """Where a partition without a position begins: its oldest record, or its end."""
    low, high = consumer.get_watermark_offsets(Place(place.topic, place.partition), timeout=_BROKER_SECONDS)
    return int(low if start == "earliest" else high)


def _accepted(consumer: Any, offsets: list[Place]) -> bool:
    """False while the group is between two generations, or has moved on without us. Then, whoever owns the partitions
    after all commits them, or reads these events again (at least once)."""
    try:
        consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() not in _GROUP_MOVED_ON | _COORDINATOR_MOVES:
            raise
        return False
    return True
