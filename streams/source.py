"""Kafka partitions → chunks → (an agent) → records on Kafka → committed offsets.

One thread owns consumer and producer. A chunk goes to an agent and carries a future; outcomes are produced in the
order in which chunks were taken; positions are committed after their records are acknowledged, never before (law 1).
"""

import threading
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future
from time import monotonic, time
from typing import Any, Generic, Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from headrace.models.errors import BrokerUnavailable
from headrace.models.facts import Acknowledged, Assigned, Observer, Revoked
from headrace.models.features import Topic
from headrace.streams.chunk import Chunk, Outcome, Stamp, TopicPartition
from headrace.streams.dead_letters import Message, Out
from headrace.streams.sink import Sink

_CHUNK_ROWS = 1_000  # beyond it, the fixed cost of a chunk is already under 1 % of its rows'
_CHUNKS_IN_FLIGHT = 2  # one with the agent, one ready behind it
_IDLE_SECONDS = 0.05  # how long an idle source waits for the first event before it looks around
_COMMIT_SECONDS = 0.2  # under load: at most so much is read again after a crash
_COMMIT_IDLE_SECONDS = 0.01  # with everything acknowledged, commit almost at once
_DRAIN_SECONDS = 20.0  # for chunks in flight when partitions are taken away or the worker stops
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
_NO_MENDING = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
    }
)


