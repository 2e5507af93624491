"""Kafka's jars: resolved once from Maven coordinates, then found by a list that names and measures them."""

import fcntl
import importlib
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headrace.models.errors import ServerMissing

KAFKA_VERSION = "4.3.1"  # 4.4.0's dependencies do not resolve
# `!`: without it jgo also obeys what log4j's own build manages, and that is kafka-clients 3.9.1.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
_AT_ONCE = 8  # downloads; 46 files and 44 MB took 3 s so


def classpath(report: Callable[[str], None]) -> str:
    """The broker's class path. Downloads on the first call of a machine; needs neither Java nor Maven to do so.

    Raises ServerMissing.
    """
    listed = _cache() / f"kafka-{KAFKA_VERSION}.json"
    listed.parent.mkdir(parents=True, exist_ok=True)
    with listed.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first starts at once would write into each other's downloads
        if jars := _still_there(listed):
            return os.pathsep.join(jars)
        report(f"fetching Apache Kafka {KAFKA_VERSION} (44 MB, once)")
        paths = _resolve()
        written = listed.with_suffix(".new")
        written.write_text(json.dumps({str(path): path.stat().st_size for path in paths}), encoding="utf-8")
        written.replace(listed)
        return os.pathsep.join(str(path) for path in paths)


def _cache() -> Path:
    # By machine and user, not by project: a temporary home should not download again.
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def _still_there(listed: Path) -> list[str]:
    try:
        sizes: dict[str, int] = json.loads(listed.read_text(encoding="utf-8"))
        whole = all(Path(jar).stat().st_size == size for jar, size in sizes.items())
    except (OSError, ValueError):
        return []
    return list(sizes) if whole else []


def _resolve() -> list[Path]:
    try:
        jgo = importlib.import_module("jgo")
    except ImportError:
        msg = (
            "Apache Kafka's jars are fetched by jgo, which is not installed."
            " Run: pip install 'headrace[local]', or set KAFKA_BOOTSTRAP_SERVERS to a cluster of yours."
        )
        raise ServerMissing(msg) from None
    try:
        artifacts = jgo.resolve(COORDINATES)
        mixed = [str(one) for one in artifacts if one.groupId == "org.apache.kafka" and one.version != KAFKA_VERSION]
        if mixed:
            msg = f"jgo resolved {', '.join(mixed)} instead of {KAFKA_VERSION}"
            raise RuntimeError(msg)  # noqa: TRY301 - one way out for all that can go wrong with Maven
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(_whole, artifacts))
    except Exception as error:
        # jgo raises whatever requests, its parser or the file system do; all of it means: no broker from here.
        msg = (
            f"Expected to fetch Apache Kafka {KAFKA_VERSION} from Maven Central, got {type(error).__name__}: {error}."
            " Check the network and proxy, or set KAFKA_BOOTSTRAP_SERVERS to a cluster of yours."
        )
        raise ServerMissing(msg) from error


def _whole(artifact: Any) -> Path:
    """A download that was cut off stays in Maven's local repository; jgo would take it as done for ever."""
    path = Path(artifact.resolve())
    if not zipfile.is_zipfile(path):
        path.unlink()
        path = Path(artifact.resolve())
    return path
