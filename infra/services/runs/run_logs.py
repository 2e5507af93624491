"""a run's folder → what its training printed, line by line, as it comes where it still trains."""

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from headrace.infra.names import Names
from headrace.infra.services.versions.book import RunFacts
from headrace.infra.settings import Settings
from headrace.infra.training import run_folder
from headrace.models.errors import BadInput
from headrace.trainer.run_folder import is_worked_on, logs

_LOOK_SECONDS = 0.2
_TAIL_BYTES = 1 << 20  # of one file: more of it is no page


class LogLine(msgspec.Struct, kw_only=True, frozen=True):
    run: str
    file: str  # of its attempt: run-1.log, …, and run.log of the newest
    line: str


def log_lines(settings: Settings, names: Names, run: RunFacts, *, follow: bool = False) -> Iterator[LogLine]:
    """Of every attempt, oldest first. With `follow`, until the newest one ends. Raises BadInput."""
    folder = run_folder(settings, names, run.run)
    files = logs(folder)
    if not files:
        raise BadInput(f"run {run.run}: {_why_not(run, folder)}")
    for file in files[:-1]:
        yield from (LogLine(run=run.run, file=file.name, line=line) for line in _lines(file, None))
    newest = files[-1]
    yield from (
        LogLine(run=run.run, file=newest.name, line=line) for line in _lines(newest, folder if follow else None)
    )


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The end of a run's log, for a page."""

    lines: list[str]
    whole: bool  # nothing is left out


def newest_lines(settings: Settings, names: Names, run: RunFacts, most: int) -> Tail:
    """Of all attempts together, oldest first, however much they printed. Raises BadInput."""
    folder = run_folder(settings, names, run.run)
    files = logs(folder)
    if not files:
        raise BadInput(f"run {run.run}: {_why_not(run, folder)}")
    lines: list[str] = []
    for file in reversed(files):
        found, whole = _end_of(file)
        lines = found + lines
        if not whole or len(lines) > most:
            return Tail(lines=lines[-most:], whole=False)
    return Tail(lines=lines, whole=True)


def _end_of(file: Path) -> tuple[list[str], bool]:
    """Its lines, and whether they are all of them."""
    with file.open("rb") as data:
        left_out = max(0, data.seek(0, os.SEEK_END) - _TAIL_BYTES)
        data.seek(left_out)
        text = data.read(_TAIL_BYTES).decode(errors="replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if left_out:
        lines = lines[1:] or lines  # the first one has lost its beginning
    return (lines if lines[-1] else lines[:-1]), not left_out


def _lines(file: Path, followed: Path | None) -> Iterator[str]:
    pause = threading.Event()
    with file.open(errors="replace") as text:
        rest = ""
        while True:
            alive = followed is not None and is_worked_on(followed)  # before it is read: it may end meanwhile
            *whole, rest = (rest + text.read()).split("\n")
            yield from whole
            if not alive:
                break
            pause.wait(_LOOK_SECONDS)
        if rest:
            yield rest


def _why_not(run: RunFacts, folder: Path) -> str:
    here = socket.gethostname()
    if not run.host:
        return f"expected a run that trains or has trained, its state is {run.state}: {run.reason or 'it waits'}"
    if run.host != here:
        return f"it trained on {run.host}, this is {here}. Run this there, or look into {folder} on that machine."
    return f"expected its log in {folder}, it is gone: only the newest are kept, and a home may be another one"
