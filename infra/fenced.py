"""records + the group's offsets → one transaction: the broker refuses it to a member that has lost the group."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from headrace.models.errors import RunFailed
from headrace.scheduler.ledger import LeadershipLost

CALL_SECONDS = 30.0
_NEVER_TAKEN = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})


class Membership(Protocol):
    """Of the group whose owner of the runs topic's partition 0 may write."""

    consumer: Consumer
    position: int


class Fenced:
    """Used by one thread. Any failure ends the leadership: the next one begins with a new producer, whose epoch fences
    what is left of this one (a commit that timed out may still happen, and then it is on record)."""

    def __init__(self, config: dict[str, Any], log: Membership, topic: str, who: str) -> None:
        """`topic` is the group's, `who` for people."""
        self._producer, self._log, self._topic, self._who = Producer(config), log, topic, who
        self._fenced_before = False

    def transaction(self, write: Callable[[], None]) -> None:
        """`write` produces. Raises LeadershipLost; RunFailed, and has taken it back, where the broker will never take a
        record."""
        try:
            if not self._fenced_before:
                self._producer.init_transactions(CALL_SECONDS)
                self._fenced_before = True
            self._producer.begin_transaction()
            write()
            place = TopicPartition(self._topic, 0, self._log.position)
            group = self._log.consumer.consumer_group_metadata()
            self._producer.send_offsets_to_transaction([place], group, CALL_SECONDS)
            _again_while_retriable(lambda: self._producer.commit_transaction(CALL_SECONDS))
        except BaseException as error:
            aborted = False
            with suppress(KafkaException):
                self._producer.abort_transaction(CALL_SECONDS)
                aborted = True
            if not isinstance(error, KafkaException):
                raise
            said = error.args[0]
            if aborted and said.code() in _NEVER_TAKEN:
                raise RunFailed("record_too_large", said.str()) from error
            raise LeadershipLost(f"{self._who}: {said.str()}") from error

    def close(self) -> None:
        with suppress(KafkaException):  # one that was fenced cannot even say goodbye
            self._producer.close()


def _again_while_retriable(call: Callable[[], None], times: int = 10) -> None:
    for attempt in range(times):
        try:
            return call()
        except KafkaException as error:
            if not error.args[0].retriable() or attempt == times - 1:
                raise
    return None
