"""seed → events on a topic, the model that scores them, and the scores that every contender must deliver.

Block b of 100,000 events comes from its own generator, so the first events are the same however many there are.
Event i is record i // p of partition i % p: who knows an offset knows the event.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic, process_time
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from confluent_kafka import Producer
from numpy.typing import NDArray

from headrace.infra.bench.graphs import Chain
from headrace.infra.kafka import producer_config
from headrace.infra.settings import Settings
from headrace.models.errors import BrokerUnavailable
from headrace.models.schema import NUMBERS, PREDICTION

FEATURES: Final = 8
_LAYERS: Final = (FEATURES, 64, 64, 1)
_SEED: Final = 2013
_BLOCK: Final = 100_000
_DECIMALS: Final = 100_000  # five: exact in JSON, and an event has its 156 bytes
_KEYS: Final = 1_000
_FLUSH_SECONDS: Final = 120.0
_EVENT: Final = (
    b'{"id":"e%08d","time":"2025-01-01T%02d:%02d:%02dZ"'
    + b"".join(b',"f%d":%%.5f' % number for number in range(FEATURES))
    + b"}"
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What it cost to put events on their topic."""

    events: int
    bytes: int  # of all values
    seconds: float
    cpu_seconds: float  # of this process, the Kafka client's threads included


def event_id(number: int) -> str:
    return f"e{number:08}"


def events(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each event."""
    for first in range(0, count, _BLOCK):
        rows = _block(first // _BLOCK)[: count - first].tolist()
        for number, row in enumerate(rows, start=first):
            second = number // 100 % 86_400
            clock = second // 3600, second // 60 % 60, second % 60
            yield b"k%03d" % (number % _KEYS), _EVENT % (number, *clock, *row)


def rows(count: int) -> list[list[float]]:
    """The numbers of the first events, a block of them at most."""
    found: list[list[float]] = _block(0)[:count].tolist()
    return found


def preload(settings: Settings, topic: str, rows: Iterable[tuple[bytes | None, bytes]], partitions: int = 1) -> Load:
    """Keys and values, in turn over the partitions, all acknowledged. `topic` is the full name.

    Raises BrokerUnavailable.
    """
    begun, cpu, number, size = monotonic(), process_time(), 0, 0
    refused: list[Any] = []
    producer = Producer(producer_config(settings, on_delivery=lambda error, _: refused.append(error)))
    for number, (key, value) in enumerate(rows, start=1):
        size += len(value)
        _produce(producer, topic, value, key, (number - 1) % partitions)
    if producer.flush(_FLUSH_SECONDS) or refused:
        raise BrokerUnavailable(f"{topic}: expected {number} events to be acknowledged, {len(refused)} were refused")
    return Load(events=number, bytes=size, seconds=monotonic() - begun, cpu_seconds=process_time() - cpu)


def _produce(producer: Any, topic: str, value: bytes, key: bytes | None, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition)
        except BufferError:
            producer.poll(0.05)
        else:
            return


def model() -> bytes:
    """An MLP 8-64-64-1: numbers [n, 8] → prediction [n], from 0 to 1."""
    chain = Chain(NUMBERS, [FEATURES], _SEED)
    for width_in, width_out in pairwise(_LAYERS):
        chain.dense(width_in, width_out)
        if width_out > 1:
            chain.relu()
    return chain.finished()


class Numbers:
    """What a contender must answer to these events: onnxruntime's own scores."""

    def __init__(self, graph: bytes) -> None:
        self._graph = graph

    def id(self, number: int) -> str:
        return event_id(number)

    def scores(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of any events in any order."""
        session = ort.InferenceSession(self._graph, providers=["CPUExecutionProvider"])
        scores = np.empty(len(numbers))
        for block in np.unique(numbers // _BLOCK).tolist():
            rows = np.flatnonzero(numbers // _BLOCK == block)
            given = _block(block)[numbers[rows] % _BLOCK].astype(np.float32)
            scores[rows] = session.run([PREDICTION], {NUMBERS: given})[0]
        return scores


def _block(number: int) -> NDArray[np.float64]:
    """float64[100000, 8], each with five decimals."""
    random = np.random.default_rng([_SEED, number])
    return np.rint(random.normal(0, 1, (_BLOCK, FEATURES)) * _DECIMALS) / _DECIMALS
