"""home → the peers that are installed there, and how each is started.

A peer keeps to the contract in docs/benchmarks.md, does not import headrace and lives in `<home>/bench/<its name>`: a
virtual environment, or what Maven has built. Each has the best public configuration that we know; `tuning` says which.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.infra.local.java import find_java
from headrace.models.errors import ServerMissing

_SCRIPTS: Final = Path(__file__).resolve().parent
_JAVA_PROJECT: Final = _SCRIPTS.parents[2] / "tests" / "bench" / "kafka_streams"
_STAMP: Final = "installed.txt"  # the requirements that the environment has
_OLDEST_MINOR: Final = 11  # of Python 3, as for headrace
_LAST_LINES: Final = 5
# As much memory from the start as it may take; of the collectors this one left most to the application.
_JVM: Final = ("-Xms512m", "-Xmx512m", "-XX:+UseParallelGC")


@dataclass(frozen=True, kw_only=True)
class Peer:
    name: str  # of its folder, too
    title: str
    script: str | None = None  # beside this file; none is the Maven project
    requirements: tuple[str, ...] = ()  # pip's; none is the Maven project
    newest_python: tuple[int, int] | None = None  # that its wheels are for
    exactly_once: bool = False
    tuning: str

    @property
    def own_venv(self) -> bool:
        """Their pins clash with ours and with each other's: quixstreams wants confluent-kafka below 2.13."""
        return self.script is not None

    def command(self, home: Path) -> list[str] | None:
        """Its program, to be given the options of the contract; None where it is not installed, or out of date."""
        folder = _folder(self, home)
        if self.script is not None:
            stamp = folder / _STAMP
            current = stamp.is_file() and stamp.read_text(encoding="utf-8") == _listed(self.requirements)
            return [str(_python(folder)), str(_SCRIPTS / self.script)] if current else None
        jar = folder / "peer.jar"
        if not jar.is_file() or jar.stat().st_mtime < max(path.stat().st_mtime for path in _sources()):
            return None
        try:
            return [str(find_java()), *_JVM, "-jar", str(jar)]
        except ServerMissing:
            return None


PEERS: Final = (
    Peer(
        name="kafka-streams",
        title="Kafka Streams",
        exactly_once=True,
        tuning="a poll's 1000 events scored at once, by a consumer interceptor (three times as fast as one by one in a"
        " processor, and as safe: nothing is kept back); direct buffers, fastjson2, lz4, batches of 1 MB, linger 5 ms,"
        " fetches of 10 MB, no CRC check, ParallelGC; commits every 200 ms, with exactly_once_v2 every 100 ms",
    ),
    Peer(
        name="bytewax",
        title="Bytewax",
        script="bytewax_flow.py",
        newest_python=(3, 12),
        requirements=(
            "bytewax==0.21.1",
            "confluent-kafka==2.16.1",
            "msgspec==0.22.0",
            "numpy==2.4.6",
            "onnxruntime==1.31.1",
        ),
        tuning="chunks of 1000 messages as items, from a source and to a sink of our own on librdkafka, with headrace's"
        " client settings; msgspec; commits to the group every 200 ms, which Bytewax's own source never does",
    ),
    Peer(
        name="quix-streams",
        title="Quix Streams",
        script="quix_streams.py",
        requirements=("quixstreams==3.28.1", "msgspec==0.22.0", "numpy==2.4.6", "onnxruntime==1.31.1"),
        exactly_once=True,
        tuning="at least once, a sink that scores 1000 events, or those of 5 ms, at once (twice as fast as one by"
        " one); exactly once, one by one, since a sink is outside the transaction; msgspec, bytes in and out, no"
        " changelogs, headrace's client settings; commits every 200 ms, exactly once every 100 ms",
    ),
    Peer(
        name="faust",
        title="Faust agent",
        script="faust_agent.py",
        requirements=(
            "faust-streaming==0.15.3",
            "aiokafka[lz4]==0.14.0",
            "uvloop==0.23.0",
            "msgspec==0.22.0",
            "numpy==2.4.6",
            "onnxruntime==1.31.1",
        ),
        tuning="a plain agent, event by event; uvloop, Faust's compiled streams, msgspec, a bound ONNX row, lz4, 1 MB"
        " batches, quiet loggers, a stream buffer of 16,384; commits every 200 ms",
    ),
)


_ONNX: Final = ("numpy==2.4.6", "onnxruntime==1.31.1")
_HTTP: Final = ("uvloop==0.23.0", "httptools==0.9.0")
SERVERS: Final = (  # of requests over HTTP: see `serve/`
    Peer(
        name="mlserver",
        title="MLServer",
        script="mlserver_runtime.py",
        requirements=(
            "mlserver==1.7.1",
            *_ONNX,
            "uvloop==0.21.0",
            "httptools==0.9.0",
        ),  # with 0.22 its workers do not start
        tuning="a custom ONNX runtime with the numpy codec; uvloop; no metrics, no access log, no debug",
    ),
    Peer(
        name="bentoml",
        title="BentoML",
        script="bentoml_service.py",
        requirements=("bentoml==1.4.39", *_ONNX, *_HTTP),
        tuning="a service on numpy arrays; uvloop, httptools; no metrics, no access log",
    ),
    Peer(
        name="litserve",
        title="LitServe",
        script="litserve_api.py",
        requirements=("litserve==0.2.19", *_ONNX, *_HTTP),
        tuning="an API on plain lists; uvloop, httptools; no access log",
    ),
)


def install(peer: Peer, home: Path, say: Callable[[str], None]) -> None:
    """Does nothing where it is installed. Raises ServerMissing, with the end of what pip or Maven said."""
    if peer.command(home) is not None:
        return
    say(f"installing {peer.title}")
    folder = _folder(peer, home)
    if not peer.own_venv:
        maven = shutil.which("mvn")
        if maven is None:
            msg = f"{peer.title}: expected mvn on PATH, found none. Install Apache Maven and a JDK 17 or newer."
            raise ServerMissing(msg)
        _run(peer, [maven, "-q", "-f", str(_JAVA_PROJECT), f"-Doutput={folder}", "package"])
        (folder / "peer.jar").touch()  # Maven leaves it as it is where only a comment changed
        return
    _run(peer, [_interpreter(peer), "-m", "venv", "--clear", str(folder)])
    pip = [str(_python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(peer, [*pip, *peer.requirements])
    (folder / _STAMP).write_text(_listed(peer.requirements), encoding="utf-8")


def _interpreter(peer: Peer) -> str:
    if peer.newest_python is None or sys.version_info[:2] <= peer.newest_python:
        return sys.executable
    major, newest = peer.newest_python
    for minor in range(newest, _OLDEST_MINOR - 1, -1):
        found = shutil.which(f"python{major}.{minor}")
        if found is not None and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    msg = f"{peer.title}: expected a Python 3.{_OLDEST_MINOR} to {major}.{newest} on PATH, found none. Install one."
    raise ServerMissing(msg)


def _run(peer: Peer, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " | ".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
        tool = Path(command[0]).name
        msg = f"{peer.title}: expected {tool} to install it, got: {said}. Check the network, then try again."
        raise ServerMissing(msg)


def _folder(peer: Peer, home: Path) -> Path:
    return home.resolve() / "bench" / peer.name


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _listed(requirements: Sequence[str]) -> str:
    return "\n".join(requirements) + "\n"


def _sources() -> list[Path]:
    return [_JAVA_PROJECT / "pom.xml", *(path for path in (_JAVA_PROJECT / "src").rglob("*") if path.is_file())]
