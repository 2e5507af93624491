"""Kafka and Redis in containers, where this machine lacks a Java or a redis-server but has a Docker engine."""

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from headrace.infra.local.detached import HOST, free_port
from headrace.infra.local.jars import KAFKA_VERSION
from headrace.infra.local.kafka import broker_properties
from headrace.models.errors import ServerMissing

_REDIS_PORT = 6379
_DATA = "/tmp/headrace-data"  # noqa: S108 - inside the container, where the image's user may write


def start(name: str, port: int, report: Callable[[str], None]) -> str:
    """The container's id. It outlives this process and keeps its data when stopped. Raises ServerMissing."""
    engine()  # before anything is pulled
    # testcontainers' reaper would remove the container together with the process that started it.
    importlib.import_module("testcontainers.core.config").testcontainers_config.ryuk_disabled = True
    make = importlib.import_module("testcontainers.core.container").DockerContainer
    report(f"starting {name} in Docker")
    container = _kafka(make, port) if name == "Apache Kafka" else _redis(make, port)
    try:
        return str(container.start().get_wrapped_container().id)
    except Exception as error:  # testcontainers passes on docker's, requests' and its own
        msg = (
            f"{name}: expected Docker to run its image, got {type(error).__name__}: {error}."
            " Start a server by hand and name it in the environment."
        )
        raise ServerMissing(msg) from error


def is_alive(container: str) -> bool:
    with suppress(Exception):  # no engine or no such container: not alive either way
        return bool(engine().containers.get(container).status == "running")
    return False


def again(container: str) -> bool:
    """Starts a stopped one, with its data; False when it is gone."""
    with suppress(Exception):
        engine().containers.get(container).start()
        return True
    return False


def end(container: str, grace_s: float, *, remove: bool) -> None:
    with suppress(Exception):  # gone already is what was asked for
        found = engine().containers.get(container)
        found.stop(timeout=int(grace_s))
        if remove:
            found.remove(v=True, force=True)


def engine() -> Any:
    """A client of the Docker engine. Raises ServerMissing."""
    try:
        importlib.import_module("testcontainers")
        client = importlib.import_module("docker").from_env()
    except ImportError:
        msg = "Docker: expected the package testcontainers, it is not installed. Run: pip install testcontainers."
        raise ServerMissing(msg) from None
    except Exception as error:  # DockerException, or requests' own where the socket is odd
        where = os.environ.get("DOCKER_HOST", "the default socket")
        msg = f"Docker: expected an engine to answer at {where}, got none. Start Docker, or set DOCKER_HOST."
        raise ServerMissing(msg) from error
    return client


def _kafka(make: Callable[[str], Any], port: int) -> Any:
    container = make(f"apache/kafka:{KAFKA_VERSION}").with_bind_ports(port, (HOST, port))
    for key, value in broker_properties("0.0.0.0", port, free_port(), _DATA).items():  # noqa: S104 - published on loopback
        container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    return container.with_env("KAFKA_HEAP_OPTS", "-Xmx512m")


def _redis(make: Callable[[str], Any], port: int) -> Any:
    return (
        make("redis:7-alpine").with_bind_ports(_REDIS_PORT, (HOST, port)).with_command("redis-server --appendonly yes")
    )