class Positions(Protocol):
    """Where positions live: the consumer group (`GroupOffsets`), or Redis beside the features."""

    def begin(self, consumer: Any, places: Sequence[Place]) -> Mapping[TopicPartition, int]:
        """The next offset of each newly owned partition; a first start is made durable at once."""

    def commit(
        self, consumer: Any, settled: "Sequence[tuple[Chunk[Any], Outcome]]", owned: Container[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Makes the positions after these chunks durable; gives those from which to read again instead, if any."""

    @property
    def pending(self) -> bool:
        """Whether a position still waits to become durable: call `commit` again, if only with nothing new."""


class Source(Generic[Stamp]):
    """`between` runs before each chunk with the next offset per owned partition and gives records to produce; `stamp`
    is fixed on a chunk when it is taken; `hand_over` gives it to an agent. All three run in the source's thread."""

    def __init__(
        self,
        name: str,
        *,
        consumer: Any,
        sink: Sink,
        topics: Sequence[Topic],
        positions: Positions,
        stamp: Callable[[], Stamp],
        hand_over: Callable[[Chunk[Stamp]], None],
        observer: Observer,
        between: Callable[[Mapping[TopicPartition, int]], Sequence[Out]] = lambda _positions: (),
        chunk_rows: int = _CHUNK_ROWS,
        max_poll_seconds: float = 300.0,
    ) -> None:
        self.name = name
        self.moved_at = monotonic()  # when a position last moved, seconds
        self._consumer, self._sink, self._positions = consumer, sink, positions
        self._topics = [topic.name for topic in topics]
        self._stamp, self._between, self._hand_over, self._observer = stamp, between, hand_over, observer
        self._chunk_rows, self._hold_seconds = chunk_rows, max_poll_seconds / 3
        self._owned: dict[TopicPartition, int] = {}  # the next offset to take
        self._durable: dict[TopicPartition, int] = {}  # the next offset to commit
        self._read_through: dict[TopicPartition, int] = {}  # the end that was reached, with transactions' markers
        self._in_flight: deque[Chunk[Stamp]] = deque()
        self._settled: list[tuple[Chunk[Stamp], Outcome]] = []  # produced, not yet committed
        self._committed_at = monotonic()
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
        """One round: take what is there; switch, between two chunks; give; produce what is ready; commit what is acked.

        Only after taking: a partition may have come with its first messages, and its history begins before them.
        """
        if len(self._in_flight) < _CHUNKS_IN_FLIGHT:
            messages = self._take()
            for record in self._between(self._owned):
                self._sink.produce(record)
            if messages:
                self._give(messages)
            elif self._in_flight:
                self._await_oldest(_IDLE_SECONDS)
        else:
            self._hold()
        self._produce_ready()
        self._commit_if_due()

    # ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> list[Message]:
        """What is there now. Only an idle source waits for the first message (`consume(n)` would wait for all n)."""
        wait = 0.0 if self._in_flight else 0.001 if self._settled else _IDLE_SECONDS
        batch = self._consumer.consume(1, timeout=wait)
        if batch:
            batch += self._consumer.consume(self._chunk_rows - 1, timeout=0)
        return [message for message in batch if self._is_ours(message)]

    def _is_ours(self, message: Any) -> bool:
        error: KafkaError | None = message.error()
        if error is None:  # a partition may have gone, or been sought, after the message was fetched
            return bool(message.offset() >= self._owned.get((message.topic(), message.partition()), 1 << 63))
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._read_through[message.topic(), message.partition()] = message.offset()
        elif error.fatal() or error.code() in _NO_MENDING:
            raise BrokerUnavailable(_explain(error, message))
        return False  # the broker is away: librdkafka goes on trying, and the watchdog knows when it is too long

    def _give(self, messages: list[Message]) -> None:
        partitions = {(message.topic() or "", message.partition() or 0) for message in messages}
        begins = {partition: self._owned[partition] for partition in partitions}
        chunk = Chunk(messages=messages, stamp=self._stamp(), begins=begins)
        self._owned.update(chunk.next_offsets())
        self._in_flight.append(chunk)
        self._hand_over(chunk)

    def _await_oldest(self, seconds: float) -> bool:
        try:
            self._in_flight[0].outcome.exception(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _hold(self) -> None:
        """Back-pressure: take no further chunk. Beyond a third of the poll interval: pause, keep polling so that the
        group keeps this member, then resume and seek (a bare resume stalls for 750 ms)."""
        if self._await_oldest(self._hold_seconds):
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
            for record in outcome.records:
                self._sink.produce(record)
            self._in_flight.popleft()
            self._settled.append((chunk, outcome))
            self.moved_at = monotonic()
            for fact in outcome.facts:
                self._observer(fact)

    def _commit_if_due(self) -> None:
        if not self._settled and not self._positions.pending:
            return
        since = monotonic() - self._committed_at
        soon = bool(self._settled) and since >= _COMMIT_IDLE_SECONDS
        if since >= _COMMIT_SECONDS or (soon and self._sink.acknowledged()):
            self._commit()

    def _commit(self) -> None:
        """(1) every record acknowledged, (2) positions made durable."""
        if not self._settled and not self._positions.pending:
            return
        self._sink.flush()
        again = self._positions.commit(self._consumer, self._settled, self._owned)
        self._committed_at = monotonic()
        if not self._positions.pending:
            self._durable = dict(self._owned)
            for chunk in reversed(self._in_flight):
                self._durable.update(chunk.begins)
            self.moved_at = self._committed_at
        if self._settled:
            self._observer(_acknowledged(self._settled))
            self._settled.clear()
        if again:
            self._drop_in_flight(again)

    def _drop_in_flight(self, again: Mapping[TopicPartition, int]) -> None:
        """Forgets chunks that are not produced yet, and goes back to where each of them began, or to `again`."""
        back: dict[TopicPartition, int] = {}
        for chunk in reversed(self._in_flight):
            back.update(chunk.begins)
        back.update(again)
        self._in_flight.clear()
        for partition, offset in back.items():
            if partition in self._owned:
                self._owned[partition] = self._durable[partition] = offset
                self._read_through.pop(partition, None)
                self._consumer.seek(Place(*partition, offset))

    # ── rebalances ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_assign(self, consumer: Any, places: list[Place]) -> None:
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
        self._drop_in_flight({})

    def _let_go(self, consumer: Any, places: list[Place], *, lost: bool) -> None:
        for place in places:
            for known in (self._owned, self._durable, self._read_through):
                known.pop((place.topic, place.partition), None)
        consumer.incremental_unassign(places)
        gone = tuple(place.partition for place in places)
        self._observer(Revoked(topic=self._topics[0], partitions=gone, lost=lost))

    def _drain(self) -> None:
        deadline = monotonic() + _DRAIN_SECONDS
        while self._in_flight and monotonic() < deadline:
            self._await_oldest(_IDLE_SECONDS)
            self._produce_ready()


class GroupOffsets:
    """Positions as offsets of the consumer group."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._starts = {topic.name: topic.start for topic in topics}
        self._waiting: dict[TopicPartition, int] = {}  # refused: the group was between two generations

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    def begin(self, consumer: Any, places: Sequence[Place]) -> Mapping[TopicPartition, int]:
        found = {}
        first = []
        for place in places:
            self._waiting.pop((place.topic, place.partition), None)  # of a former ownership
        for place in positions_of_group(consumer, places):
            if place.error is not None:  # an unknown position is not a missing one: "latest" would skip events
                raise BrokerUnavailable(f"{place.topic}/{place.partition}: no position, {place.error.str()}")
            if place.offset < 0:
                place.offset = first_offset(consumer, place, self._starts[place.topic])
                first.append(place)
            found[place.topic, place.partition] = place.offset
        if first and not _accepted(consumer, first):  # or a crash before the first commit starts at another "latest"
            self._waiting.update({(place.topic, place.partition): place.offset for place in first})
        return found

    def commit(
        self, consumer: Any, settled: Sequence[tuple[Chunk[Any], Outcome]], owned: Container[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        for chunk, _ in settled:
            self._waiting.update(chunk.next_offsets())
        self._waiting = {partition: offset for partition, offset in self._waiting.items() if partition in owned}
        offsets = [Place(*partition, offset) for partition, offset in self._waiting.items()]
        if not offsets or _accepted(consumer, offsets):
            self._waiting.clear()
        return {}


def positions_of_group(consumer: Any, places: Sequence[Place]) -> list[Any]:
    """What the group committed; a coordinator that moves is asked again."""
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


def _acknowledged(settled: Sequence[tuple[Chunk[Any], Outcome]]) -> Acknowledged:
    rows = sum(len(chunk.messages) for chunk, _ in settled)
    oldest = settled[0][0].messages[0]
    latency = max(0.0, time() - oldest.timestamp()[1] / 1000)
    return Acknowledged(topic=oldest.topic() or "", rows=rows, latency_seconds=latency)


def _explain(error: KafkaError, message: Any) -> str:
    where = f"{message.topic()}/{message.partition()}"
    if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        return (
            f"{where}: the next offset is gone, records were deleted before they were read ({error.str()}). "
            "Set the group's offset by hand to go on with a gap."
        )
    return f"{where}: {error.str()}. Is the topic there (`headrace apply`), and may this user read it?"
