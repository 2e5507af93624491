"""a contender's processes: started, their last words, stopped in order."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from headrace.infra.bench.contender import Started

_GRACE_SECONDS: Final = 45.0
_LAST_LINES: Final = 5


@contextmanager
def running(started: Started) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """SIGTERM at the end; SIGKILL for whoever does not hear it."""
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


def last_words(started: Started) -> str:
    logs = sorted(started.folder.glob("log-*.txt"))
    lines = [line for log in logs for line in log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]]
    return " | ".join(lines) or "it said nothing"


def _spawned(started: Started, number: int) -> subprocess.Popen[bytes]:
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
