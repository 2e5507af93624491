"""Finds or starts the servers: what the environment names, else this machine's own, else Docker."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.infra.local import docker
from headrace.infra.local.detached import HOST, Process, claim, free_port, wait_ready
from headrace.infra.local.kafka import Broker
from headrace.infra.local.redis import RedisServer
from headrace.infra.local.state import Record, State
from headrace.infra.settings import Settings
from headrace.models.errors import ServerMissing


class Server(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def grace_s(self) -> float: ...
    @property
    def ready_s(self) -> float: ...
    def launch(self, home: Path, port: int, report: Callable[[str], None]) -> Process: ...
    def log(self, home: Path) -> Path: ...
    def answers(self, port: int) -> bool: ...


KAFKA, REDIS = "kafka", "redis"
SERVERS: dict[str, Server] = {KAFKA: Broker(), REDIS: RedisServer()}


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """None: not asked for, or not running."""

    bootstrap_servers: str | None
    redis_url: str | None


def _silent(_: str) -> None: ...


class LocalServers:
    """A broker and a Redis with their data under `home`. As a context manager: for as long as the block.

    `report` is told, in a few words, of what takes longer than a second. `temporary`: remove containers, not only stop.
    """

    def __init__(
        self,
        home: Path,
        *,
        only: tuple[str, ...] = (KAFKA, REDIS),
        report: Callable[[str], None] = _silent,
        temporary: bool = False,
    ) -> None:
        self.home = home.resolve()
        self._names = only
        self._report = report
        self._temporary = temporary
        self._state = State(self.home)

    def start(self) -> Addresses:
        """Finds what runs, starts what does not, and returns when both answer.

        Raises ServerMissing, PortTaken, or HeadraceError with the end of the server's log.
        """
        with self._state.locked():
            records = {name: self._found_or_launched(name) for name in self._names}
            # Waited for after all are launched: they start side by side.
            for name, record in records.items():
                server = SERVERS[name]
                wait_ready(
                    server.name,
                    record.alive,
                    lambda server=server, port=record.port: server.answers(port),  # type: ignore[misc]
                    server.ready_s,
                    server.log(self.home / name),
                )
        return self._addresses(records)

    def stop(self) -> list[str]:
        """Names of those that it stopped, in order: the broker last, since Redis can be rebuilt from it."""
        stopped: list[str] = []
        with self._state.locked():
            records = self._state.read()
            for name in reversed(self._names):
                record = records.get(name)
                if record is None:
                    continue
                if record.alive():
                    record.end(SERVERS[name].grace_s, remove=self._temporary)
                    stopped.append(SERVERS[name].name)
                self._state.write(name, Record(port=record.port, container=record.container))
        return stopped

    def running(self) -> Addresses:
        """Starts nothing, and does not wait for one who starts."""
        alive = {name: record for name, record in self._state.read().items() if name in self._names and record.alive()}
        return self._addresses({name: record for name, record in alive.items() if SERVERS[name].answers(record.port)})

    def __enter__(self) -> Addresses:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _found_or_launched(self, name: str) -> Record:
        record = self._state.read().get(name)
        if record is not None and record.alive():
            return record
        port = record.port if record else free_port()
        claim(SERVERS[name].name, port, self._state.path)
        # The port first: it is what a start that is killed half-way must not lose.
        self._state.write(name, Record(port=port, container=record.container if record else None))
        started = self._launch(name, port, record.container if record else None)
        self._state.write(name, started)
        return started

    def _launch(self, name: str, port: int, container: str | None) -> Record:
        if container is not None and docker.again(container):
            return Record(port=port, container=container)
        server = SERVERS[name]
        try:
            return Record(port=port, process=server.launch(self.home / name, port, self._report))
        except ServerMissing as missing:
            try:
                return Record(port=port, container=docker.start(server.name, port, self._report))
            except ServerMissing as no_docker:
                msg = f"{missing} (Docker was tried too. {no_docker})"
                raise ServerMissing(msg) from missing

    def _addresses(self, records: dict[str, Record]) -> Addresses:
        kafka, redis = records.get(KAFKA), records.get(REDIS)
        return Addresses(
            bootstrap_servers=f"{HOST}:{kafka.port}" if kafka else None,
            redis_url=f"redis://{HOST}:{redis.port}/0" if redis else None,
        )


def started(settings: Settings, report: Callable[[str], None] = _silent) -> Settings:
    """`headrace up`: the settings with both addresses, starting locally whatever the environment does not name."""
    local = _local(settings, report)
    return settings if local is None else _filled(settings, local.start())


def located(settings: Settings) -> Settings:
    """For every other command: starts nothing. Raises ServerMissing when Kafka is neither named nor running."""
    local = _local(settings, _silent)
    if local is None:
        return settings
    found = _filled(settings, local.running())
    if found.bootstrap_servers is None:
        msg = (
            f"Expected a Kafka broker, KAFKA_BOOTSTRAP_SERVERS names none and none runs from {settings.home}."
            " Run: headrace up, or set KAFKA_BOOTSTRAP_SERVERS."
        )
        raise ServerMissing(msg)
    return found


def stopped(settings: Settings) -> list[str]:
    """`headrace down`: the names of what it stopped. What the environment names is not ours to stop."""
    return LocalServers(settings.home).stop() if settings.home.exists() else []


def _local(settings: Settings, report: Callable[[str], None]) -> LocalServers | None:
    named = {KAFKA: settings.bootstrap_servers, REDIS: settings.redis_url}
    ours = tuple(name for name, address in named.items() if address is None)
    return LocalServers(settings.home, only=ours, report=report) if ours else None


def _filled(settings: Settings, local: Addresses) -> Settings:
    return settings.model_copy(
        update={
            "bootstrap_servers": settings.bootstrap_servers or local.bootstrap_servers,
            "redis_url": settings.redis_url or local.redis_url,
        }
    )
