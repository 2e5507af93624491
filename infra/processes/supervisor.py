"""Child processes of `up` and `demo`: started, watched, started again when they end by themselves, stopped in order."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from headrace.infra.processes.orphan import SUPERVISOR
from headrace.models.errors import HeadraceError

_LOOK_SECONDS = 0.2
_RESTARTS = 5  # within a minute: more is a crash loop, which a restart does not mend
_GRACE_SECONDS = 45.0  # a worker drains, flushes and commits before it ends
_log = logging.getLogger("headrace.supervisor")


@dataclass
class Child:
    name: str
    arguments: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]
    restarts: list[float] = field(default_factory=list)  # monotonic seconds


class Supervisor:
    """`headrace <arguments>` as processes of their own, each with a log file under `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, {**environment, SUPERVISOR: str(os.getpid())}
        self._children: dict[str, Child] = {}
        self._stopping = threading.Event()
        self._failure: HeadraceError | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        log = self._folder / f"{name}.log"
        child = Child(name, arguments, log, self._spawn(arguments, log))
        with self._lock:
            self._children[name] = child
        if not self._thread.is_alive():
            self._thread.start()
        return child

    def child(self, name: str) -> Child:
        with self._lock:
            return self._children[name]

    def check(self) -> None:
        """Raises what a child died of for good."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """The first started is the last to stop."""
        self._stopping.set()
        with self._lock:
            children = list(self._children.values())
        for child in reversed(children):
            child.process.terminate()
        for child in children:
            try:
                child.process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                _log.warning("%s did not stop within %.0f s: killed", child.name, _GRACE_SECONDS)
                child.process.kill()
                child.process.wait()

    def _spawn(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "headrace.infra.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us, who stop them in order
            )

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            with self._lock:
                ended = [child for child in self._children.values() if child.process.poll() is not None]
            for child in ended:
                self._again(child)

    def _again(self, child: Child) -> None:
        now = monotonic()
        child.restarts = [at for at in child.restarts if now - at < 60] + [now]
        if len(child.restarts) > _RESTARTS:
            last = child.log.read_text(errors="replace").strip().splitlines()[-1:]
            words = "".join(last)
            self._failure = HeadraceError(
                f"{child.name} ended {_RESTARTS} times within a minute, see {child.log}. Its last words: {words}"
            )
            self._stopping.set()
            return
        _log.warning("%s ended with status %s: started again", child.name, child.process.returncode)
        child.process = self._spawn(child.arguments, child.log)
