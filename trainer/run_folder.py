"""a run's folder → whether somebody works there, what they said, and that they are to stop.

A training outlives whoever started it, so nothing of it is held by a pipe or a parent: whoever finds the folder can
take the run up. Its processes hold a lock, which the kernel releases with their life, whatever ended it.

    lock              held while a process trains
    messages.jsonl    progress, and the outcome as the last line
    stop              somebody wants it to end
    run.log           what the training printed; run-1.log, … of the attempts before
"""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import msgspec

from headrace.models.errors import RunFailed
from headrace.trainer.messages import Message, Progressed

LOCK, MESSAGES, STOP, LOG = "lock", "messages.jsonl", "stop", "run.log"
_STOPS_SECONDS = 2.0


@contextmanager
def entered(folder: Path) -> Iterator[int]:
    """The lock as a descriptor to hand on, and the folder ready for an attempt. Raises RunFailed where one goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _locked(lock):
            raise RunFailed("busy", f"a process trains in {folder} already")
        for name in (MESSAGES, STOP):
            (folder / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (folder / LOG).rename(folder / f"run-{len(logs(folder))}.log")
        yield lock
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Whoever only looks holds it for a moment; a training that was told to stop, for some more."""
    pause, deadline = threading.Event(), monotonic() + _STOPS_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                return False
            pause.wait(0.02)
        else:
            return True


def is_worked_on(folder: Path) -> bool:
    """Whether a process trains there now."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def logs(folder: Path) -> list[Path]:
    """What every attempt printed, oldest first."""
    earlier = sorted(folder.glob("run-*.log"), key=lambda path: int(path.stem.removeprefix("run-")))
    return [*earlier, folder / LOG] if (folder / LOG).exists() else earlier


def said(folder: Path) -> list[Message]:
    """Everything, from the beginning."""
    return list(Messages(folder).new())


def has_outcome(messages: Sequence[Message]) -> bool:
    return bool(messages) and not isinstance(messages[-1], Progressed)


class Messages:
    """What is said in a folder, as it comes."""

    def __init__(self, folder: Path) -> None:
        self._path, self._position = folder / MESSAGES, 0

    def new(self) -> list[Message]:
        """Whole lines since the last call. One that was cut off by its writer's death is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        found = []
        for line in filter(None, whole.split(b"\n")):
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=Message))
        return found
