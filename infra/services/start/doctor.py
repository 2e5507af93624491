"""this machine, its servers and a pipeline's topics → what is there, what is missing, and what to do about it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import redis
from confluent_kafka import KafkaException

from headrace.infra.kafka import ensure_reachable
from headrace.infra.local.java import find_java
from headrace.infra.local.redis import find_redis_server
from headrace.infra.local.servers import LocalServers
from headrace.infra.names import Names
from headrace.infra.pipeline_file import PipelineFile
from headrace.infra.settings import Settings
from headrace.infra.topics import differences
from headrace.models.errors import HeadraceError

_OLDEST_PYTHON = (3, 11)
_SECONDS = 3.0
_TRAIN = ("torch", "onnxscript", "polars")


@dataclass(frozen=True, kw_only=True)
class Check:
    """`found` where it is there, else `missing` with its remedy. Only what is `needed` makes the doctor complain."""

    name: str
    ok: bool
    needed: bool
    found: str = ""
    missing: str = ""


def examine(settings: Settings, file: PipelineFile | None = None) -> Iterator[Check]:
    """One check after the other, as they are made. Servers that run, or are named, need nothing to be started with."""
    yield _python()
    local = LocalServers(settings.home).running() if settings.home.exists() else None
    kafka = settings.bootstrap_servers or (local.bootstrap_servers if local else None)
    url = settings.redis_url or (local.redis_url if local else None)
    settings = settings.model_copy(update={"bootstrap_servers": kafka, "redis_url": url})
    yield _of("Java", lambda: str(find_java()), needed=kafka is None)
    yield _of("redis-server", lambda: str(find_redis_server()), needed=url is None)
    yield _docker()
    for package in _TRAIN:
        yield _package(package)
    broker = _of("Kafka", lambda: _kafka(settings), needed=True)
    yield broker
    stored = file is not None and any(pipeline.stored for pipeline in file.pipelines.values())
    yield _of("Redis", lambda: _redis(settings), needed=stored)
    if file is not None and broker.ok:
        for pipeline in file.pipelines.values():
            names = Names(settings.prefix, pipeline)
            yield _of(f"topics of {pipeline.name}", lambda names=names: _topics(settings, names), needed=True)  # type: ignore[misc]


def _of(name: str, find: Callable[[], str], *, needed: bool) -> Check:
    try:
        return Check(name=name, ok=True, needed=needed, found=find())
    except HeadraceError as error:
        return Check(name=name, ok=False, needed=needed, missing=str(error))


def _python() -> Check:
    here = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= _OLDEST_PYTHON:
        return Check(name="Python", ok=True, needed=True, found=f"{here}, {sys.executable}")
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    return Check(name="Python", ok=False, needed=True, missing=f"expected {oldest} or newer, got {here}")


def _docker() -> Check:
    found = shutil.which("docker")
    if found:
        return Check(name="Docker", ok=True, needed=False, found=found)
    return Check(name="Docker", ok=False, needed=False, missing="not on PATH; only wanted where Java or Redis is not")


def _package(name: str) -> Check:
    """Looked for, not imported: torch takes seconds."""
    try:
        if find_spec(name) is not None:
            return Check(name=name, ok=True, needed=False, found=version(name))
    except (PackageNotFoundError, ValueError):
        pass
    return Check(
        name=name, ok=False, needed=False, missing="only schedulers train, and need it: pip install 'headrace[train]'"
    )


def _kafka(settings: Settings) -> str:
    ensure_reachable(settings, _SECONDS)
    return str(settings.bootstrap_servers)


def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        raise HeadraceError("Lookup and Aggregate features live there, and none is named. Run: headrace up")
    try:
        with redis.Redis.from_url(
            settings.redis_url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
        ) as client:
            about = client.info("server")
    except (redis.RedisError, ValueError) as error:
        raise HeadraceError(
            f"{settings.redis_shown} does not answer: {error}. Run: headrace up, or set REDIS_URL"
        ) from error
    return f"{about['redis_version']} at {settings.redis_shown}"


def _topics(settings: Settings, names: Names) -> str:
    try:
        found = differences(settings, names)
    except KafkaException as error:
        raise HeadraceError(f"no answer: {error.args[0].str()}") from error
    if found:
        raise HeadraceError("; ".join(found) + ". Run: headrace apply")
    return "as the pipeline needs them"
