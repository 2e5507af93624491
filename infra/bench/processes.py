"""a contender's processes: started, their last words, stopped in order."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

_GRACE_SECONDS: Final = 45.0
_LAST_LINES: Final = 5


class Launch(Protocol):
    @property
    def command(self) -> Sequence[str]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def folder(self) -> Path:
        """Its working directory, where its logs are, too."""

    @property
    def processes(self) -> int: ...


@contextmanager
def running(started: Launch) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """SIGTERM at the end; SIGKILL for whoever does not hear it, and for what it leaves behind."""
    processes = []
    try:
        for number in range(started.processes):
            processes.append(_spawned(started, number))  # noqa: PERF401  those that run are ended, whatever the next does
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with suppress(ProcessLookupError):  # LitServe's inference processes outlive it
                os.killpg(process.pid, signal.SIGKILL)


def last_words(started: Launch) -> str:
    logs = sorted(started.folder.glob("log-*.txt"))
    lines = [line for log in logs for line in log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]]
    return " | ".join(lines) or "it said nothing"


def _spawned(started: Launch, number: int) -> subprocess.Popen[bytes]:
    with (started.folder / f"log-{number}.txt").open("ab") as output:
        return subprocess.Popen(
            started.command,
            cwd=started.folder,
            env=dict(started.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, who stop it in order
        )
