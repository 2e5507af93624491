"""A supervisor that is killed leaves nobody behind."""

import os
import signal
import subprocess
import sys

import psutil
from kit import wait_for

from headrace.infra.demo import run as demo
from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.processes.together import environment
from headrace.infra.topics import apply


def test_workers_schedulers_and_servers_stop_when_their_supervisor_was_killed(settings):
    names = Names(settings.prefix, read_pipeline(str(demo.FILE)))
    apply(settings, names.pipeline)
    command = [sys.executable, "-m", "headrace.infra.cli", "up", str(demo.FILE)]
    supervisor = subprocess.Popen(command, env=environment(settings), stdout=subprocess.DEVNULL)

    def children():
        return [child for child in psutil.Process(supervisor.pid).children() if child.is_running()]

    wait_for("a worker, a scheduler and a server", lambda: len(children()) == 3)
    left = children()
    logs = settings.home / "logs"
    wait_for("all to be up", lambda: sum("metrics on" in file.read_text() for file in logs.glob("*.log")) == 3)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []
