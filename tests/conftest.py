"""One real broker and one real Redis for the whole run: the environment's where it names them, else this machine's."""

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka.admin import NewTopic
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from headrace.infra.kafka import admin
from headrace.infra.local.servers import KAFKA, REDIS, Addresses, LocalServers
from headrace.infra.settings import CONFIG_VARIABLE, Settings
from headrace.infra.topics import await_visible

# How long an example takes says how busy the machine is, and nothing of headrace.
hypothesis_settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any machine")

# Number 0 stays empty: a test that forgot its own database is seen there. The local server has 64.
_DATABASES = itertools.cycle(range(1, 64))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick ones first, so that a mistake shows in seconds; on several processes the long ones, so that none is left to
    run alone at the end."""
    order = {"unit": 0, "integration": 1, "system": 2}
    if hasattr(config, "workerinput"):
        order = {kind: -place for kind, place in order.items()}
    items.sort(key=lambda item: order.get(item.path.relative_to(item.config.rootpath).parts[1], 3))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    named = {KAFKA: os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), REDIS: os.environ.get("REDIS_URL")}
    ours = tuple(name for name, address in named.items() if not address)
    home = tmp_path_factory.mktemp("servers", numbered=True)
    with LocalServers(home, only=ours, temporary=True) as local:
        yield Addresses(
            bootstrap_servers=named[KAFKA] or local.bootstrap_servers, redis_url=named[REDIS] or local.redis_url
        )


@pytest.fixture
def settings(servers: Addresses, tmp_path: Path) -> Settings:
    """A prefix that nobody else has, and locally an empty Redis database too."""
    url = servers.redis_url
    if url and not os.environ.get("REDIS_URL"):
        url = f"{url.rpartition('/')[0]}/{next(_DATABASES)}"
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    return Settings(
        bootstrap_servers=servers.bootstrap_servers,
        redis_url=url,
        prefix=f"t{uuid.uuid4().hex[:10]}.",
        home=tmp_path / "home",
        kafka=Settings.load().kafka if os.environ.get(CONFIG_VARIABLE) else {},
    )


@pytest.fixture
def topic(settings: Settings) -> Callable[..., str]:
    """`topic("flights", 3)` creates a topic and returns its full name. Left to the temporary broker's end."""

    def create(name: str, partitions: int = 1, **config: str) -> str:
        full = settings.prefixed(name)
        options = {key.replace("_", "."): value for key, value in config.items()}
        replicas = settings.replication
        new = NewTopic(full, num_partitions=partitions, replication_factor=replicas, config=options)
        client = admin(settings)  # kept in a name: a future dies with its client
        client.create_topics([new])[full].result(timeout=30)
        await_visible(client, {full})
        return full

    return create


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a file: while it is there, this thread has an event loop that other tests would
    want for themselves."""
    from browser import chromium

    with chromium() as found:
        yield found
