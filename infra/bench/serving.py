"""a contender that runs → loads at a rate, one after the other, and when each of their events was answered.

One event is there before it starts. When that is answered, imports and joins are over and the loads begin.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from time import monotonic, process_time, time_ns
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray

from headrace.infra.bench import pairs, workload
from headrace.infra.bench.contender import Contender, Run, Started, created
from headrace.infra.bench.open_loop import Sent
from headrace.infra.bench.pairs import Answers, Latencies, Read
from headrace.infra.bench.processes import last_words, running
from headrace.infra.bench.session import Session
from headrace.infra.bench.throughput import ECHO
from headrace.infra.bench.trees import Tree, machine_cpu
from headrace.infra.kafka import consumer_config
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.errors import HeadraceError, Stalled

DROPPED: Final = 0.25  # the first quarter of a load warms everybody up, as in Crayfish (EDBT 2024)
_FIRST_SECONDS: Final = 90.0  # until the first answer: a JVM or Faust may take 20
_PATIENCE_SECONDS: Final = 15.0  # for a further answer, when the load is over
_LOOK_SECONDS: Final = 0.1
_CALL_SECONDS: Final = 10.0
_NS_OF_MS: Final = 1e6
_numbers = count(1)  # no two runs of a process share a name


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One load and its answers. `created_at[0]` is the time of number `first`, Unix ms."""

    sent: Sent
    first: int
    created_at: NDArray[np.float64]
    answered: Answers
    seen: Answers | None  # by a subscriber of committed records, where one was there
    cores: Mapping[str, float]  # CPU seconds per second, while the load went on

    def latencies(self, begin: float = DROPPED, end: float = 1.0, *, seen: bool = False) -> Latencies:
        """Of a part of the events, by shares: without the first quarter."""
        answered = self.seen if seen and self.seen is not None else self.answered
        events = self.sent.events
        first, last = self.first + int(begin * events), self.first + int(end * events)
        return pairs.latencies(self.created_at, answered, self.first, first, last)


