"""Kafka partitions → chunks → (an agent) → records on Kafka → committed offsets.

One thread owns consumer and producer. A chunk goes to an agent and carries a future; outcomes are produced in the
order in which chunks were taken; positions are committed after their records are acknowledged, never before (law 1).
"""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Generic, Protocol

from confluent_kafka import OFFSET_END, KafkaError
from confluent_kafka import TopicPartition as Place

from headrace.models.errors import BrokerUnavailable
from headrace.models.facts import Acknowledged, Assigned, Observer, Revoked
from headrace.models.features import Topic
from headrace.streams.chunk import Chunk, Outcome, Part, Settled, Stamp, TopicPartition, next_offsets
from headrace.streams.out import Message, Out, Outs, each

_CHUNKS_IN_FLIGHT = 2  # one that the agent works on, one on its way to it
_FIRST_ROWS = 500  # nobody knows yet how fast the model is
_FEW_ROWS = 500  # a chunk of fewer is no backlog
_BUSY_SECONDS = 0.004  # events that come faster than this are waited for, inside of the client, ...
_GATHER_SECONDS = 0.001  # ... for so long: a chunk for each of them would fill a core at 2,000 a second
_PIECE_ROWS = 500  # taken at once: what a chunk may exceed its bytes by, if records suddenly grow
_IDLE_SECONDS = 0.05  # how long an idle source waits for the first event before it looks around
_DRAIN_SECONDS = 20.0  # for chunks in flight when partitions are taken away or the worker stops
_BROKER_SECONDS = 30.0

_NO_MENDING = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  the library's public name for it
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
    }
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken at once, and how long it may wait to become durable.

    A chunk is whatever is there, so it is small where events trickle and large where they queue. A chunk's fixed cost
    (an event loop wakes up) is half a millisecond: at 4,000 rows it is a few per cent of their own cost. More rows than
    that no longer fit the processor's caches.
    """

    chunk_rows: int = 4_000  # at most; a slow model's are fewer, so that a chunk takes about `chunk_seconds`
    chunk_seconds: float = 0.25
    chunk_bytes: int = 8 * 1024 * 1024  # of values; two chunks are in flight, and the client fetches ahead of them
    commit_seconds: float = 0.5  # under load: at most so much is read again after a crash, ...
    commit_rows: int = 20_000  # ... or this; what waits in the producer's queue is out of the processor's caches
    commit_idle_seconds: float = 0.01  # without a new event for so long, and all acknowledged: commit at once
    max_poll_seconds: float = 300.0  # the consumer's max.poll.interval.ms


class Sink(Protocol):
    """Where records go, in order. Used by one thread."""

    def produce(self, records: Out | Outs) -> None: ...

    def acknowledged(self) -> bool:
        """Whether nothing waits for the broker."""

    def hurry(self) -> None:
        """What waits for company in its batch goes out now."""

    def flush(self) -> None:
        """Returns when everything is acknowledged."""


class Positions(Protocol):
    """Where positions live: the consumer group, a transaction with the records, or Redis beside the features."""

    def begin(self, consumer: Any, places: Sequence[Place]) -> Mapping[TopicPartition, int]:
        """The next offset of each newly owned partition; a first start is made durable at once."""

    def commit(
        self, consumer: Any, settled: Sequence[Settled], owned: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Makes the positions after these chunks durable; gives those from which to read again instead, if any."""

    def abandon(self, consumer: Any, owned: Collection[TopicPartition], /) -> Mapping[TopicPartition, int]:
        """Partitions were lost, not given back; gives where to read the `owned` ones again, if they must be."""

    @property
    def pending(self) -> bool:
        """Whether a position still waits to become durable: call `commit` again, if only with nothing new."""


