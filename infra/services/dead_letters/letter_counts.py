"""`<pipeline>.dead-letters`, read on from where it was read to → how many letters there are now, by reason."""

import threading
from contextlib import closing
from time import monotonic

import msgspec
from confluent_kafka import Consumer, KafkaException

from headrace.infra.kafka import consumer_config, watermarks
from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letter_tally import Reason, Tally
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, TopicReader
from headrace.models.errors import BrokerUnavailable

_POLL_SECONDS = 0.2
_RETENTION_SECONDS = 60.0  # between two looks at what it took, where nothing else is new


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Of one moment, all that there was."""

    letters: int
    open: int  # those that were not redriven
    parked: int  # that were ever counted here, those that retention took since among them


class LetterCounts:
    """One pipeline's. For any thread: one counts, others wait for it, or see what is `counted`."""

    def __init__(self, settings: Settings, names: Names) -> None:
        self._settings, self._topic = settings, names.topics.dead_letters
        self._lock = threading.Lock()
        self._tally, self._at = Tally(self._topic), dict[Partition, int]()
        self._through = -1  # the ends' sum when it was counted to the end last
        self.looked = float("-inf")  # monotonic seconds
        self.counted: Counted | None = None  # None before all were counted once

    def reasons(self) -> list[Reason]:
        """As they are now. Raises BrokerUnavailable."""
        with self._lock:
            self._read_on(float("inf"))
            return self._tally.reasons()

    def follow(self, end: int, until: float) -> None:
        """`end` is the sum of the ends of the topic's partitions: where it has not moved, hardly anything is asked.
        Counts until a monotonic time, and goes on there at the next call. Raises BrokerUnavailable."""
        if not self._lock.acquire(blocking=False):
            return  # somebody counts already
        try:
            if end == 0 and self.counted is None:
                self._through, self.counted = 0, Counted(letters=0, open=0, parked=0)
            if (end != self._through or self._may_have_gone()) and monotonic() < until:
                self._read_on(until)
        finally:
            self._lock.release()

    def _may_have_gone(self) -> bool:
        """Retention moves no end."""
        some = self.counted is not None and self.counted.letters > 0
        return some and monotonic() - self.looked > _RETENTION_SECONDS

    def _read_on(self, until: float) -> None:
        """(1) what retention took is forgotten, (2) what came is counted."""
        self.looked = monotonic()
        with closing(Consumer(consumer_config(self._settings, "headrace.reader"))) as asker:
            bounds = watermarks(asker, self._topic)
        if any(self._at.get((self._topic, number), 0) > end for number, (_, end) in bounds.items()):
            self._tally, self._at, self._through = Tally(self._topic), {}, -1  # the topic was made anew
        for number, (first, _) in bounds.items():
            self._tally.forget(number, first)
            self._at[self._topic, number] = max(first, self._at.get((self._topic, number), 0))
        through = sum(end for _, end in bounds.values())
        try:
            with closing(TopicReader(self._settings, [self._topic], self._at, once=True)) as reader:
                while not reader.caught_up and monotonic() < until:
                    for message in reader.poll(_POLL_SECONDS):
                        self._tally.note(message)
                        self._at[self._topic, message.partition()] = message.offset() + 1
                if reader.caught_up:
                    self._at, self._through = dict(reader.positions), through
                    tally = self._tally
                    self.counted = Counted(letters=tally.count, open=tally.open, parked=tally.parked)
        except KafkaException as error:
            raise BrokerUnavailable(f"{self._topic}: {error.args[0].str()}") from error
