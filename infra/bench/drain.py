"""a contender and a full events topic → its rate, by the end offset of the topic that it writes.

    0 %        10 %                                  100 %
    start ─────┼──────────── the rate ───────────────┼── offsets committed ── SIGTERM
    imports, joins, JIT

Outputs count when the broker has them, under exactly once when their transaction is committed. Nothing of the contender
itself is asked. The clock runs from the first tenth of the outputs on, so a JVM is warm and nobody's start-up counts.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic, process_time, sleep
from typing import Any, Final

import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from headrace.infra.bench.contender import Contender, Started
from headrace.infra.bench.processes import last_words, running
from headrace.infra.bench.trees import Tree, machine_cpu
from headrace.infra.kafka import admin, consumer_config
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.models.errors import HeadraceError, Stalled

_LOOK_SECONDS: Final = 0.02
_FIRST: Final = 0.1  # of all outputs: where the rate begins
_STALLED_SECONDS: Final = 90.0  # a JVM or Faust may take 20 until its first output
_COMMIT_SECONDS: Final = 40.0  # for the offsets, after the last output: Kafka Streams' default is 30
_CALL_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Drained:
    """One run: what happened between the first tenth of the outputs and the last, and three figures of the whole."""

    contender: str
    events: int
    rate: float  # outputs a second
    seconds: float
    worker_cpu: float  # seconds per million events
    server_cpu: Mapping[str, float]  # as above, by server: those of ours on this machine
    harness_cores: float  # CPU seconds per second of this process, while it measured
    others_cores: float  # of everybody else on this machine: whoever disturbed
    whole_rate: float  # of the whole: outputs a second since the first one
    peak_rss: int  # bytes, of the contender's processes together
    committed: bool  # whether the group's offsets reached the end


@dataclass(frozen=True, kw_only=True)
class _Look:
    at: float  # monotonic seconds
    ends: float  # outputs
    worker: float  # CPU seconds, as all below
    own: float
    machine: float
    servers: Mapping[str, float]

    def between(self, later: "_Look", share: float) -> "_Look":
        """Where things were at a share of the way."""

        def at(mine: float, its: float) -> float:
            return mine + share * (its - mine)

        servers = {name: at(spent, later.servers[name]) for name, spent in self.servers.items()}
        return _Look(
            at=at(self.at, later.at),
            ends=at(self.ends, later.ends),
            worker=at(self.worker, later.worker),
            own=at(self.own, later.own),
            machine=at(self.machine, later.machine),
            servers=servers,
        )


def drained(
    settings: Settings, contender: Contender, started: Started, events: int, servers: Mapping[str, int]
) -> Drained:
    """Starts the contender, waits until all its outputs are there and its offsets are committed, and stops it.

    `servers` are process ids by name. Raises Stalled, or HeadraceError with the end of the contender's log.
    """
    asker = Consumer(consumer_config(settings.model_copy(update={"prefix": ""}), started.group))
    with running(started) as processes:
        watch = _Watch(settings, asker, contender, started, events, servers)
        committed = watch.until_done(processes)
        started.ask()
    asker.close()
    first, last = watch.first(), watch.looks[-1]
    seconds, measured = last.at - first.at, events * (1 - first.ends / last.ends)
    worker, own, machine = last.worker - first.worker, last.own - first.own, last.machine - first.machine
    of_servers = {name: spent - first.servers[name] for name, spent in last.servers.items()}
    return Drained(
        contender=contender.name,
        events=events,
        rate=measured / seconds,
        seconds=seconds,
        worker_cpu=worker / measured * 1e6,
        server_cpu={name: spent / measured * 1e6 for name, spent in of_servers.items()},
        harness_cores=own / seconds,
        others_cores=max(0.0, machine - worker - own - sum(of_servers.values())) / seconds,
        whole_rate=events / (last.at - watch.began().at),
        peak_rss=watch.peak_rss,
        committed=committed,
    )


class _Watch:
    """Asks the broker for outputs and offsets, and the system for CPU and memory."""

    def __init__(
        self,
        settings: Settings,
        asker: Any,
        contender: Contender,
        started: Started,
        events: int,
        servers: Mapping[str, int],
    ) -> None:
        self.looks: list[_Look] = []
        self.peak_rss = 0
        self._asker, self._started, self._events = asker, started, events
        self._exactly_once = contender.exactly_once
        self._servers = {name: Tree([pid]) for name, pid in servers.items()}
        self._settings = settings
        self._together: int | None = None if started.processes > 1 else 0  # the look by which all were members
        self._in = [TopicPartition(started.events, number) for number in partitions_of(asker, started.events)]
        self._out = [
            TopicPartition(started.predictions, number) for number in partitions_of(asker, started.predictions)
        ]

    def until_done(self, processes: Sequence[subprocess.Popen[bytes]]) -> bool:
        """Looks every 20 ms; gives whether the offsets were committed, too."""
        workers = Tree([process.pid for process in processes])
        moved_at = due = monotonic()
        while not self._all_there():
            if ended := [process for process in processes if process.poll() is not None]:
                raise HeadraceError(f"it ended with status {ended[0].returncode}: {last_words(self._started)}")
            due += _LOOK_SECONDS
            sleep(max(0.0, due - monotonic()))
            self._look(workers)
            if len(self.looks) < 2 or self.looks[-1].ends > self.looks[-2].ends:
                moved_at = monotonic()
            if monotonic() - moved_at > _STALLED_SECONDS:
                ends = self.looks[-1].ends
                raise Stalled(f"{ends:.0f} of {self._events} outputs, then none: {last_words(self._started)}")
        deadline = monotonic() + _COMMIT_SECONDS
        while not (committed := self._committed()) and monotonic() < deadline:
            sleep(_LOOK_SECONDS)
        return committed

    def began(self) -> _Look:
        """The last look without an output."""
        return next(look for look, after in pairwise([self.looks[0], *self.looks]) if after.ends)

    def first(self) -> _Look:
        """Where the rate begins: at a tenth of the outputs, or when the last of several processes had joined."""
        ends = [look.ends for look in self.looks]
        tenth = _FIRST * ends[-1]  # of offsets, as the end: under exactly once both count the markers
        place = int(np.searchsorted(ends, tenth, "right"))
        if self._together is None or self._together > place:
            return self.looks[min(self._together or 0, len(ends) - 2)]
        before, after = self.looks[max(place - 1, 0)], self.looks[place]
        return before.between(after, (tenth - before.ends) / ((after.ends - before.ends) or 1))

    def _look(self, workers: Tree) -> None:
        outputs = self._outputs()
        self.looks.append(
            _Look(
                at=monotonic(),
                ends=outputs,
                worker=workers.cpu_seconds(),
                own=process_time(),
                machine=machine_cpu(),
                servers={name: tree.cpu_seconds() for name, tree in self._servers.items()},
            )
        )
        self.peak_rss = max(self.peak_rss, workers.resident_bytes())
        if self._together is None and len(self.looks) % 10 == 0 and self._all_joined():
            self._together = len(self.looks) - 1

    def _outputs(self) -> float:
        try:
            return float(sum(self._asker.get_watermark_offsets(place, timeout=_CALL_SECONDS)[1] for place in self._out))
        except KafkaException:  # a new topic's leader, not known everywhere yet; a broker that is away is a stall
            return self.looks[-1].ends if self.looks else 0.0

    def _all_there(self) -> bool:
        """Markers of transactions take offsets: under exactly once only the group knows whether that was all."""
        enough = bool(self.looks) and self.looks[-1].ends >= self._events
        return enough and (not self._exactly_once or self._committed())

    def _committed(self) -> bool:
        try:
            places = self._asker.committed(self._in, timeout=_CALL_SECONDS)
        except KafkaException:  # as above, of the coordinator
            return False
        return bool(sum(max(0, place.offset) for place in places) >= self._events)

    def _all_joined(self) -> bool:
        group = self._started.group
        client = admin(self._settings)  # kept in a name: a future dies with its client
        found = client.describe_consumer_groups([group])[group].result(_CALL_SECONDS)
        assigned = [member for member in found.members if member.assignment.topic_partitions]
        return len(assigned) == self._started.processes
