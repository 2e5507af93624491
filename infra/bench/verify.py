"""what a contender delivered → everything, once, in order, right? Read as subscribers do: committed records only."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.infra.bench import workload
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader

TOLERANCE: Final = 1e-5  # float32 sums in another order
_SHOWN: Final = 3


class Expected(Protocol):
    """What the right answer to event number n is."""

    def id(self, number: int) -> str: ...
    def scores(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]: ...


class Answer(msgspec.Struct, gc=False):
    """What every contender's prediction says at least."""

    id: str
    prediction: float
    version: int
    source: tuple[str, int, int]  # topic, partition, offset of the event


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`faults` are sentences; none means that every prediction is as it must be."""

    delivered: int
    worst_difference: float  # of a score from onnxruntime's
    record_bytes: float  # of an average prediction: value and headers
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults


def verified(settings: Settings, topic: str, source: str, events: int, partitions: int, expected: Expected) -> Verdict:
    """Holds the predictions on `topic` against the events on `source`. Full names."""
    found = _Found(source, events, partitions, expected)
    for message in _messages(settings, topic):
        found.take(message)
    return found.verdict()


def echoed(settings: Settings, topic: str, events: int, partitions: int) -> Verdict:
    """The same for bytes that only came back: each must begin as its event does, in order."""
    counts, size, faults = [0] * partitions, 0, []
    begin = b'{"id":"'
    for message in _messages(settings, topic):
        partition, value = message.partition(), message.value()
        number = counts[partition] * partitions + partition
        if not value.startswith(begin + workload.event_id(number).encode()):
            faults.append(f"record {counts[partition]} of partition {partition} is not event {number}")
        counts[partition] += 1
        size += len(value)
    if sum(counts) != events:
        faults.append(f"expected {events} records, got {sum(counts)}")
    return Verdict(
        delivered=sum(counts), worst_difference=0.0, record_bytes=size / max(1, sum(counts)), faults=faults[:_SHOWN]
    )


class _Found:
    """Columns of what was read: a million answers as objects would be the benchmark's largest process."""

    def __init__(self, source: str, events: int, partitions: int, expected: Expected) -> None:
        self._source, self._events, self._partitions, self._expected = source, events, partitions, expected
        self._decode = msgspec.json.Decoder(Answer).decode
        self._numbers, self._scores = array("q"), array("d")
        self._last = [-1] * partitions
        self._size = self._header_bytes = 0
        self._faults: dict[str, list[str]] = {}

    def take(self, message: Any) -> None:
        partition, value = message.partition(), message.value()
        if not self._numbers:
            self._header_bytes = sum(len(name) + len(content or b"") for name, content in message.headers() or ())
        try:
            answer = self._decode(value)
        except msgspec.DecodeError as error:
            self._fault("unreadable", f"{value[:80]!r}: {error}")
            return
        topic, source_partition, offset = answer.source
        number = offset * self._partitions + source_partition
        if topic != self._source or not 0 <= number < self._events:
            self._fault("of no event", f"{answer.id} from {answer.source}")
        elif answer.id != self._expected.id(number):
            self._fault("with the id of another event", f"{answer.id} from {answer.source}")
        elif source_partition != partition:
            self._fault("in another partition than their event", f"{answer.id} from {answer.source} in {partition}")
        elif answer.version != 1:
            self._fault("of another version", f"{answer.id} by {answer.version}")
        else:
            if offset < self._last[partition]:
                self._fault("out of order", f"{answer.id} after offset {self._last[partition]}")
            self._last[partition] = offset
            self._numbers.append(number)
            self._scores.append(answer.prediction)
            self._size += len(value)

    def verdict(self) -> Verdict:
        numbers, scores = np.array(self._numbers, np.int64), np.array(self._scores)
        times = np.bincount(numbers, minlength=self._events)
        faults = [f"{len(shown)} {what}: {'; '.join(shown[:_SHOWN])}" for what, shown in self._faults.items()]
        faults += self._many("missing", np.flatnonzero(times == 0)) + self._many(
            "delivered twice or more", np.flatnonzero(times > 1)
        )
        differences = np.abs(scores - self._expected.scores(numbers)) if len(numbers) else np.zeros(1)
        faults += self._many(f"further than {TOLERANCE:g} from the right score", numbers[~(differences <= TOLERANCE)])
        return Verdict(
            delivered=len(numbers),
            worst_difference=float(differences.max()),
            record_bytes=self._size / max(1, len(numbers)) + self._header_bytes,
            faults=faults,
        )

    def _fault(self, what: str, shown: str) -> None:
        self._faults.setdefault(what, []).append(shown)

    def _many(self, what: str, numbers: NDArray[Any]) -> list[str]:
        shown = ", ".join(self._expected.id(number) for number in numbers[:_SHOWN].tolist())
        return [f"{len(numbers)} {what}: {shown}"] if len(numbers) else []


def _messages(settings: Settings, topic: str) -> Iterator[Any]:
    reader = TopicReader(settings, [topic], once=True)
    try:
        for batch in reader.until_end():
            yield from batch
    finally:
        reader.close()
