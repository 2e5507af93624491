"""served + labels from Kafka → the live join: numbers for triggers, live metrics, and parked labels."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from headrace.infra.beside import Beside
from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, TopicReader, partitions_of
from headrace.models.aliases import CHAMPION
from headrace.models.errors import EventRejected
from headrace.models.facts import DeadLettered, Observer, PairMeasured, Watched
from headrace.models.losses import largest_loss
from headrace.models.manifest import Manifest
from headrace.models.protocols import Paired
from headrace.models.registry import Versions
from headrace.scheduler.decide import Live
from headrace.scheduler.guard import Pairing, moved_at
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.streams.dead_letters import dead_letters
from headrace.streams.drift_watch import DriftWatch
from headrace.streams.formats import Rejected
from headrace.streams.group_offsets import first_offset, positions_of_group
from headrace.streams.live_join import Joined, LiveJoin
from headrace.streams.live_loss import ServedLoss
from headrace.streams.live_scores import LiveScores
from headrace.streams.pairs import Pair
from headrace.streams.served import scores_of, served_rows
from headrace.streams.sink import AcknowledgedSink
from headrace.trainer.columns import as_numpy

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
        self.join = LiveJoin(pipeline.label, segments=pipeline.segments)
        self._scores = LiveScores(pipeline.name, pipeline.label, pipeline.segments)
        self._beside = Beside(settings, names, observer)
        self._pairs: dict[Pairing, Pair] = {}
        self._drift = DriftWatch()
        self._lost: ServedLoss | None = None
        self._serving = self._serves_since = 0  # version; Unix ms
        self._named: dict[int, int] = {}  # versions that are measured for their own sake; since when, Unix ms
        self._watched: tuple[int, list[Pairing], dict[int, int]] = (0, [], {})  # the first is the promotion's seq
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
        lost = None if self._lost is None else self._lost.numbers
        return Live(new_labels=self._new, drift_rows=self._drift.rows, drift=drift, loss=lost)

    def reset(self, since: int) -> None:
        self._new, self._since = 0, since
        self._drift.reset(since)

    def watch(self, versions: Versions, compared: Sequence[Pairing]) -> None:
        """By the registry as it is now. Rows that were read before are not scored again."""
        champion = versions.champion
        watched = (champion.seq if champion else 0, list(compared), _named(versions))
        if watched == self._watched:
            return
        serving = self._serving = champion.version if champion else 0
        self._serves_since = moved_at(champion) or 0 if champion else 0
        self._named = watched[2]
        wanted = {number for pairing in compared for number in (pairing.version, pairing.other)} | self._named.keys()
        self._beside.watch(versions, wanted | {serving})
        if watched[0] != self._watched[0]:
            manifest = self._manifest(serving)
            self._drift.watch(None if manifest is None else manifest.reference)
            metrics, rows = ({}, 0) if manifest is None else (manifest.metrics, manifest.holdout_rows)
            self._lost = ServedLoss(serving, self._task, metrics, rows)
        self._pairs = {pairing: self._pairs.get(pairing) or self._pair(pairing) for pairing in compared}
        self._scores.keep(wanted | {serving})
        self._observer(Watched(pipeline=self._names.pipeline.name, versions=tuple(sorted(wanted | {serving}))))
        self._watched = watched

    def measured(self) -> dict[Pairing, Paired]:
        return {pairing: pair.numbers for pairing, pair in self._pairs.items()}

    def close(self) -> None:
        with suppress(KafkaException):  # then some are looked at again
            self._commit()
        self._reader.close()
        self._group.close()
        self._beside.close()

    def _manifest(self, number: int) -> Manifest | None:
        version = self._beside.version(number)
        return None if version is None else version.manifest

    def _pair(self, pairing: Pairing) -> Pair:
        own, others = self._manifest(pairing.version), self._manifest(pairing.other)
        bounds = [largest_loss(self._task, {} if one is None else one.metrics) for one in (own, others)]
        # the larger one: a version that leaked has next to none of its own
        largest = max((bound for bound in bounds if isfinite(bound) and bound > 0), default=None)
        return Pair(
            pairing.version,
            pairing.other,
            task=self._task,
            largest=largest,
            reference=None if own is None else own.reference,
            other_reference=None if others is None else others.reference,
        )

    def _take(self, messages: Sequence[Any]) -> None:
        labels = []
        for message in messages:
            if message.topic() == self._names.labels:
                labels.append(message)
                continue
            with suppress(EventRejected):  # nobody but headrace writes there
                self._served(served_rows(message), message.timestamp()[1])
        if labels:
            kept, rows, rejected = self._decoder.decode([message.value() for message in labels], clock_ms())
            recent = [(labels[at], row) for at, row in zip(kept, rows, strict=True) if self._is_recent(labels[at])]
            known = [row for message, row in recent if message.timestamp()[1] <= self._since]
            news = [row for message, row in recent if message.timestamp()[1] > self._since]
            self._keep(self.join.labels(known), new=False)
            self._keep(self.join.labels(news))
            self._park(labels, rejected)

    def _served(self, batch: pa.RecordBatch, appended: int) -> None:
        classes = (scores_of(batch).shape[1:] or (0,))[0]
        if classes != len(self._names.pipeline.label.classes):
            return  # served under another declaration
        wanted = {number for one in self._pairs if appended >= one.since for number in (one.version, one.other)}
        if appended >= self._serves_since:  # older rows may be those that it was trained on
            wanted.add(self._serving)
        wanted |= {number for number, since in self._named.items() if appended >= since}
        scores = self._beside.scores(batch, wanted)
        self._drift.add(batch, appended, scores.get(self._serving))
        times = as_numpy(batch.column("event_time").cast(pa.int64()))
        for pairing, pair in self._pairs.items():
            if appended < pairing.since:
                continue
            pair.passed(times, appended - pairing.since)
            if {pairing.version, pairing.other} <= scores.keys():
                pair.scored(scores[pairing.version], scores[pairing.other])
        self._keep(self.join.served(batch, appended, scores))

    def _keep(self, joined: list[Joined], *, new: bool = True) -> None:
        if not joined:
            return
        self._scores.add(joined)
        if self._lost is not None:
            self._lost.add(joined)
        for pairing, pair in self._pairs.items():
            pair.labelled([row for row in joined if row.appended >= pairing.since])
        self._new += len(joined) if new else 0
        self._unreported += len(joined)
        if self._unreported >= _REPORT_ROWS:
            self._unreported = 0
            self._report()

    def _report(self) -> None:
        for fact in self._scores.facts(self.join):
            self._observer(fact)
        for pairing, paired in self.measured().items():
            if paired.rows:
                self._observer(
                    PairMeasured(
                        pipeline=self._names.pipeline.name,
                        why=pairing.why,
                        version=paired.version,
                        other=paired.other,
                        loss=paired.loss,
                        rows=paired.rows,
                        low=paired.low,
                        difference=paired.mean - paired.other_mean,
                        high=paired.high,
                    )
                )

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


def _named(versions: Versions) -> dict[int, int]:
    """What is measured beside the champion because somebody named it, from then on: rows before that may be those that
    it was trained on. And the baseline, which learns from none: what a model is worth is the distance from it."""
    found = {0: 0}
    for alias, number in versions.aliases.items():
        since = moved_at(versions.moves(alias)[-1]) if alias != CHAMPION else None
        if since is not None and number:
            found[number] = min(since, found.get(number, since))
    return found
