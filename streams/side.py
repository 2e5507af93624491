"""chunk of side rows → rings in the feature store; the position moves with them, in the same step."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TopicPartition as Place

from headrace.models.facts import DeadLettered, SideRowsApplied
from headrace.models.pipeline import Pipeline
from headrace.streams.chunk import Chunk, Outcome, Settled, TopicPartition
from headrace.streams.codec import clock_ms
from headrace.streams.dead_letters import dead_letters
from headrace.streams.group_offsets import first_offset
from headrace.streams.out import Out
from headrace.streams.rings import FeatureStore, rings_of
from headrace.streams.side_rows import SideChunk, SideDecoder


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What a chunk holds of one partition."""

    partition: TopicPartition
    begin: int
    end: int
    rows: SideChunk


class SideRows:
    """The features agent's handler, and its positions."""

    def __init__(self, pipeline: Pipeline, dead_letter_topic: str, store: FeatureStore, prefix: str) -> None:
        self._name, self._dead_letters, self._store = pipeline.name, dead_letter_topic, store
        by_topic: dict[str, list[Any]] = {}
        for ring in rings_of(pipeline.stored):
            by_topic.setdefault(prefix + ring.topic, []).append(ring)
        formats = {prefix + topic.name: topic.format for topic in pipeline.side_topics}
        self._decoders = {
            topic: SideDecoder(rings, pipeline.max_future_ms, formats[topic]) for topic, rings in by_topic.items()
        }
        self._starts = {prefix + topic.name: topic.start for topic in pipeline.side_topics}

    @property
    def pending(self) -> bool:
        return False

    def handle(self, chunk: Chunk[None]) -> Outcome:
        """Decodes; the rows are appended when their dead letters are acknowledged (`commit`)."""
        parts: list[_Part] = []
        records: list[Out] = []
        facts: list[object] = []
        for partition, begin in chunk.begins.items():
            messages = [m for m in chunk.messages if (m.topic(), m.partition()) == partition]
            rows = self._decoders[partition[0]].decode([message.value() for message in messages], clock_ms())
            parts.append(_Part(partition=partition, begin=begin, end=(messages[-1].offset() or 0) + 1, rows=rows))
            records += dead_letters(self._dead_letters, messages, rows.rejected)
            if rows.rejected:
                reasons = Counter(error.reason for _, error in rows.rejected)
                facts.append(DeadLettered(pipeline=self._name, topic=partition[0], reasons=reasons))
            facts.append(SideRowsApplied(topic=partition[0], rows=rows.accepted))
        return Outcome(records=records, facts=facts, rows=parts)

    def begin(self, consumer: Any, places: Sequence[Place]) -> Mapping[TopicPartition, int]:
        """Where the store says; a partition that it does not know begins anew, and the store is told so at once."""
        found = {}
        for place in places:
            position = self._store.positions(place.topic).get(place.partition)
            if position is None:
                position = first_offset(consumer, place, self._starts[place.topic])
                begun = self._store.append(
                    place.topic, place.partition, expected=None, next_position=position, rows={}, newest=None
                )
                position = position if begun.position is None else begun.position
            found[place.topic, place.partition] = position
        return found

    def commit(
        self, consumer: Any, settled: Sequence[Settled], owned: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Appends what continues the stored position; another owner's progress, or a lost store, is where to go on."""
        again: dict[TopicPartition, int] = {}
        for chunk in settled:
            for part in chunk.rows:  # type: ignore[attr-defined]  # `handle` put them there
                if part.partition in again or part.partition not in owned:
                    continue
                rows = part.rows
                done = self._store.append(
                    *part.partition, expected=part.begin, next_position=part.end, rows=rows.rows, newest=rows.newest
                )
                if not done.applied:
                    again.update(self._rebuilt(consumer, part.partition, done.position))
        return again

    def abandon(self, _consumer: Any, _owned: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The store knows how far it is; its next owner asks it."""
        return {}

    def _rebuilt(self, consumer: Any, partition: TopicPartition, position: int | None) -> Mapping[TopicPartition, int]:
        return {partition: position} if position is not None else self.begin(consumer, [Place(*partition)])
