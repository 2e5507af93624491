"""served + labels from Kafka → the live join: numbers for triggers, live metrics, and parked labels."""

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, TopicReader, partitions_of
from headrace.models.errors import EventRejected
from headrace.models.facts import DeadLettered, LiveMetric, Observer
from headrace.models.manifest import Reference
from headrace.models.metrics import measure
from headrace.scheduler.decide import Live
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.streams.dead_letters import dead_letters
from headrace.streams.drift_watch import DriftWatch
from headrace.streams.formats import Rejected
from headrace.streams.group_offsets import first_offset, positions_of_group
from headrace.streams.live_join import Joined, LiveJoin
from headrace.streams.served import decode_served
from headrace.streams.sink import AcknowledgedSink

_RECENT_ROWS = 10_000  # joined rows that a live metric looks back on
_REPORT_ROWS = 1_000  # newly joined rows between two reports
_COMMIT_LABELS = 10_000  # looked at between two commits: so many are looked at again after a crash
_SLACK_MS = 3_600_000  # read back a little further than the horizon: clocks differ


class LiveLabels:
    """One per pipeline, in the leader. `poll` now and then; `now` includes all that is on the topics at the call."""

    def __init__(self, settings: Settings, names: Names, observer: Observer) -> None:
        pipeline = names.pipeline
        self._names, self._observer, self._task = names, observer, pipeline.label.task
        self._decoder = LabelDecoder(pipeline.label, pipeline.max_future_ms)
        self._topics = [names.topics.served, names.labels]
        self._group = Consumer(consumer_config(settings, f"{pipeline.name}.labels"))  # only for "examined through"
        self._examined = self._examined_through(names.labels)
        self._not_committed = 0
        self._sink = AcknowledgedSink(lambda report: Producer(producer_config(settings, on_delivery=report)))
        self._horizon = self._begin(clock_ms() - pipeline.label.within_ms - _SLACK_MS)
        unseen = {place: min(at, self._horizon[place]) for place, at in self._examined.items()}
        self._reader = TopicReader(settings, self._topics, self._horizon | unseen)
        self.join = LiveJoin(pipeline.label)
        self._recent: deque[Joined] = deque(maxlen=_RECENT_ROWS)
        self._drift = DriftWatch()
        self._new = self._unreported = self._since = 0

    def poll(self, seconds: float = 0.0) -> None:
        self._take(self._reader.poll(seconds))

    def now(self) -> Live:
        """Since `reset`, after everything that is on both topics now."""
        ends = self._reader.ends()
        while any(self._reader.positions[partition] < end for partition, end in ends.items() if end > 0):
            before = dict(self._reader.positions)
            self.poll(0.2)
            if before == self._reader.positions and self._reader.caught_up:
                break  # what is left are markers of transactions
        drift = {distance.column: (distance.psi, distance.ks) for distance in self._drift.distances()}
        return Live(new_labels=self._new, drift_rows=self._drift.rows, drift=drift)

    def reset(self, since: int) -> None:
        self._new, self._since = 0, since
        self._drift.reset(since)

    def watch(self, reference: Reference | None) -> None:
        self._drift.watch(reference)

    def close(self) -> None:
        with suppress(KafkaException):  # then some are looked at again
            self._commit()
        self._reader.close()
        self._group.close()

    def _take(self, messages: Sequence[Any]) -> None:
        labels = []
        for message in messages:
            if message.topic() == self._names.labels:
                labels.append(message)
                continue
            try:
                batch = decode_served(message.value() or b"")
            except EventRejected:
                continue  # nobody but headrace writes there
            self._drift.add(batch, message.timestamp()[1])
            self._keep(self.join.served(batch))
        if labels:
            kept, rows, rejected = self._decoder.decode([message.value() for message in labels], clock_ms())
            recent = [(labels[at], row) for at, row in zip(kept, rows, strict=True) if self._is_recent(labels[at])]
            known = [row for message, row in recent if message.timestamp()[1] <= self._since]
            news = [row for message, row in recent if message.timestamp()[1] > self._since]
            self._keep(self.join.labels(known), new=False)
            self._keep(self.join.labels(news))
            self._park(labels, rejected)

    def _keep(self, joined: list[Joined], *, new: bool = True) -> None:
        self._recent.extend(joined)
        self._new += len(joined) if new else 0
        self._unreported += len(joined)
        if self._unreported >= _REPORT_ROWS:
            self._unreported = 0
            labels = np.array([row.label for row in self._recent])
            scores = np.array([row.score for row in self._recent])
            for metric, value in measure(self._task, labels, scores).items():
                name = self._names.pipeline.name
                self._observer(LiveMetric(pipeline=name, metric=metric, value=value, rows=len(labels)))

    def _park(self, labels: Sequence[Any], rejected: Sequence[Rejected]) -> None:
        """(1) dead letters acknowledged, (2) "examined through" moved: a label is parked once, also over a restart."""
        news = [(index, error) for index, error in rejected if self._is_new(labels[index])]
        if news:
            for record in dead_letters(self._names.topics.dead_letters, labels, news):
                self._sink.produce(record)
            self._sink.flush()
            reasons = Counter(error.reason for _, error in news)
            name = self._names.pipeline.name
            self._observer(DeadLettered(pipeline=name, topic=self._names.labels, reasons=reasons))
        for message in labels:
            place = message.topic(), message.partition()
            self._examined[place] = max(self._examined[place], message.offset() + 1)
        self._not_committed += len(labels)
        if news or self._not_committed >= _COMMIT_LABELS:
            self._commit()

    def _commit(self) -> None:
        places = [TopicPartition(*partition, offset) for partition, offset in self._examined.items()]
        if self._not_committed:
            self._group.commit(offsets=places, asynchronous=False)
        self._not_committed = 0

    def _is_new(self, message: Any) -> bool:
        return bool(message.offset() >= self._examined[message.topic(), message.partition()])

    def _is_recent(self, message: Any) -> bool:
        return bool(message.offset() >= self._horizon[message.topic(), message.partition()])

    def _examined_through(self, topic: str) -> dict[Partition, int]:
        """Where the first label is that nobody looked at."""
        start = self._names.pipeline.label.topic.start
        places = [TopicPartition(topic, number) for number in partitions_of(self._group, topic)]
        found = {}
        for place in positions_of_group(self._group, places):
            oldest = first_offset(self._group, place, start if place.offset < 0 else "earliest")
            found[place.topic, place.partition] = max(place.offset, oldest)
        return found

    def _begin(self, since_ms: int) -> dict[Partition, int]:
        """Where the horizon begins, by the records' own timestamps; served rows and labels alike."""
        asked = [
            TopicPartition(topic, number, max(0, since_ms))
            for topic in self._topics
            for number in partitions_of(self._group, topic)
        ]
        # first the ends: where nothing is as young, "at the end" would be resolved later, past what came meanwhile
        ends = {(p.topic, p.partition): first_offset(self._group, p, "latest") for p in asked}
        found = self._group.offsets_for_times(asked, timeout=30)
        return {
            (place.topic, place.partition): place.offset if place.offset >= 0 else ends[place.topic, place.partition]
            for place in found
        }
