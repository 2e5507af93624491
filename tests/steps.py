"""A leader that dies at a step of its work: where it does is a name, and the names are counted by a run that lives.

What is wrapped is what leaves a trace outside of the process, or decides what will: so "before each of them" is between
any two steps. As a program, `python steps.py {json}` is a scheduler of one pipeline without a clock: it takes the times
to wake at from standard input, and kills itself by SIGKILL at the step that it is given.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from headrace.infra.names import ARTIFACTS, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.processes.scheduler import LeaderThread
from headrace.infra.settings import Settings
from headrace.infra.training import Origin
from headrace.models.facts import RunEnded
from headrace.models.records import Requested
from headrace.scheduler.leader import Leader
from headrace.trainer.process import Trainer

PRELOAD = ("headrace.trainer.run",)  # no torch: the pipelines of these tests bring their model


_FORKED, _FOLLOWED, _TRAINED = "process forked", "before: registry followed", "before: candidate made"


class Killed(BaseException):
    """Where the process would be gone."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """Counts steps by name up to `fatal`, then `end`s the process. From then on nothing goes out any more."""

    def __init__(self, fatal: str = "", time: int = 1, end: Callable[[], None] = die) -> None:
        """`time`: the how manieth of this name is the last."""
        self.fatal, self.time, self.end, self.gone = fatal, time, end, False
        self.seen: list[str] = []

    def __call__(self, name: str) -> None:
        if self.gone:
            raise Killed(name)
        self.seen.append(name)
        if name == self.fatal and self.seen.count(name) == self.time:
            self.gone = True
            self.end()
            raise Killed(name)

    def around(self, leader: Any, names: Names) -> None:
        """The leader's own ports, and what it decides by."""
        leader._log.poll = self._reading(leader._log.poll)
        leader._writer._producer = Producing(leader._writer._producer, self, names)
        for port, method, name in (
            (leader._training, "fetch", "rows fetched"),
            (leader._training, "start", "training begun"),
            (leader._training._trainer, "start", _FORKED),
            (leader._training, "_candidate", "candidate made"),
            (leader._ledger, "follow", _FOLLOWED),
        ):
            self._wrap(port, method, name)
        ended = leader._ended

        def told(*given: Any) -> None:
            self("before: outcome known")
            ended(*given)
            self("the end")

        leader._ended = told

    def _wrap(self, port: Any, method: str, name: str) -> None:
        call = getattr(port, method)

        def wrapped(*given: Any, **named: Any) -> Any:
            if name != _FOLLOWED:
                self(f"before: {name}")
            elif _TRAINED in self.seen and "before: graph produced" not in self.seen:  # else it is all the time
                self(name)
            done = call(*given, **named)
            if name == _FORKED:
                self(f"after: {name}")
            return done

        setattr(port, method, wrapped)

    def _reading(self, poll: Callable[[float], Any]) -> Callable[[float], Any]:
        def read(seconds: float) -> Any:
            if self.gone:
                raise Killed
            records = poll(seconds)
            if any(isinstance(record, Requested) for record in records):
                self("request read")
            return records

        return read


class Producing:
    """The real producer; each call is a step, named by what it carries."""

    def __init__(self, producer: Any, step: Steps, names: Names) -> None:
        self._producer, self._step, self._names, self._kind = producer, step, names, ""

    def __len__(self) -> int:
        return len(self._producer)

    def produce(self, topic: str, value: bytes, *given: Any, **named: Any) -> None:
        if topic == self._names.of(ARTIFACTS):
            what = "manifest" if value.startswith(b"{") else "graph"
        else:
            what = msgspec.json.decode(value)["kind"]
            self._kind = self._kind or what
        if what == "progressed":  # how many there are depends on the machine
            self._producer.produce(topic, value, *given, **named)
        else:
            self._step(f"before: {what} produced")
            self._producer.produce(topic, value, *given, **named)

    def begin_transaction(self) -> None:
        if self._step.gone:
            raise Killed
        self._kind = ""
        self._producer.begin_transaction()

    def send_offsets_to_transaction(self, *given: Any) -> None:
        if self._kind != "progressed":
            self._step(f"before: offsets sent with {self._kind}")
        self._producer.send_offsets_to_transaction(*given)

    def commit_transaction(self, *given: Any) -> None:
        if self._kind != "progressed":
            self._step(f"before: {self._kind} committed")
        self._producer.commit_transaction(*given)
        if self._kind != "progressed":
            self._step(f"after: {self._kind} committed")

    def abort_transaction(self, *given: Any) -> None:
        if not self._step.gone:  # who is dead takes nothing back
            self._producer.abort_transaction(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


class Plan(msgspec.Struct, kw_only=True):
    """What the program is told."""

    bootstrap_servers: str
    prefix: str
    home: str
    kafka: dict[str, str]
    file: str
    name: str
    started: int | None = None
    fatal: str = ""
    time: int = 1


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(plan: Plan) -> None:
    settings = Settings(
        bootstrap_servers=plan.bootstrap_servers, prefix=plan.prefix, home=Path(plan.home), kafka=plan.kafka
    )
    file = read_pipelines(plan.file)
    step, pause = Steps(plan.fatal, plan.time), threading.Event()

    def say(fact: object) -> None:
        if isinstance(fact, RunEnded):
            tell(f"ended {fact.outcome}")

    made = Leader.__init__

    def watched(self: Any, pipeline: Any, **named: Any) -> None:
        made(self, pipeline, **named)
        step.around(self, Names(settings.prefix, pipeline))

    Leader.__init__ = watched  # type: ignore[method-assign]
    with ExitStack() as stack:
        trainer = stack.enter_context(Trainer(PRELOAD, detached=True))
        leader = LeaderThread(
            settings, Origin(file=file, pipeline=file.pipelines[plan.name]), trainer, say, started=plan.started
        )
        leader.start()
        stack.callback(leader.stop)
        for line in sys.stdin:
            leader.wake(int(line))
            at_work = leader._leader
            if at_work is None or not leader._log.leads:
                tell("woken waits")
                continue
            at_work.wake(int(line))  # it may have begun to lead just now
            while at_work._due_at is not None or at_work._attempts.run is not None or at_work._waiting:
                pause.wait(0.01)
            tell("woken leads")


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Plan))
