"""dead letters → one transaction: their records on the topics that they came from, and marks behind the letters."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.infra.kafka import transactional_config
from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letters import Letter, place_of
from headrace.infra.services.dead_letters.redrive_limits import Limits, redriven_headers, topics_read
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.models.errors import BadInput, BrokerUnavailable, HeadraceError
from headrace.models.records import BY_HEADER, REDRIVEN_HEADER, REDRIVEN_TO_HEADER, WHY_HEADER
from headrace.streams.transactions import FENCED, again

_INIT_SECONDS = 60.0  # an older one may have to be fenced first
_CALL_SECONDS = 30.0
_BATCH_BYTES = 1_000_000  # of a request; librdkafka's own
_WHO_BYTES = 1_000  # so much of who and why: the topic allows 64 KB
_TAKEN_BACK = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001  together with another


@dataclass(frozen=True, kw_only=True)
class Going:
    letter: Letter
    letters: Sequence[tuple[int, int]]  # all of its record, by partition and offset: each gets a mark


class RedriveWriter:
    """Whoever starts one of a pipeline fences the others. Used by one thread.

    Raises BadInput where it is fenced itself, and BrokerUnavailable.
    """

    def __init__(self, settings: Settings, names: Names, *, by: str, why: str) -> None:
        self._topic, self._pipeline = names.topics.dead_letters, names.pipeline.name
        self._who = [(BY_HEADER, by.encode()[:_WHO_BYTES]), (WHY_HEADER, why.encode()[:_WHO_BYTES])]
        self._partitions: dict[str, frozenset[int]] = {}  # of the topics that were needed
        self.topics = Counter[str]()  # records that are back, by topic
        self.refused = Counter[str]()  # those that their topic does not take, by why
        self._limits = Limits(settings, topics_read(names))
        self._is_broken = False
        # records that are taken one by one have to be so together, too
        options = {"delivery_report_only_error": False, "batch_size": min(_BATCH_BYTES, self._limits.smallest)}
        self._producer: Any = Producer(transactional_config(settings, names.redrive, **options))
        try:
            again(lambda: self._producer.init_transactions(_INIT_SECONDS))
        except KafkaException as error:
            raise self._explained(error.args[0]) from error

    def close(self) -> None:
        if not self._is_broken:  # one that was fenced cannot even say goodbye, and warns of it
            with suppress(KafkaException):
                self._producer.close()

    def write(self, batch: Sequence[Going]) -> None:
        """As one transaction. What its topic would not take is left out before: a client that was refused a record goes
        on with a gap in its sequence numbers."""
        refusals = [self._limits.refusal(_topic(one.letter), one.letter) for one in batch]
        self.refused.update(filter(None, refusals))
        going = [one for one, refusal in zip(batch, refusals, strict=True) if not refusal]
        if not going:
            return
        try:
            self._commit(going)
        except (KafkaException, BufferError, SystemError) as failed:
            self._is_broken = True
            errors = [_error(failed)]
            try:
                again(lambda: self._producer.abort_transaction(_CALL_SECONDS))
            except KafkaException as also:
                errors.append(also.args[0])
            # what a fatal error caused may be heard before it
            raise self._explained(next((one for one in errors if one.code() in FENCED), errors[0])) from failed
        self.topics.update(_topic(one.letter) for one in going)

    def _commit(self, batch: Sequence[Going]) -> None:
        """(1) records, acknowledged: now it is known where they are, (2) marks that say so, (3) both seen at once."""
        now_at: dict[str, str] = {}
        failed: list[KafkaError] = []

        def delivered(letter: str, error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failed.append(error)
            else:
                now_at[letter] = place_of(message)

        self._producer.begin_transaction()
        for one in batch:
            self._put_back(one.letter, partial(delivered, one.letter.place))
        self._producer.flush(_CALL_SECONDS)
        if failed:
            raise KafkaException(next((one for one in failed if one.code() not in _TAKEN_BACK), failed[0]))
        for one in batch:
            self._mark(one, now_at[one.letter.place])
        again(lambda: self._producer.commit_transaction(_CALL_SECONDS))

    def _put_back(self, letter: Letter, delivered: Callable[[KafkaError | None, Any], None]) -> None:
        """Into the partition that it came from: its key's other records are there, whichever partitioner put them."""
        topic, number, _ = letter.source.rsplit("/", 2)
        if topic not in self._partitions:
            self._partitions[topic] = frozenset(partitions_of(self._producer, topic))
        self._producer.produce(
            topic,
            letter.value,
            letter.key,
            int(number) if int(number) in self._partitions[topic] else -1,
            on_delivery=delivered,
            headers=redriven_headers(letter),
        )

    def _mark(self, one: Going, now_at: str) -> None:
        """Behind the letter in its partition, so that retention takes the letter first."""
        for partition, offset in one.letters:
            place = f"{self._topic}/{partition}/{offset}"
            said = [(REDRIVEN_HEADER, place.encode()), (REDRIVEN_TO_HEADER, now_at.encode())]
            self._producer.produce(self._topic, None, one.letter.key, partition, headers=[*said, *self._who])

    def _explained(self, error: KafkaError) -> HeadraceError:
        done = f"{self.topics.total():,} records went before it. Try again: no record goes twice."
        if error.code() in FENCED:
            return BadInput(
                f"somebody else began to redrive dead letters of {self._pipeline}, or this process stood still for"
                f" longer than a transaction may take (15 s). {done}"
            )
        return BrokerUnavailable(f"redrive: {error.str()}. {done}")


def _topic(letter: Letter) -> str:
    return letter.source.rsplit("/", 2)[0]


def _error(failed: KafkaException | BufferError | SystemError) -> KafkaError:
    if isinstance(failed, BufferError):  # larger than all that the client may queue (queue.buffering.max.kbytes)
        return KafkaError(KafkaError._QUEUE_FULL)  # noqa: SLF001  the library's public name for it
    # a fatal error that comes out of a delivery report is wrapped by the interpreter
    cause = failed.__cause__ if isinstance(failed, SystemError) else failed
    if not isinstance(cause, KafkaException):
        raise failed
    error: KafkaError = cause.args[0]
    return error
