"""Server processes that outlive whoever started them, and how to find them again."""

import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import psutil

from headrace.models.errors import HeadraceError, PortTaken

HOST = "127.0.0.1"
# Below those that kernels give to outgoing connections (32768 up): a saved port would one day be one of those.
_PORTS = range(20_000, 32_000)
_SAME_START_S = 2.0  # a start time is derived from the boot time, which moves when the clock is set
_POLL_S = 0.05
_RELEASE_S = 2.0  # how long the kernel may take to give back the port of a server that has just ended
# The shell ends at once, so the server is nobody's child here: no zombie, no wait, nothing to keep a reference to.
_SHELL = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    created: float  # seconds since the epoch; with the pid it names one process, also after the pid was used again


def launch(command: Sequence[str | Path], log: Path) -> Process:
    """In a session of its own: neither Ctrl-C in the terminal nor its end reaches the server."""
    shell = ["/bin/sh", "-c", _SHELL, "sh", log, *command]
    done = subprocess.run(shell, start_new_session=True, stdout=subprocess.PIPE, text=True, check=True)
    pid = int(done.stdout)
    try:
        return Process(pid=pid, created=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return Process(pid=pid, created=0.0)  # ended at once; whoever waits for it reads its log


def is_alive(process: Process) -> bool:
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.created) < _SAME_START_S
        # A killed JVM's first thread is a zombie while the others still hold its port and its files.
        dead = found.status() == psutil.STATUS_ZOMBIE and found.num_threads() <= 1
        return bool(same and not dead)
    except psutil.NoSuchProcess:
        return False


def end(process: Process, grace_s: float) -> None:
    """SIGTERM, so that it flushes; SIGKILL after `grace_s`. Returns when it is gone."""
    if not is_alive(process):
        return
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(process.pid)
        found.terminate()
        if not poll(lambda: not is_alive(process), grace_s):
            found.kill()
            poll(lambda: not is_alive(process), grace_s)


def poll(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def wait_ready(name: str, alive: Callable[[], bool], answers: Callable[[], bool], within_s: float, log: Path) -> None:
    """Raises HeadraceError with the end of the server's log."""
    if poll(lambda: not alive() or answers(), within_s) and alive():
        return
    what = f"did not answer within {within_s:.0f} s" if alive() else "ended while it started"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:] if log.exists() else []
    msg = f"{name} {what}; see {log}. Its last words: {' | '.join(lines) or 'none'}"
    raise HeadraceError(msg)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    random = SystemRandom()  # two starters must not try the same ports in the same order
    for port in random.sample(_PORTS, k=200):
        if _bindable(port):
            return port
    msg = f"Expected a free port between {_PORTS.start} and {_PORTS.stop}, tried 200 and found none. Stop some servers."
    raise PortTaken(msg)


def claim(name: str, port: int, state: Path) -> None:
    """Raises PortTaken: a port that clients may have written down is never changed silently."""
    if not poll(lambda: _bindable(port), _RELEASE_S):
        msg = (
            f"{name}: expected port {port} of {HOST} to be free, got another program's server there."
            f" Stop that program, or delete {state} to have a new port chosen."
        )
        raise PortTaken(msg)


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