class Serving:
    """A contender that has answered its first event."""

    def __init__(
        self,
        session: Session,
        started: Started,
        processes: Sequence["subprocess.Popen[bytes]"],
        read: Read,
    ) -> None:
        self.started, self.processes = started, processes
        self._settings, self._read = session.settings.model_copy(update={"prefix": ""}), read
        self._trees = {"worker": Tree([process.pid for process in processes])}
        self._trees |= {name: Tree([pid]) for name, pid in session.servers.items()}
        self._sent = 1  # events on the topic
        self._from = 0  # where predictions were read to
        self._asker = Consumer(consumer_config(self._settings, started.group))
        self._await_first()

    def load(
        self, rate: float, seconds: float, *, watched: bool = False, during: Callable[[], None] = lambda: None
    ) -> Loaded:
        """`during` runs in this thread while the load goes on. `watched`: a subscriber notes when it sees each answer.

        Returns when all are answered, or when no answer comes any more.
        """
        first, events = self._sent, max(1, round(rate * seconds))
        self._sent += events
        with _watching(self._settings, self.started.predictions, self._from, watched=watched) as watch:
            with self._generator(first, rate, events) as generator:
                before = self._spent()
                during()
                output, _ = generator.communicate()
                spent = {name: now - before[name] for name, now in self._spent().items()}
            if generator.returncode:
                raise HeadraceError("the load did not go out; what its process said is above")
            answered = self._answers(first, events)
        sent = msgspec.json.decode(output, type=Sent)
        elapsed, machine = spent.pop("seconds"), spent.pop("machine")
        spent["generator"] = sent.cores * sent.seconds
        spent["others"] = max(0.0, machine - sum(spent.values()))
        return Loaded(
            sent=sent,
            first=first,
            created_at=pairs.created(self._settings, self.started.events, first),
            answered=answered,
            seen=watch.answers(self._read),
            cores={name: value / elapsed for name, value in spent.items()},
        )

    def _await_first(self) -> None:
        deadline, place = monotonic() + _FIRST_SECONDS, TopicPartition(self.started.predictions, 0)
        while not self._asker.get_watermark_offsets(place, timeout=_CALL_SECONDS)[1]:
            self._check_alive()
            if monotonic() > deadline:
                raise Stalled(f"no answer within {_FIRST_SECONDS:.0f} s: {last_words(self.started)}")
            threading.Event().wait(_LOOK_SECONDS)

    @contextmanager
    def _generator(self, first: int, rate: float, events: int) -> Iterator["subprocess.Popen[bytes]"]:
        options = {
            "--bootstrap-servers": str(self._settings.bootstrap_servers),
            "--topic": self.started.events,
            "--first": str(first),
            "--rate": str(rate),
            "--events": str(events),
        }
        command = [sys.executable, "-m", "headrace.infra.bench.open_loop"]
        process = subprocess.Popen(
            [*command, *(part for option in options.items() for part in option)], stdout=subprocess.PIPE
        )
        try:
            if process.stdout is not None:
                process.stdout.readline()  # it says so when the first event is due
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _answers(self, first: int, events: int) -> Answers:
        """Of this load; waits as long as answers come."""
        parts, missing, deadline = list[Answers](), events, monotonic() + _PATIENCE_SECONDS
        while missing and monotonic() < deadline:
            self._check_alive()
            missed = missing
            place = (self.started.predictions, 0)
            reader = TopicReader(self._settings, [place[0]], {place: self._from}, once=True)
            parts += [pairs.answers(batch, self._read) for batch in pairs.batches(reader) if batch]
            self._from = reader.positions[place]
            numbers = np.concatenate([part.numbers for part in parts]) if parts else np.empty(0)
            missing = events - len(np.unique(numbers[numbers >= first]))
            if missing < missed:
                deadline = monotonic() + _PATIENCE_SECONDS
            threading.Event().wait(_LOOK_SECONDS)
        return Answers.joined(parts)

    def _spent(self) -> dict[str, float]:
        """CPU seconds so far, and when that was."""
        by_tree = {name: tree.cpu_seconds() for name, tree in self._trees.items()}
        return by_tree | {"harness": process_time(), "machine": machine_cpu(), "seconds": monotonic()}

    def _check_alive(self) -> None:
        for process in self.processes:
            if process.poll() is not None:
                raise HeadraceError(f"it ended with status {process.returncode}: {last_words(self.started)}")


class _Watch:
    """A subscriber of committed records, in a thread of this process."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._messages, self._at = list[Any](), list[float]()

    def follow(self, reader: TopicReader) -> None:
        while not self.stopping.is_set():
            batch = reader.poll(_LOOK_SECONDS)
            self._at += [time_ns() / _NS_OF_MS] * len(batch)
            self._messages += batch
        reader.close()

    def answers(self, read: Read) -> Answers | None:
        return pairs.answers(self._messages, read, self._at) if self._messages else None


@contextmanager
def _watching(settings: Settings, topic: str, offset: int, *, watched: bool) -> Iterator[_Watch]:
    watch = _Watch()
    if not watched:
        yield watch
        return
    reader = TopicReader(settings, [topic], {(topic, 0): offset})
    thread = threading.Thread(target=watch.follow, args=[reader], name="subscriber", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stopping.set()
        thread.join()


@contextmanager
def serving(session: Session, contender: Contender, events: int = 1) -> Iterator[Serving]:
    """The contender on topics of its own, stopped at the end. `events`: how many its verifier will expect.

    Raises HeadraceError.
    """
    name = f"live{next(_numbers):03}-{contender.name.replace(' ', '-')}"

    def begun() -> str:
        topic = f"{session.settings.prefix}{name}.events"
        created(session.settings, topic, 1)
        workload.preload(session.settings, topic, workload.events(1))
        return topic

    run = Run(settings=session.settings, name=name, events=events, partitions=1, filled=begun, graph=session.graph)
    started = contender.prepare(run)
    pairs.stamped_by_broker(session.settings, started.predictions)
    with running(started) as processes:
        yield Serving(session, started, processes, pairs.echo if contender.name == ECHO else pairs.prediction)
