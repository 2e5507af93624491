"""servers, full topics, runs: where a benchmark happens, and what it cost to set up and to watch."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from headrace.infra.bench import workload
from headrace.infra.bench.contender import Contender, Run, created
from headrace.infra.bench.drain import Drained, drained
from headrace.infra.bench.verify import Verdict
from headrace.infra.bench.workload import Load
from headrace.infra.kafka import admin
from headrace.infra.local.servers import KAFKA, REDIS, LocalServers
from headrace.infra.local.state import State
from headrace.infra.settings import Settings

CORES = 2  # for broker, contender and harness together: more are left idle, so that figures compare
_DISTURBED = 0.2  # cores: of two, that is a tenth
_CALL_SECONDS = 30.0
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run and what it delivered."""

    run: Drained
    verdict: Verdict


@dataclass(kw_only=True)
class Session:
    """`say` hears of every step; `loads` and `drains` are what it cost to make the load and what was measured."""

    settings: Settings
    servers: Mapping[str, int]  # process ids of ours, by name
    say: Say
    graph: bytes = field(default_factory=workload.model)
    loads: list[Load] = field(default_factory=list)
    drains: list[Drained] = field(default_factory=list)
    reports: dict[str, Any] = field(default_factory=dict)  # what was measured without a target, by name
    _topics: dict[tuple[int, int], str] = field(default_factory=dict)
    _runs: int = 0

    def filled(self, events: int, partitions: int = 1) -> str:
        """The full name of a topic with that many events, filled when it is first asked for."""
        if (events, partitions) not in self._topics:
            topic = f"{self.settings.prefix}{events}-{partitions}.events"
            self.say(f"preloading {events:,} events on {partitions} partition(s)")
            created(self.settings, topic, partitions)
            self.loads.append(workload.preload(self.settings, topic, workload.events(events), partitions))
            self._topics[events, partitions] = topic
        return self._topics[events, partitions]

    def measure(self, contender: Contender, events: int, partitions: int = 1) -> Measured:
        """One run of a new group on a new topic, then the verifier. Raises HeadraceError where it did not end well."""
        self._runs += 1
        run = Run(
            settings=self.settings,
            name=f"run{self._runs:03}-{contender.name.replace(' ', '-')}",
            events=events,
            partitions=partitions,
            filled=lambda: self.filled(events, partitions),
            graph=self.graph,
        )
        started = contender.prepare(run)
        found = drained(self.settings, contender, started, events, self.servers)
        verdict = started.verify()
        _deleted(self.settings, run.name)  # a disk holds few runs of ten million events
        self.drains.append(found)
        what = "" if verdict.ok else f"; {'; '.join(verdict.faults)}"
        late = "" if found.committed else "; offsets not committed"
        disturbed = f"; others took {found.others_cores:.1f} cores" if found.others_cores > _DISTURBED else ""
        self.say(
            f"{contender.name}: {found.rate:,.0f} events/s, {found.worker_cpu:.2f} CPU s per million"
            f"{late}{disturbed}{what}"
        )
        return Measured(run=found, verdict=verdict)


@contextmanager
def opened(settings: Settings, say: Say) -> Iterator[Session]:
    """A broker and a Redis of its own, unless the environment names some; topics of this session alone.

    What it wrote is deleted when it ends well; after a failure it stays, to be looked at.
    """
    stamp = f"bench-{time.time_ns() // 1_000_000}"
    home = (settings.home / stamp).resolve()
    ours = tuple(
        name for name, url in ((KAFKA, settings.bootstrap_servers), (REDIS, settings.redis_url)) if url is None
    )
    _on_few_cores()
    try:
        with LocalServers(home, only=ours, report=say, temporary=True) as addresses:
            own = settings.model_copy(
                update={
                    "home": home,
                    "prefix": f"{settings.prefix}{stamp}.",
                    "bootstrap_servers": settings.bootstrap_servers or addresses.bootstrap_servers,
                    "redis_url": settings.redis_url or addresses.redis_url,
                }
            )
            records = State(home).read()
            pids = {name: record.process.pid for name, record in records.items() if record.process is not None}
            yield Session(settings=own, servers=pids, say=say)
            if KAFKA not in ours:
                _deleted(own, own.prefix)
            if REDIS not in ours:
                _forget(own)
    except BaseException:
        say(f"what it wrote is in {home}, its topics begin with {stamp}")
        raise
    shutil.rmtree(home, ignore_errors=True)


def _deleted(settings: Settings, part: str) -> None:
    """Topics with this part in their names, which nobody else's have."""
    client = admin(settings)
    topics = [topic for topic in client.list_topics(timeout=_CALL_SECONDS).topics if part in topic]
    for future in client.delete_topics(topics).values() if topics else ():
        future.result(timeout=_CALL_SECONDS)


def _forget(settings: Settings) -> None:
    """The features of the flights, in a Redis that is not ours."""
    with redis.Redis.from_url(str(settings.redis_url)) as client:
        for key in client.scan_iter(match=f"{settings.prefix}*", count=1_000):
            client.delete(key)


def _on_few_cores() -> None:
    """Children inherit it."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