class Source(Generic[Stamp]):
    """`between` runs before each chunk with the next offset per owned partition and gives records to produce; `parts`
    makes chunks of what was taken, and fixes a stamp on each; `hand_over` gives it to an agent; `forget` hears of
    partitions that went, or that are read again because what was produced was taken back. All four run in the source's
    thread."""

    def __init__(
        self,
        name: str,
        *,
        consumer: Any,
        sink: Sink,
        topics: Sequence[Topic],
        positions: Positions,
        parts: Callable[[Sequence[Message]], Sequence[Part[Stamp]]],
        hand_over: Callable[[Chunk[Stamp]], None],
        observer: Observer,
        between: Callable[[Mapping[TopicPartition, int]], Sequence[Out]] = lambda _positions: (),
        forget: Callable[[Iterable[TopicPartition]], None] = lambda _partitions: None,
        work: Callable[[float], bool] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        """`work` does what the agent left to this thread, if anything comes within so many seconds."""
        self.name = name
        self.moved_at = monotonic()  # when a position last moved, seconds
        self._consumer, self._sink, self._positions, self._limits = consumer, sink, positions, limits
        self._topics = [topic.name for topic in topics]
        self._parts, self._between, self._hand_over, self._observer = parts, between, hand_over, observer
        self._forget, self._work = forget, work
        self._owned: dict[TopicPartition, int] = {}  # the next offset to take
        self._durable: dict[TopicPartition, int] = {}  # the next offset to commit
        self._read_through: dict[TopicPartition, int] = {}  # the end that was reached, with transactions' markers
        self._in_flight: deque[Chunk[Stamp]] = deque()
        self._rows = min(_FIRST_ROWS, limits.chunk_rows)  # of the next chunk, at most
        self._freed_at = monotonic()  # when the agent was last done with a chunk
        self._settled: list[Settled] = []  # produced, not yet committed
        self._seconds: defaultdict[str, float] = defaultdict(float)  # by stage, since the last commit
        self._committed_at = self._given_at = monotonic()
        self._stopping = threading.Event()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"source-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops taking, drains, flushes, commits, closes: in this order."""
        self._stopping.set()
        self._thread.join(_DRAIN_SECONDS + _BROKER_SECONDS)

    @property
    def ended(self) -> "Future[None]":
        """Done when the thread is; holds what killed it."""
        return self._ended

    @property
    def owned(self) -> Mapping[TopicPartition, int]:
        """The next offset to commit of each partition that this member owns. Readable from any thread.

        What is only taken is not behind us: a chunk that its agent never gives back counts as lag.
        """
        # where nothing is under way, only markers lie before the end that was reached
        idle = not (self._in_flight or self._settled or self._positions.pending)
        ends = dict(self._read_through) if idle else {}
        return {partition: max(at, ends.get(partition, 0)) for partition, at in dict(self._durable).items()}

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stopping.is_set():
                self._step()
            self._drain()
            self._commit()
            self._consumer.close()
        except BaseException as error:  # noqa: BLE001  the process's root reads it from `ended`
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def _step(self) -> None:
        """One round: commit, produce what is ready; take what is there; switch, between two chunks; give.

        Between only after taking: a partition may have come with its first messages, and its history begins before
        them. A commit comes after a chunk was worked on and before it is produced: meanwhile the broker has
        acknowledged the chunks before it, and there is nothing to wait for.
        """
        if len(self._in_flight) >= _CHUNKS_IN_FLIGHT:
            self._hold()
            self._commit_if_due()
            self._produce_ready()
        messages = self._take()
        for record in self._between(self._owned):
            self._sink.produce(record)
        if messages:
            for stamp, part, records in self._parts(messages):
                for record in records:
                    self._sink.produce(record)
                self._give(stamp, part)
        elif self._in_flight:
            self._await_oldest(_IDLE_SECONDS)
            self._commit_if_due()
            self._produce_ready()
        else:
            self._commit_if_due()

    # ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> list[Message]:
        """What is there now. Only an idle source waits for the first message (`consume(n)` would wait for all n)."""
        wait = 0.0 if self._in_flight else 0.001 if self._settled else _IDLE_SECONDS
        batch = piece = self._consumer.consume(1, timeout=wait)
        room, rows = self._limits.chunk_bytes - sum(map(len, piece)), self._rows
        busy = not self._in_flight and monotonic() - self._given_at < _BUSY_SECONDS
        gather = _GATHER_SECONDS if busy else 0.0
        while piece and room > 0 and (left := min(_PIECE_ROWS, rows - len(batch))) > 0:
            piece = self._consumer.consume(left, timeout=gather)
            gather = 0.0
            batch += piece
            room -= sum(map(len, piece))
        return batch if self._are_ours(batch) else [message for message in batch if self._is_ours(message)]

    def _are_ours(self, batch: list[Any]) -> bool:
        """Whether every one is, asked once per chunk: one partition's messages without an error, in their order."""
        if not batch or any(each("error", batch)) or len(set(each("partition", batch))) > 1 or len(self._topics) > 1:
            return False
        first = batch[0]
        return bool(first.offset() >= self._owned.get((first.topic(), first.partition()), 1 << 63))

    def _is_ours(self, message: Any) -> bool:
        error: KafkaError | None = message.error()
        if error is None:  # a partition may have gone, or been sought, after the message was fetched
            return bool(message.offset() >= self._owned.get((message.topic(), message.partition()), 1 << 63))
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._read_through[message.topic(), message.partition()] = message.offset()
        elif error.fatal() or error.code() in _NO_MENDING:
            raise BrokerUnavailable(_explain(error, message))
        return False  # the broker is away: librdkafka goes on trying, and the watchdog knows when it is too long

    def _give(self, stamp: Stamp, messages: Sequence[Message]) -> None:
        ends = next_offsets(messages, self._topics)
        begins = {partition: self._owned[partition] for partition in ends}
        chunk = Chunk(messages=messages, stamp=stamp, begins=begins, ends=ends)
        self._owned.update(ends)
        self._in_flight.append(chunk)
        self._given_at = chunk.taken_at
        self._hand_over(chunk)

    def _await_oldest(self, seconds: float) -> bool:
        outcome = self._in_flight[0].outcome
        if self._work is not None:
            return outcome.done() or (self._work(seconds) and outcome.done())
        try:
            outcome.exception(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _hold(self) -> None:
        """Back-pressure: take no further chunk. Beyond a third of the poll interval: pause, keep polling so that the
        group keeps this member, then resume and seek (a bare resume stalls for 750 ms)."""
        patience = monotonic() + self._limits.max_poll_seconds / 3
        while self._in_flight and not self._await_oldest(_IDLE_SECONDS):
            self._commit_if_due()
            if monotonic() > patience:
                break
        else:
            return
        self._consumer.pause([Place(*owned) for owned in self._owned])
        while not self._stopping.is_set() and self._in_flight and not self._await_oldest(_IDLE_SECONDS):
            self._consumer.poll(0)
        self._consumer.resume([Place(*owned) for owned in self._owned])
        for partition, offset in self._owned.items():
            self._consumer.seek(Place(*partition, offset))

    # ── producing and committing ─────────────────────────────────────────────────────────────────────────────────────

    def _produce_ready(self) -> None:
        while self._in_flight and self._in_flight[0].outcome.done():
            chunk = self._in_flight[0]
            outcome = chunk.outcome.result()  # an exception that is not a parked event ends the process
            begun = monotonic()
            self._adapt(len(chunk.messages), begun - max(chunk.taken_at, self._freed_at))
            self._freed_at = begun
            for records in outcome.records:
                self._sink.produce(records)
            self._in_flight.popleft()
            self._settled.append(_settled(chunk, outcome))
            self.moved_at = monotonic()
            if not self._in_flight and len(chunk.messages) < _FEW_ROWS:
                self._sink.hurry()  # nothing comes that could share a batch with it: not even 5 ms of linger
            self._seconds["produce"] += monotonic() - begun
            for fact in outcome.facts:
                self._observer(fact)

    def _adapt(self, rows: int, seconds: float) -> None:
        """Fewer rows where a chunk took too long; up to twice as many where a full one left time."""
        spare = self._limits.chunk_seconds / max(seconds, 1e-6)
        if spare < 1:
            self._rows = max(1, int(rows * spare))
        elif rows == self._rows:
            self._rows = min(int(rows * min(spare, 2)), self._limits.chunk_rows)

    def _commit_if_due(self) -> None:
        if not self._settled and not self._positions.pending:
            return
        now, limits = monotonic(), self._limits
        since = now - self._committed_at
        soon = bool(self._settled) and not self._in_flight and now - self._given_at >= limits.commit_idle_seconds
        many = sum(chunk.messages for chunk in self._settled) >= limits.commit_rows
        if since >= limits.commit_seconds or many or (soon and self._sink.acknowledged()):
            self._commit()

    def _commit(self) -> None:
        """(1) every record acknowledged, (2) positions made durable."""
        if not self._settled and not self._positions.pending:
            return
        again = self._made_durable()
        self._committed_at = monotonic()
        if not self._positions.pending:
            self._durable = dict(self._owned)
            for chunk in reversed(self._in_flight):
                self._durable.update(chunk.begins)
            self.moved_at = self._committed_at
        if self._settled and not again:
            self._observer(self._acknowledged())
        self._settled.clear()
        if again:
            self._drop_in_flight(again)

    def _made_durable(self) -> Mapping[TopicPartition, int]:
        begun = monotonic()
        self._sink.flush()
        flushed = monotonic()
        again = self._positions.commit(self._consumer, self._settled, self._owned)
        self._seconds["acknowledge"] += flushed - begun
        self._seconds["commit"] += monotonic() - flushed
        return again

    def _acknowledged(self) -> Acknowledged:
        seconds = dict(self._seconds)
        self._seconds.clear()
        latency = max(0.0, time() - self._settled[0].oldest_ms / 1000)
        rows = sum(chunk.messages for chunk in self._settled)
        return Acknowledged(agent=self.name, topic=self._topics[0], rows=rows, latency_seconds=latency, seconds=seconds)

    def _drop_in_flight(self, again: Mapping[TopicPartition, int]) -> None:
        """Forgets chunks that are not produced yet, and goes back to where each of them began, or to `again`."""
        back: dict[TopicPartition, int] = {}
        for chunk in reversed(self._in_flight):
            back.update(chunk.begins)
        back.update(again)
        self._forget(back)
        self._in_flight.clear()
        for partition, offset in back.items():
            if partition in self._owned:
                self._owned[partition] = self._durable[partition] = offset
                self._read_through.pop(partition, None)
                self._consumer.seek(Place(*partition, offset))

    # ── rebalances ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_assign(self, consumer: Any, places: list[Place]) -> None:
        if self._stopping.is_set():  # nothing is taken any more, and a closing consumer is answered nothing
            nowhere = [Place(place.topic, place.partition, OFFSET_END) for place in places]
            consumer.incremental_assign(nowhere)  # without an offset it would ask for one, and fail where there is none
            return
        self._commit()  # a dead owner's open transaction may hold up the answer, longer than ours may stay open
        begin = self._positions.begin(consumer, places)
        self._owned.update(begin)
        self._durable.update(begin)
        consumer.incremental_assign([Place(*partition, offset) for partition, offset in begin.items()])
        self._observer(Assigned(topic=self._topics[0], partitions=tuple(place.partition for place in places)))

    def _on_revoke(self, consumer: Any, places: list[Place]) -> None:
        """Still the owner: finish what is in flight, commit, then let go."""
        self._drain()
        self._commit()
        self._let_go(consumer, places, lost=False)
        self._drop_in_flight({})  # what outlived the deadline is read again: by the next owner, or from here

    def _on_lost(self, consumer: Any, places: list[Place]) -> None:
        """No longer the owner: what is in flight is somebody else's by now, neither produced nor committed."""
        self._let_go(consumer, places, lost=True)
        self._settled.clear()
        self._drop_in_flight(self._positions.abandon(consumer, self._owned))

    def _let_go(self, consumer: Any, places: list[Place], *, lost: bool) -> None:
        for place in places:
            for known in (self._owned, self._durable, self._read_through):
                known.pop((place.topic, place.partition), None)
        consumer.incremental_unassign(places)
        self._forget([(place.topic, place.partition) for place in places])
        gone = tuple(place.partition for place in places)
        self._observer(Revoked(topic=self._topics[0], partitions=gone, lost=lost))

    def _drain(self) -> None:
        deadline = monotonic() + _DRAIN_SECONDS
        while self._in_flight and monotonic() < deadline:
            self._await_oldest(_IDLE_SECONDS)
            self._produce_ready()
            self._commit_if_due()


def _settled(chunk: Chunk[Any], outcome: Outcome) -> Settled:
    oldest_ms = chunk.messages[0].timestamp()[1]
    return Settled(ends=chunk.ends, messages=len(chunk.messages), oldest_ms=oldest_ms, rows=outcome.rows)


def _explain(error: KafkaError, message: Any) -> str:
    where = f"{message.topic()}/{message.partition()}"
    if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        return (
            f"{where}: the next offset is gone, records were deleted before they were read ({error.str()}). "
            "Set the group's offset by hand to go on with a gap."
        )
    return f"{where}: {error.str()}. Is the topic there (`headrace apply`), and may this user read it?"
