"""chunks of several sizes → the share of their time that measuring it takes: `python -m headrace.infra.bench.timings`.

The work of a worker's agent on a chunk (decode, features, infer, encode) beside what the timings add to it: the reads
of the clock, and metrics and log on the facts of a chunk and of a commit (every chunk is given one; under load a commit
is of several). Kafka is left out, so the share in a worker is smaller still. Medians, one thread.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from statistics import median
from time import monotonic
from typing import Any, Final

from confluent_kafka import Message

from headrace import Number, Pipeline, Regression, Topic
from headrace.infra.bench.workload import FEATURES, events, model
from headrace.infra.observe import Metrics, both, log_fact
from headrace.models.facts import Acknowledged, Observer
from headrace.models.session import Session
from headrace.streams.canary import Serving
from headrace.streams.chunk import Chunk
from headrace.streams.infer import Inference, Topics
from headrace.streams.model import live_model

_ROWS: Final = (1, 100, 1_000, 8_000)
_ROUNDS: Final = 30
_REPEATS: Final = 200  # of what takes microseconds, within a round
_CLOCK_READS: Final = 16  # as a chunk is taken 1, in streams/infer.py 7, in source.py 6, around a function 2
_PIPELINE: Final = Pipeline(
    name="timings",
    events=Topic("events", id="id", time="time"),
    features=[Number(f"f{number}") for number in range(FEATURES)],
    label=Regression(Topic("labels", id="id", time="time"), "value", within="1h", if_absent="drop"),
)
_COMMIT: Final = Acknowledged(
    agent="infer",
    topic="events",
    rows=1,
    latency_seconds=0.1,
    seconds={"produce": 0.01, "acknowledge": 0.01, "commit": 0.001},
)


def main() -> None:
    observer = both(Metrics(), log_fact)
    topics = Topics(predictions="p", served="s", dead_letters="d", history="h")
    inference = Inference(_PIPELINE, topics, None)
    live = live_model(_PIPELINE, Session(model(), _PIPELINE.schema), seq=1, version=1)
    sys.stdout.write(f"{'rows':>6} {'chunk, µs':>12} {'timings, µs':>12} {'share':>8}\n")
    for rows in _ROWS:
        messages = [_message(offset, *record) for offset, record in enumerate(islice(events(rows), rows))]
        chunk: Chunk[Any] = Chunk(
            messages=messages, stamp=Serving(live), begins={("events", 0): 0}, ends={("events", 0): rows}
        )
        facts = [*inference.handle(chunk).facts, _COMMIT]
        handled = [_seconds(partial(inference.handle, chunk)) for _ in range(_ROUNDS)]
        timed = [_seconds(partial(_timings, observer, facts)) / _REPEATS for _ in range(_ROUNDS)]
        work, cost = median(handled), median(timed)
        sys.stdout.write(f"{rows:>6} {work * 1e6:>12,.0f} {cost * 1e6:>12,.1f} {cost / work:>8.2%}\n")


def _timings(observer: Observer, facts: Sequence[object]) -> None:
    for _ in range(_REPEATS):
        for _ in range(_CLOCK_READS):
            monotonic()
        for fact in facts:
            observer(fact)


def _message(offset: int, key: bytes, value: bytes) -> Message:
    return Message(topic="events", partition=0, offset=offset, key=key, value=value, headers=None, timestamp=(1, 0))


def _seconds(work: Callable[[], object]) -> float:
    begun = monotonic()
    work()
    return monotonic() - begun


if __name__ == "__main__":
    main()
