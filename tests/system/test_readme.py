"""The README's first steps, typed as they stand there, with real servers and real processes."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import msgspec
import pytest
from kit import wait_for

from headrace.infra.settings import CONFIG_VARIABLE
from headrace.infra.topic_reader import TopicReader
from headrace.models.records import Switched

pytestmark = pytest.mark.system

README = Path(__file__).parents[2] / "README.md"
_BLOCK_SECONDS = 90.0  # a block takes a few seconds; a broken one must not take the whole run's time


def blocks():
    """The shell blocks that are marked to be run, in their order."""
    return re.findall(r"^```sh run\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class Shell:
    """One bash that is given block after block, as a person would; it ends at the first command that fails."""

    def __init__(self, folder, environment):
        self._process = subprocess.Popen(
            ["bash", "-euo", "pipefail"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines = queue.SimpleQueue()
        self.said = []
        threading.Thread(target=self._read, daemon=True).start()

    def run(self, block):
        """The lines that it printed. Raises AssertionError with all of them where a command failed."""
        # a group, so that bash reads the whole block before it runs it: commands share our standard input
        self._process.stdin.write(f"{{\n{block}}} </dev/null\necho done-with-the-block\n")
        self._process.stdin.flush()
        lines, deadline = [], monotonic() + _BLOCK_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError("this block failed, or took too long:\n" + block + "\n" + "\n".join(self.said))
            if line == "done-with-the-block":
                return lines
            lines.append(line)
            self.said.append(line)

    def close(self):
        """With whatever it started: `up` stops its children when it is told to."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@pytest.fixture
def shell(settings, tmp_path):
    """As after `. .venv/bin/activate`, in an empty folder, with the session's servers and a prefix of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    if CONFIG_VARIABLE in os.environ:
        environment[CONFIG_VARIABLE] = os.environ[CONFIG_VARIABLE]
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "REDIS_URL": settings.redis_url,
        "HEADRACE_PREFIX": settings.prefix,
        "HEADRACE_HOME": str(settings.home),
    }
    found = Shell(tmp_path, environment)
    yield found
    found.close()


def await_swap(settings):
    """Until the worker has said on the history topic that it serves version 1."""
    reader = TopicReader(settings, [settings.prefixed("late-orders.history")])
    versions = set()

    def swapped():
        versions.update(msgspec.json.decode(message.value(), type=Switched).version for message in reader.poll(0.1))
        return 1 in versions

    try:
        wait_for("the worker to swap to version 1", swapped)
    finally:
        reader.close()


def records(lines):
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_the_first_steps_of_the_readme_lead_to_a_model_that_serves(shell, settings):
    """What the README says comes a moment later is waited for; everything else is only typed."""
    scaffold, serve, learn, again = blocks()

    shell.run(scaffold)

    baseline = records(shell.run(serve))
    assert [(one["id"], one["version"]) for one in baseline] == [("o-0001", 0), ("o-0002", 0), ("o-0003", 0)]

    assert any("champion" in line for line in shell.run(learn))

    await_swap(settings)
    (answer,) = records(shell.run(again))
    assert (answer["id"], answer["version"]) == ("o-9001", 1)
    assert answer["source"] == [settings.prefixed("orders"), 0, 800]
