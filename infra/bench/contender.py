"""who takes part → what to start for one run: a command, its group, and the topic that it writes.

Every run has a name of its own, hence a group without offsets and an empty predictions topic.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from confluent_kafka.admin import NewTopic

from headrace.infra.bench.verify import Verdict, echoed, verified
from headrace.infra.bench.workload import Numbers
from headrace.infra.kafka import admin
from headrace.infra.settings import Settings
from headrace.infra.topics import await_visible

MODEL: Final = "model.onnx"
_CALL_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where one run happens."""

    settings: Settings  # its prefix is the session's
    name: str  # that no other run has: letters, digits and dashes
    events: int
    partitions: int
    filled: Callable[[], str]  # the full name of a topic with so many events of `workload`
    graph: bytes  # their model, ONNX

    @property
    def folder(self) -> Path:
        return self.settings.home / "runs" / self.name

    def prepared_folder(self, graph: bytes) -> Path:
        self.folder.mkdir(parents=True)
        (self.folder / MODEL).write_bytes(graph)
        return self.folder


@dataclass(frozen=True, kw_only=True)
class Started:
    """What one run starts, once its topics are there and the events on theirs."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path  # its working directory, where its logs are, too
    events: str  # full names of topics and group
    predictions: str
    group: str
    verify: Callable[[], Verdict]  # when it is over
    ask: Callable[[], None] = lambda: None  # when all outputs are there, and it still runs
    processes: int = 1


class Contender(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def exactly_once(self) -> bool: ...
    def prepare(self, run: Run) -> Started:
        """Makes topics, and whatever has to be there before the first event."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """Any program that keeps to the contract of peers: see `docs/benchmarks.md`."""

    name: str
    command: Sequence[str]
    exactly_once: bool = False
    echoes: bool = False  # sends bytes back instead of predictions

    def prepare(self, run: Run) -> Started:
        folder, events, settings = run.prepared_folder(run.graph), run.filled(), run.settings
        group = f"{settings.prefix}{run.name}"
        predictions = f"{group}.predictions"
        created(settings, predictions, run.partitions)
        options = {
            "--bootstrap-servers": str(settings.bootstrap_servers),
            "--events": events,
            "--predictions": predictions,
            "--group": group,
            "--model": str((folder / MODEL).resolve()),
        }
        once = ["--exactly-once"] if self.exactly_once else []

        def verify() -> Verdict:
            if self.echoes:
                return echoed(settings, predictions, run.events, run.partitions)
            return verified(settings, predictions, events, run.events, run.partitions, Numbers(run.graph))

        return Started(
            command=[*self.command, *(part for option in options.items() for part in option), *once],
            environment=os.environ,
            folder=folder,
            events=events,
            predictions=predictions,
            group=group,
            verify=verify,
        )


def echo(size: int) -> Program:
    """Writes values of `size` bytes."""
    command = [sys.executable, "-m", "headrace.infra.bench.echo", "--size", str(size)]
    return Program(name="echo", command=command, echoes=True)


def created(settings: Settings, topic: str, partitions: int) -> None:
    new = NewTopic(topic, num_partitions=partitions, replication_factor=settings.replication)
    client = admin(settings)  # kept in a name: a future dies with its client
    client.create_topics([new])[topic].result(timeout=_CALL_SECONDS)
    await_visible(client, {topic})
