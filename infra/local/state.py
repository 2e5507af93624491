"""`servers.json`: which process or container is whose, and on which port, so that any later command finds them."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.infra.local import docker
from headrace.infra.local.detached import Process, end, is_alive


@dataclass(frozen=True, kw_only=True)
class Record:
    port: int  # kept when the server is down: clients have it in their files
    process: Process | None = None
    container: str | None = None

    def alive(self) -> bool:
        if self.container is not None:
            return docker.is_alive(self.container)
        return self.process is not None and is_alive(self.process)

    def end(self, grace_s: float, *, remove: bool) -> None:
        if self.container is not None:
            docker.end(self.container, grace_s, remove=remove)
        elif self.process is not None:
            end(self.process, grace_s)


class State:
    def __init__(self, home: Path) -> None:
        self.path = home / "servers.json"
        self._lock = home / "servers.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One starter or stopper at a time; a killed one leaves no lock behind."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> dict[str, Record]:
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                name: Record(
                    port=one["port"],
                    process=Process(**one["process"]) if one["process"] else None,
                    container=one["container"],
                )
                for name, one in raw.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none yet, or not ours: start afresh

    def write(self, name: str, record: Record) -> None:
        """Whole or not at all: a kill in between leaves the old file."""
        content = {key: asdict(value) for key, value in (self.read() | {name: record}).items()}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=2), encoding="utf-8")
        new.replace(self.path)
