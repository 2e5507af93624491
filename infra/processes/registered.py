"""a running worker, scheduler or server → a small file under `processes/`, so that commands on this machine find it."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import getpid
from pathlib import Path

import msgspec
import psutil

from headrace.infra.local.detached import Process, is_alive

_FOLDER = "processes"


@dataclass(frozen=True, kw_only=True)
class Registered:
    role: str  # worker, scheduler or serve
    pipelines: tuple[str, ...]
    metrics_port: int  # on the loopback
    host: str  # a home may be shared, and process ids are a machine's own
    process: Process


@contextmanager
def registered(home: Path, *, role: str, pipelines: Sequence[str], metrics_port: int) -> Iterator[None]:
    """Until the block's end. One that was killed leaves its file: it is known by its start, and goes with the next."""
    folder = home.absolute() / _FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for place, one in _read(folder):
        if one.host == socket.gethostname() and not is_alive(one.process):
            place.unlink(missing_ok=True)
    us = Registered(
        role=role,
        pipelines=tuple(pipelines),
        metrics_port=metrics_port,
        host=socket.gethostname(),
        process=Process(pid=getpid(), created=psutil.Process().create_time()),
    )
    ours = folder / f"{us.host}-{us.process.pid}.json"
    new = ours.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(us))
    new.replace(ours)
    try:
        yield
    finally:
        ours.unlink(missing_ok=True)


def living(home: Path) -> list[Registered]:
    """Those of this machine that run from `home`, or from a demo's own home in it."""
    folders = [home / _FOLDER, *home.glob(f"*/{_FOLDER}")]
    read = [one for folder in folders for _, one in _read(folder)]
    return [one for one in read if one.host == socket.gethostname() and is_alive(one.process)]


def _read(folder: Path) -> Iterator[tuple[Path, Registered]]:
    for place in sorted(folder.glob("*.json")):
        try:
            yield place, msgspec.json.decode(place.read_bytes(), type=Registered)
        except (OSError, msgspec.DecodeError):
            continue  # it has just ended, or the file is not ours
