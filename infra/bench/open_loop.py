"""a rate → events that leave when they are due, whatever becomes of them: a process of its own.

Its output has two lines: an empty one when the first event is due, and `Sent` at the end.

Event n is due n / rate after the start, by the clock, so nobody's slowness thins the load out ("coordinated
omission"). It is made, and stamped, when it leaves: its `time` is its creation, in microseconds. How much later than
due that was is this process's and the machine's doing, not the contender's, and is told.
"""

import argparse
import gc
import sys
from collections.abc import Callable
from functools import lru_cache
from time import gmtime, monotonic, process_time, sleep, strftime, time_ns
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import KafkaError, Producer

from headrace.infra.bench import workload
from headrace.infra.kafka import producer_config
from headrace.infra.settings import Settings

_ROWS: Final = 100_000  # different ones, then again from the first
_TICK_SECONDS: Final = 0.0005  # at 2,000 events a second each leaves alone, above in small groups
_FLUSH_SECONDS: Final = 60.0
_NUMBERS: Final = b',"f0"'  # where an event's own content begins, behind id and time


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One load, as its process tells it."""

    events: int
    seconds: float
    cores: float  # CPU seconds per second
    late_ms: dict[str, float]  # behind the schedule: p50, p99, worst


class OpenLoop:
    """A producer without linger, warm before the first event is due. Partition 0 gets all."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic, self._refused = topic, list[str]()
        self._producer = Producer(producer_config(settings, linger_ms=0, on_delivery=self._reported))
        self._producer.list_topics(topic)

    def send(self, *, first: int, rate: float, events: int, begun: Callable[[], None] = lambda: None) -> Sent:
        """All acknowledged when it returns; ends the process where they are not. `first` is the first one's offset;
        `begun` is called when it is due."""
        rows = [(key, value[value.index(_NUMBERS) :]) for key, value in workload.events(min(first + events, _ROWS))]
        late = np.empty(events)
        gc.freeze()
        begun()
        start, cpu, number = monotonic(), process_time(), 0
        while number < events:
            sleep(max(_TICK_SECONDS, start + number / rate - monotonic()))
            now = monotonic()
            due = min(events, int((now - start) * rate) + 1)
            late[number:due] = now - start - np.arange(number, due) / rate
            for event in range(first + number, first + due):
                key, numbers = rows[event % _ROWS]
                value = b'{"id":"e%08d","time":"%s"%s' % (event, _stamp(time_ns() // 1_000), numbers)
                self._producer.produce(self._topic, value, key, 0)
            number = due
            self._producer.poll(0)
        seconds, cpu = monotonic() - start, process_time() - cpu
        if self._producer.flush(_FLUSH_SECONDS) or self._refused:
            sys.exit(f"{self._topic}: expected all of {events} events to be acknowledged; refused: {self._refused[:1]}")
        p50, p99, worst = np.percentile(late * 1e3, [50, 99, 100]).tolist()
        return Sent(
            events=events, seconds=seconds, cores=cpu / seconds, late_ms={"p50": p50, "p99": p99, "worst": worst}
        )

    def _reported(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._refused.append(error.str())


def _stamp(micros: int) -> bytes:
    """RFC 3339 with microseconds."""
    seconds, fraction = divmod(micros, 1_000_000)
    return b"%s.%06dZ" % (_second(seconds), fraction)


@lru_cache(maxsize=1)
def _second(seconds: int) -> bytes:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--events", type=int, required=True)
    given = parser.parse_args()
    loop = OpenLoop(Settings(bootstrap_servers=given.bootstrap_servers), given.topic)
    sent = loop.send(
        first=given.first,
        rate=given.rate,
        events=given.events,
        begun=lambda: print(flush=True),  # noqa: T201
    )
    sys.stdout.buffer.write(msgspec.json.encode(sent))


if __name__ == "__main__":
    main()
