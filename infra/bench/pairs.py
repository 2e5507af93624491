"""events and predictions, read back → how long each event took, by its number.

An event's number is its offset. It was created when its own `time` says, in microseconds of this machine's clock. Its
prediction was appended when the broker says (`LogAppendTime`), in whole milliseconds of the same clock; the middle of
that millisecond is taken. So a single figure is right to 0.5 ms and percentiles of many are better, and nobody has to
watch while it happens: both are read back when it is over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from numpy.typing import NDArray

from headrace.infra.bench.verify import Answer
from headrace.infra.kafka import admin
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.errors import HeadraceError

HALF_MS: Final = 0.5  # of the millisecond in which an append happened
_BEFORE_MS: Final = -1.0  # an answer before its question: the broker's clock is another one
_PERCENTILES: Final = {"p50": 50, "p95": 95, "p99": 99, "worst": 100}
_CALL_SECONDS: Final = 30.0
_ID: Final = slice(len('{"id":"e'), len('{"id":"e00000000'))


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Predictions as columns, in the order in which they were appended."""

    numbers: NDArray[np.int64]  # of their events
    versions: NDArray[np.int64]  # who answered; 0 where bytes only came back
    at: NDArray[np.float64]  # Unix ms

    @classmethod
    def joined(cls, parts: "Sequence[Answers]") -> "Answers":
        if not parts:
            return cls(numbers=np.empty(0, np.int64), versions=np.empty(0, np.int64), at=np.empty(0))
        return cls(
            numbers=np.concatenate([part.numbers for part in parts]),
            versions=np.concatenate([part.versions for part in parts]),
            at=np.concatenate([part.at for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Of some events, in ms. One without an answer took for ever."""

    unanswered: int
    percentiles: Mapping[str, float]  # p50, p95, p99, worst

    def __str__(self) -> str:
        return ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.percentiles.items())


class _Event(msgspec.Struct, gc=False):
    time: datetime


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(Answer).decode
Read = Callable[[bytes], tuple[int, int]]  # a prediction's value → its event's number, its version


def prediction(value: bytes) -> tuple[int, int]:
    answer = _decode_answer(value)
    return answer.source[2], answer.version


def echo(value: bytes) -> tuple[int, int]:
    """The event's first bytes came back, its id among them; an event's id is its number."""
    return int(value[_ID]), 0


def stamped_by_broker(settings: Settings, topic: str) -> None:
    """Its records carry the time of their append from now on."""
    entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
    client = admin(settings)  # kept in a name: a future dies with its client
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(timeout=_CALL_SECONDS)


def created(settings: Settings, topic: str, first: int) -> NDArray[np.float64]:
    """Unix ms of each event from offset `first` on."""
    return np.array(
        [
            _decode_event(message.value()).time.timestamp() * 1e3
            for batch in batches(TopicReader(settings, [topic], {(topic, 0): first}, once=True))
            for message in batch
        ]
    )


def answers(messages: Sequence[Any], read: Read, at: Sequence[float] | None = None) -> Answers:
    """`at`: when each was seen, Unix ms; else when it was appended."""
    numbers, versions = np.array([read(message.value()) for message in messages], np.int64).reshape(-1, 2).T
    moments = [message.timestamp()[1] + HALF_MS for message in messages] if at is None else at
    return Answers(numbers=numbers, versions=versions, at=np.asarray(moments, np.float64))


def batches(reader: TopicReader) -> Iterator[list[Any]]:
    """To the end, and closes the reader."""
    try:
        yield from reader.until_end()
    finally:
        reader.close()


def latencies(created_at: NDArray[np.float64], answered: Answers, first: int, begin: int, end: int) -> Latencies:
    """Of the events from number `begin` up to `end`; `created_at[0]` is that of number `first`.

    Where an event was answered twice, the first answer counts. Raises HeadraceError where clocks differ.
    """
    answered_at = np.full(end - begin, np.inf)
    ours = (answered.numbers >= begin) & (answered.numbers < end)
    np.minimum.at(answered_at, answered.numbers[ours] - begin, answered.at[ours])
    took = answered_at - created_at[begin - first : end - first]
    if took.min() < _BEFORE_MS:
        raise HeadraceError(
            f"an event was answered {-took.min():.1f} ms before it was created: latency needs a broker on this machine,"
            " or one whose clock is the same"
        )
    found = np.percentile(took, list(_PERCENTILES.values()), method="higher").tolist()
    return Latencies(unanswered=int(np.isinf(took).sum()), percentiles=dict(zip(_PERCENTILES, found, strict=True)))
