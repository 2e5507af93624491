"""graph and rows → a process that may die → scores: where a version runs for the first time.

The process is there before a version comes: its imports take a moment, a fork of it for each version milliseconds.
Whatever happens over there, here it is scores or a RegistryRefused.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.infra.sandbox_messages import (
    MAX_ANSWER,
    Answer,
    Ended,
    Limits,
    NotProved,
    Trial,
    in_memory,
    pack,
    rows_told,
)
from headrace.models.errors import RegistryRefused
from headrace.models.protocols import Columns
from headrace.models.schema import Schema

_SERVER = "headrace.infra.sandbox_server"
_START_SECONDS = 30.0  # for the process's imports, on a machine that has much else to do
# of the environment: no secrets
_HANDED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHOME")


class Sandbox:
    """Owns the process: started with the first version, or by `start`, and anew when a version ended badly in it.

    `prove` is for one thread; `close`, in the end, for any.
    """

    def __init__(self, *, memory_mb: int = 1024, seconds: float = 20.0) -> None:
        """Of one version: memory beyond what the process has at its start, and time for all."""
        self._limits = Limits(seconds=seconds, memory_bytes=memory_mb << 20)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock, self._closed = threading.Lock(), False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Returns at once."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """A version that is being tried is refused."""
        with self._lock:
            self._closed = True
            self._stop()

    def prove(
        self, onnx: bytes, schema: Schema, columns: Columns, rows: int, operators: Collection[str] = ()
    ) -> NDArray[np.float64]:
        """Scores [rows], or [rows, classes] of the first rows, all finite: checked, loaded and run over there.
        `operators`: see `models.graph_check`.

        Raises RegistryRefused: what `check` and `Session` raise; too_large, memory, timeout, crashed, sandbox.
        """
        if len(onnx) > self._limits.memory_bytes:
            there = f"{self._limits.memory_bytes >> 20} MB (model_memory_mb)"
            raise RegistryRefused(
                "too_large", f"a graph of {len(onnx):,} bytes, where {there} are to hold it six times"
            )
        named = {column.name: pack(columns[column.name]) for column in schema.columns}
        trial = Trial(onnx=onnx, schema=schema, columns=named, rows=rows, operators=tuple(operators))
        request = msgspec.msgpack.encode(trial)
        for _attempt in (1, 2):  # the second one with a new process: the first may have died before its turn
            with contextlib.suppress(_Gone):
                return self._scores(self._tried(request), rows)
        raise RegistryRefused("sandbox", "the process that tries versions dies at its start; see standard error")

    def _scores(self, ended: Ended, rows: int) -> NDArray[np.float64]:
        if ended.how:
            self._replace()
            raise RegistryRefused("timeout" if ended.late else "crashed", f"when it was tried: {ended.how}")
        try:
            answer = msgspec.msgpack.decode(ended.answer, type=Answer)
        except msgspec.DecodeError as error:
            self._replace()
            raise RegistryRefused("crashed", f"when it was tried, its process answered nonsense: {error}") from error
        if isinstance(answer, NotProved):
            if answer.reason == "memory":
                self._replace()
            raise RegistryRefused(answer.reason, answer.detail)
        told = rows_told(rows, answer.classes)
        if answer.classes < 0 or len(answer.scores) != 8 * told * max(1, answer.classes):
            raise RegistryRefused("wrong_shape", f"expected scores of {told} rows, got {len(answer.scores) / 8:g}")
        scores = np.frombuffer(answer.scores, np.float64)
        scores = scores.reshape(told, answer.classes) if answer.classes else scores
        if not np.isfinite(scores).all():
            raise RegistryRefused("not_finite", "the graph answers NaN or infinity to rows that are being served")
        return scores

    def _tried(self, request: bytes) -> Ended:
        """One call that waits: each more would wait for the interpreter, too, where events are worked on. Raises
        _Gone."""
        with self._lock:
            control = self._running()
        try:
            with in_memory(request) as trial:
                socket.send_fds(control, [msgspec.msgpack.encode(self._limits)], [trial.fileno()])
            control.settimeout(self._limits.seconds + _START_SECONDS)
            return msgspec.msgpack.decode(control.recv(2 * MAX_ANSWER), type=Ended)
        except (OSError, msgspec.DecodeError) as error:  # TimeoutError is one; nothing at all is no message
            self._replace()
            raise _Gone from error

    def _replace(self) -> None:
        """What a hostile graph ran beside is not used again. The next process begins at once."""
        with self._lock:
            self._stop()
            if not self._closed:
                self._running()

    def _running(self) -> socket.socket:
        if self._closed:
            raise RegistryRefused("sandbox", "the worker stops")
        if self._control is not None:  # whether it lives shows when it is spoken to
            return self._control
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._control, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the worker, which stops in order; and one group to end
            )
        return self._control

    def _stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)  # before it is waited for: until then the number is its
            self._process.wait()
        if self._control is not None:
            self._control.close()
        self._control = self._process = None


class _Gone(Exception):
    """The process ended without a word."""


def _environment() -> dict[str, str]:
    """What Python and ONNX Runtime need to start, and where headrace is; nothing that a graph should not see."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {name: os.environ[name] for name in _HANDED_ON if name in os.environ} | threads | {"PYTHONPATH": path}
