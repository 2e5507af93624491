"""records and positions → one Kafka transaction: consume, infer and produce exactly once (KIP-98, KIP-447).

A transaction holds the predictions, served rows, dead letters and history of some chunks and the offsets after them.
It is committed as a whole, or aborted as a whole and its events are read again. The group's metadata go with the
offsets, so the broker refuses a member that was expelled; the transactional id belongs to a slot, so a process that
starts in the place of a dead one aborts what that one left open.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from headrace.models.errors import BrokerUnavailable
from headrace.models.facts import Aborted, Observer
from headrace.streams.chunk import Settled, TopicPartition
from headrace.streams.group_offsets import GroupOffsets, positions_of_group
from headrace.streams.out import Out, Outs
from headrace.streams.sink import DeliveryReport, produce_all, undelivered

_CALL_SECONDS = 10.0  # of one request; those that may be asked again are, until the deadline
_DEADLINE_SECONDS = 30.0
FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}  # noqa: SLF001
)
_GROUP_MOVED_ON = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
)
_TAKEN_BACK = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001  by the abort itself
_INIT_SECONDS = 60.0  # an older process in this slot may have to be fenced first


class Transactions:
    """A source's sink and its positions in one. Used by one thread.

    `offsets` knows where a group begins. A fatal error (another process took this slot, or the broker ended a
    transaction that took too long) is raised: the process ends, and its successor begins where the last commit was.
    """

    def __init__(
        self, make_producer: Callable[[DeliveryReport], Any], offsets: GroupOffsets, observer: Observer
    ) -> None:
        self._failures: list[str] = []
        self._producer, self._offsets, self._observer = make_producer(self._on_delivery), offsets, observer
        self._at: dict[TopicPartition, int] = {}  # where the last committed transaction left each partition
        self._open = False
        self._broken: KafkaError | None = None  # why the open transaction can only be aborted
        try:
            again(lambda: self._producer.init_transactions(_INIT_SECONDS))
        except KafkaException as error:
            raise BrokerUnavailable(f"exactly once: no transactional producer, {error.args[0].str()}") from error

    # ── as the sink ──────────────────────────────────────────────────────────────────────────────────────────────────

    def produce(self, records: Out | Outs) -> None:
        self._begin()
        if self._broken is not None:
            return
        try:
            produce_all(self._producer, records)
        except KafkaException as error:  # the transaction has failed: `commit` takes all of it back
            self._broken = error.args[0]

    def acknowledged(self) -> bool:
        self._poll()
        return len(self._producer) == 0

    def hurry(self) -> None:
        """Nobody sees them before the commit, which hurries by itself."""

    def flush(self) -> None:
        """Left to the commit, which fails if a record was not delivered."""

    # ── as the positions ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> bool:
        return self._open or self._offsets.pending

    def begin(self, consumer: Any, places: Sequence[Place]) -> Mapping[TopicPartition, int]:
        found = self._offsets.begin(consumer, places)
        self._at.update(found)
        return found

    def commit(
        self, consumer: Any, settled: Sequence[Settled], owned: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """(1) the position of every owned partition into the transaction, with the group's metadata of this moment,
        (2) commit. Also with nothing settled: who is no longer the owner may not even say which version serves.
        """
        if not (self.pending or settled):
            return {}
        ends = {partition: self._at[partition] for partition in owned}
        for chunk in settled:
            ends.update(chunk.ends)
        offsets = [Place(*partition, offset) for partition, offset in ends.items()]
        self._begin()
        try:
            if self._broken is not None:
                raise KafkaException(self._broken)  # noqa: TRY301  as if the commit had said it
            if offsets:
                group = consumer.consumer_group_metadata()
                again(lambda: self._producer.send_offsets_to_transaction(offsets, group, _CALL_SECONDS))
            again(lambda: self._producer.commit_transaction(_CALL_SECONDS))
        except KafkaException as error:
            self._abort(error.args[0])
            return self._committed(consumer, owned)
        self._open = False
        self._at.update(ends)
        self._offsets.waiting.clear()
        return {}

    def abandon(self, consumer: Any, owned: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Nothing of a lost partition may be committed, and a transaction is of one piece."""
        if not self._open:
            return {}
        self._abort(None)
        return self._committed(consumer, owned)

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        if not self._open:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise BrokerUnavailable(_fatal(error.args[0])) from error
            self._open = True

    def _poll(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as error:  # a fatal one
            raise BrokerUnavailable(_fatal(error.args[0])) from error

    def _abort(self, error: KafkaError | None) -> None:
        """Raises what no abort can mend: to read again helps only where the group refused the positions."""
        if error is not None and error is not self._broken and not error.txn_requires_abort():
            raise BrokerUnavailable(_fatal(error))
        try:
            again(lambda: self._producer.abort_transaction(_CALL_SECONDS))
        except KafkaException as failed:
            raise BrokerUnavailable(_fatal(failed.args[0])) from failed
        self._observer(Aborted(reason="lost partitions" if error is None else error.str()))
        self._poll()
        if error is not None and error.code() not in _GROUP_MOVED_ON:
            self._broken = error  # for good: what was settled may not be committed without its records
            raise undelivered(self._failures) if self._failures else BrokerUnavailable(_fatal(error))
        self._open, self._broken = False, None

    def _committed(self, consumer: Any, owned: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where the group has the partitions; one of which it has nothing is where it began."""
        for place in positions_of_group(consumer, [Place(*partition) for partition in owned]):
            if place.error is not None:
                raise BrokerUnavailable(f"{place.topic}/{place.partition}: no position after an aborted transaction")
            if place.offset >= 0:
                self._at[place.topic, place.partition] = place.offset
        return {partition: self._at[partition] for partition in owned}

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() not in _TAKEN_BACK:
            self._failures.append(f"{message.topic()}: {error.str()}")


def again(call: Callable[[], None]) -> None:
    """The same call once more where the client says that it may be repeated."""
    deadline = monotonic() + _DEADLINE_SECONDS
    while True:
        try:
            call()
        except KafkaException as error:
            if not error.args[0].retriable() or monotonic() > deadline:
                raise
        else:
            return


def _fatal(error: KafkaError) -> str:
    if error.code() in FENCED:
        return (
            "exactly once: the broker refuses this worker's transactions. Either another process took its slot (give "
            "each worker of a pipeline a --slot of its own), or it stood still for longer than a transaction may take "
            "(15 s). The events since the last commit are read again."
        )
    return f"exactly once: {error.str()}. The events since the last commit are read again by the next process."
