"""the demo's flights, with `Lookup`, `Aggregate`, `served` and metrics on → a contender like the others.

The last two days of a spring month are flown again and again, each time under new ids. Two days is what the rings keep
behind the newest side row, so every event finds all rows that it found when it was new; and as in a replay in event
time, a thousand events are about one day. The side rows are applied by the features agent before any event is there.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from time import monotonic, sleep
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headrace import testing
from headrace.infra.bench import workload
from headrace.infra.bench.contender import Run, Started
from headrace.infra.bench.headrace_worker import prepared
from headrace.infra.bench.processes import last_words, running
from headrace.infra.demo import run as demo
from headrace.infra.demo.data import load_flights
from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.replay import feature_store
from headrace.infra.rows import EventStream
from headrace.infra.settings import Settings
from headrace.models.errors import ServerMissing, Stalled
from headrace.models.pipeline import Pipeline

_DAYS: Final = 45  # of 2013: a training needs a month
_LATENESS_MS: Final = 2 * 86_400_000  # the pipeline's own: the events that find all their rows
_SIDE_MS: Final = 4 * 86_400_000  # more than the lateness and the longest window together
_EVENTS, _LABELS, _SIDE = "flights", "arrivals", ("departures", "weather")
_ID: Final = b'{"flight_id":"'
_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Flown:
    """A few days as they are repeated, and what their model says of them."""

    events: EventStream
    side: Sequence[EventStream]
    graph: bytes
    scores: NDArray[np.float64]  # one per event

    def rows(self, count: int) -> Iterator[tuple[bytes | None, bytes]]:
        """Keys and values, under ids that no other has."""
        once = zip(self.events.keys, self.events.values, strict=True)
        for number, (key, value) in enumerate(islice(cycle(once), count)):
            yield key, b"%s%d~%s" % (_ID, number, value.removeprefix(_ID))


class Repeated:
    """What a contender must answer: flight n % m has its own score each time."""

    def __init__(self, flown: Flown) -> None:
        self._ids = [value.removeprefix(_ID).partition(b'"')[0].decode() for value in flown.events.values]
        self._scores = flown.scores

    def id(self, number: int) -> str:
        return f"{number}~{self._ids[number % len(self._ids)]}"

    def scores(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._scores[numbers % len(self._scores)]


@dataclass(frozen=True, kw_only=True)
class Flights:
    """Everything that the bare pipeline has not."""

    name: str = "flights"
    exactly_once: bool = False

    @cached_property
    def flown(self) -> Flown:
        """Trains a model on the weeks before; seconds."""
        streams = load_flights(_DAYS)
        pipeline = read_pipeline(str(demo.FILE))
        replayed = testing.replay(
            pipeline,
            streams[_EVENTS].values,
            side_rows={topic: streams[topic].values for topic in _SIDE},
            labels=streams[_LABELS].values,
        )
        graph = testing.train(pipeline, replayed).onnx
        end = max(int(streams[topic].times[-1]) for topic in _SIDE)
        events = _since(streams[_EVENTS], end - _LATENESS_MS)
        side = [_since(streams[topic], end - _SIDE_MS) for topic in _SIDE]
        return Flown(events, side, graph, _scores(pipeline, events, side, graph))

    def prepare(self, run: Run) -> Started:
        flown = self.flown
        settings = run.settings.model_copy(update={"prefix": f"{run.settings.prefix}{run.name}."})
        names, started = prepared(run, settings, "flights.py", flown.graph, Repeated(flown))
        for stream in flown.side:
            workload.preload(settings, names.of(stream.topic), zip(stream.keys, stream.values, strict=True))
        _apply_side_rows(settings, names, started, flown.side)
        workload.preload(settings, names.events, flown.rows(run.events), run.partitions)
        return started


def _since(stream: EventStream, time: int) -> EventStream:
    first = int(np.searchsorted(stream.times, time))
    return EventStream(
        topic=stream.topic, times=stream.times[first:], keys=stream.keys[first:], values=stream.values[first:]
    )


def _scores(pipeline: Pipeline, events: EventStream, side: Sequence[EventStream], graph: bytes) -> NDArray[np.float64]:
    """By `headrace.testing`: the same code on an in-memory store."""
    side_rows = {stream.topic: stream.values for stream in side}
    replayed = testing.replay(pipeline, events.values, side_rows=side_rows, model=graph)
    return np.array([prediction.prediction for prediction in replayed.predictions])


def _apply_side_rows(settings: Settings, names: Names, started: Started, side: Sequence[EventStream]) -> None:
    """By a worker that sees no event, and stops when they are in Redis. Raises Stalled."""
    store = feature_store(settings, names)
    if store is None:
        raise ServerMissing("the flights' features live in Redis: set REDIS_URL, or let the benchmark start one.")
    with closing(store), running(started) as processes:
        deadline = monotonic() + _SECONDS
        while any(store.positions(names.of(stream.topic)).get(0, 0) < len(stream) for stream in side):
            if processes[0].poll() is not None or monotonic() > deadline:
                raise Stalled(f"the side rows were not applied within {_SECONDS:.0f} s: {last_words(started)}")
            sleep(0.1)
