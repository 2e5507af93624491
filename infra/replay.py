"""past rows → topics, slice by slice of event time: the replay owns event time, so the result does not depend on speed.

A slice ends at the next tick or after `longest`. In each: (1) side rows, wait until applied; (2) events, wait until
committed; (3) labels; (4) at a tick, ask the leader, and wait for the run and for every partition's swap. One-hour and
one-day slices, one and three workers give identical features and scores. `backfill` and the demo are this code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from headrace.infra.feature_store import RedisFeatureStore
from headrace.infra.history import decoded
from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.names import RUNS, Names
from headrace.infra.rows import EventStream
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader, partitions_of
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused, Stalled
from headrace.models.records import Finished, Promoted, Requested, RunRecord
from headrace.models.registry import decode
from headrace.scheduler.combined import only_scheduled
from headrace.scheduler.leader import new_run_id
from headrace.scheduler.next_ticks import slice_ends
from headrace.streams.rings import FeatureStore

_POLL_SECONDS = 0.002
_WAIT_SECONDS = 300.0  # for one step of a slice: beyond it somebody is stuck


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What one slice did."""

    start: int  # Unix ms
    end: int
    events: int
    finished: Finished | None  # the run at its end, if it ended at a tick


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is replayed, by role; each sorted by event time."""

    events: EventStream
    labels: EventStream | None
    side: Sequence[EventStream]

    @property
    def start(self) -> int:
        return min(int(stream.times[0]) for stream in self._all() if len(stream.times))

    @property
    def end(self) -> int:
        """Just after the last of them."""
        return 1 + max(int(stream.times[-1]) for stream in self._all() if len(stream.times))

    def _all(self) -> list[EventStream]:
        return [self.events, *([self.labels] if self.labels else []), *self.side]


class Replay:
    """`alive` is called while it waits, and raises when a process that it waits for has died for good."""

    def __init__(
        self, settings: Settings, names: Names, store: FeatureStore | None, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._names, self._store, self._alive = names, store, alive
        self._ends: dict[str, dict[int, int]] = {}  # of each topic, behind the last row of ours by partition
        self._failed: list[str] = []
        options = {"linger_ms": 1, "delivery_report_only_error": False, "on_delivery": self._delivered}
        self._producer = Producer(producer_config(settings, **options))
        self._group = Consumer(consumer_config(settings, f"{names.pipeline.name}.infer"))  # asks, never joins
        self._runs = TopicReader(settings, [names.of(RUNS)])
        self._registry = KafkaRegistry(settings)
        self._registry.catch_up()  # what was promoted before us, nobody waits for
        self._promoted = 0  # seq of the newest promotion since
        self._history = TopicReader(settings, [names.topics.history])
        self._switched: dict[int, int] = {}  # events partition → seq of its newest switch
        self._cursors: dict[str, int] = {}

    def run(self, rows: Rows, *, longest_ms: int, start: int | None = None, end: int | None = None) -> Iterator[Slice]:
        """Yields after each slice."""
        pipeline = self._names.pipeline
        self._check_lateness(longest_ms)
        at = rows.start if start is None else start
        last = rows.end if end is None else end
        # what live labels lead to happens at the end of a slice, and before the next one
        guarded = pipeline.rollback is not None or pipeline.shadow is not None
        asks_always = guarded or not only_scheduled(pipeline.retrain)
        for until, is_tick in slice_ends(pipeline.retrain, at, last, longest_ms):
            for stream in rows.side:
                self._produce(stream, until)
            self._await_applied([stream.topic for stream in rows.side])
            count = self._produce(rows.events, until)
            self._await_committed()
            if rows.labels is not None:
                self._produce(rows.labels, until)
            finished = self._tick(until) if is_tick or asks_always else None
            yield Slice(start=at, end=until, events=count, finished=finished)
            at = until

    def close(self) -> None:
        self._producer.close()
        self._group.close()
        self._runs.close()
        self._registry.close()
        self._history.close()

    def _check_lateness(self, longest_ms: int) -> None:
        """Side rows run ahead of the events by a slice: it may be no longer than what the rings keep for that."""
        for feature in self._names.pipeline.stored:
            if feature.lateness_ms < longest_ms:
                raise BadInput(f"slices of {longest_ms} ms are longer than lateness={feature.lateness!r} of {feature}")

    def _produce(self, stream: EventStream, until: int) -> int:
        """Rows with start ≤ time < until, acknowledged."""
        topic, first = self._names.of(stream.topic), self._cursors.get(stream.topic, 0)
        end = int(np.searchsorted(stream.times, until, "left"))
        for key, value in zip(stream.keys[first:end], stream.values[first:end], strict=True):
            while True:
                try:
                    self._producer.produce(topic, value, key)
                except BufferError:
                    self._producer.poll(0.01)
                else:
                    break
        if self._producer.flush(_WAIT_SECONDS) or self._failed:
            why = f" ({self._failed[0]})" if self._failed else ""
            raise Stalled(f"{topic}: the broker did not acknowledge the replayed rows{why}")
        self._cursors[stream.topic] = end
        return max(0, end - first)

    def _await_applied(self, topics: Sequence[str]) -> None:
        store = self._store
        if store is None:
            return
        for topic in [self._names.of(topic) for topic in topics]:
            ends = dict(self._ends.get(topic, {}))
            self._wait(
                f"side rows of {topic} to be applied to the feature store",
                lambda topic=topic, ends=ends: _reached(store.positions(topic), ends),  # type: ignore[misc]
            )

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        """Our rows alone are waited for: at a topic's end there may be another's transaction, whose marker nobody who
        reads ever gets past."""
        if error is not None:
            self._failed.append(error.str())
        else:
            self._ends.setdefault(message.topic(), {})[message.partition()] = message.offset() + 1

    def _await_committed(self) -> None:
        ends = dict(self._ends.get(self._names.events, {}))
        if not ends:
            return
        places = [TopicPartition(self._names.events, number) for number in ends]

        def committed() -> bool:
            found = self._group.committed(places, timeout=30)
            return _reached({place.partition: place.offset for place in found}, ends)

        self._wait(f"events of {self._names.events} to be predicted and committed", committed)

    def _tick(self, at: int) -> Finished:
        request = Requested(run=new_run_id(at), pipeline=self._names.pipeline.name, at=at, by="replay")
        self._producer.produce(self._names.of(RUNS), msgspec.json.encode(request), request.pipeline.encode())
        self._producer.flush(_WAIT_SECONDS)
        answer: list[Finished] = []

        def finished() -> bool:
            for message in self._runs.poll(0.05):
                with suppress(msgspec.DecodeError, ValueError):  # somebody else's says nothing to us
                    record = msgspec.json.decode(message.value() or b"", type=RunRecord)
                    if isinstance(record, Finished) and record.run == request.run:
                        answer.append(record)
            return bool(answer)

        self._wait(f"the leader to end the run of {iso(at)}", finished)
        if answer[0].outcome == "promoted":  # its record in the registry may be seen a moment later
            self._promoted = max(self._promoted, answer[0].seq)
        self._await_swapped()
        return answer[0]

    def _await_swapped(self) -> None:
        """Until every events partition's owner has recorded a switch to the newest promotion: of the run, or a rollback
        that its labels led to."""
        for value in self._registry.catch_up():
            with suppress(RegistryRefused):
                record = decode(value)
                if isinstance(record, Promoted) and record.pipeline == self._names.pipeline.name:
                    self._promoted = record.seq
        seq = self._promoted
        if not seq:
            return
        partitions = partitions_of(self._group, self._names.events)

        def swapped() -> bool:
            for message in self._history.poll(0.01):
                if (record := decoded(message.value())) is not None:
                    self._switched[record.partition] = max(record.seq, self._switched.get(record.partition, 0))
            return all(self._switched.get(number, 0) >= seq for number in partitions)

        self._wait(f"every worker to swap to promotion {seq}", swapped)

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = monotonic() + _WAIT_SECONDS
        while not done():
            self._alive()
            if monotonic() > deadline:
                raise Stalled(f"waited {_WAIT_SECONDS:.0f} s for {what}; see the logs of workers and scheduler")
            sleep(_POLL_SECONDS)


def _reached(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(positions.get(partition, 0) >= end for partition, end in ends.items())


def feature_store(settings: Settings, names: Names) -> RedisFeatureStore | None:
    """Where the pipeline's rings are, if it has any."""
    if not names.pipeline.stored or settings.redis_url is None:
        return None
    return RedisFeatureStore(settings.redis_url, names.store_namespace)
