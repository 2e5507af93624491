"""One Apache Kafka broker in KRaft mode, on the loopback interface only."""

import logging
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.infra.local.detached import HOST, Process, free_port, launch, listens
from headrace.infra.local.jars import classpath
from headrace.infra.local.java import find_java
from headrace.models.errors import ServerMissing

NAME = "Apache Kafka"
_HEAP = "-Xmx512m"
_FORMAT_PATIENCE_S = 60
_LIST_PATIENCE_S = 2.0


class Broker:
    name = NAME
    grace_s = 30.0  # a clean stop took 0.6 s; more only with many partitions to flush
    ready_s = 60.0  # a start took 2 to 4.5 s on 2 cores

    def launch(self, home: Path, port: int, report: Callable[[str], None]) -> Process:
        """Raises ServerMissing."""
        java, jars = find_java(), classpath(report)
        home.mkdir(parents=True, exist_ok=True)
        controller = free_port()  # nobody but the broker itself speaks to it, so it may change
        properties = home / "server.properties"
        properties.write_text(_lines(broker_properties(HOST, port, controller, home / "data")), encoding="utf-8")
        logging_to = home / "log4j2.properties"
        logging_to.write_text(_lines(_log4j(self.log(home))), encoding="utf-8")
        jvm: list[str | Path] = [java, "-cp", jars, f"-Dlog4j2.configurationFile={logging_to}"]
        if not (home / "data" / "meta.properties").exists():
            _format([*jvm, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool"], properties)
        return launch([*jvm, _HEAP, "kafka.Kafka", properties], self.log(home))

    def log(self, home: Path) -> Path:
        return home / "kafka.log"

    def answers(self, port: int) -> bool:
        if not listens(port):
            return False
        quiet = {"bootstrap.servers": f"{HOST}:{port}", "log_level": 0}
        try:
            return bool(AdminClient(quiet).list_topics(timeout=_LIST_PATIENCE_S).brokers)
        except KafkaException:
            return False


def broker_properties(host: str, port: int, controller: int, data: Path | str) -> dict[str, str]:
    """`host`: the address to listen on; clients are always told the loopback address."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # A topic that nobody declared is a mistake to be shown.
        "auto.create.topics.enable": "false",
        # One broker: the defaults of 3 replicas and 50 partitions would not start, or start slowly.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # 3 s of waiting for more members that are not to come, at each first join.
        "group.initial.rebalance.delay.ms": "0",
        # Tests of a killed worker need not wait for 6 s.
        "group.min.session.timeout.ms": "1000",
        # 128 MB of a 512 MB heap by default.
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),
    }


def _format(command: list[str | Path], properties: Path) -> None:
    # Kafka's own form of a UUID; a leading dash would be read as an option.
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
    done = subprocess.run(
        [*command, "format", "--ignore-formatted", "--cluster-id", cluster, "--config", properties],
        capture_output=True,
        text=True,
        timeout=_FORMAT_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        said = " | ".join((done.stderr or done.stdout).splitlines()[:3])
        msg = f"{NAME}: expected to format its data directory, got: {said}. Delete {properties.parent} and start again."
        raise ServerMissing(msg)
    logging.getLogger(__name__).debug("formatted: %s", done.stdout)


def _log4j(log: Path) -> dict[str, str]:
    return {
        "status": "ERROR",
        "appender.file.type": "RollingFile",
        "appender.file.name": "file",
        "appender.file.fileName": str(log),
        "appender.file.filePattern": f"{log}.%i",
        "appender.file.layout.type": "PatternLayout",
        "appender.file.layout.pattern": "%d{ISO8601} %p %m (%c{1})%n",
        "appender.file.policies.type": "Policies",
        "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
        "appender.file.policies.size.size": "10MB",
        "appender.file.strategy.type": "DefaultRolloverStrategy",
        "appender.file.strategy.max": "3",
        # Warnings and worse: at INFO one start writes 1,700 lines.
        "rootLogger.level": "WARN",
        "rootLogger.appenderRef.file.ref": "file",
    }


def _lines(properties: Mapping[str, str]) -> str:
    # A backslash escapes in this format, so a path with one must double it.
    return "".join(f"{key}={value.replace(chr(92), chr(92) * 2)}\n" for key, value in properties.items())
