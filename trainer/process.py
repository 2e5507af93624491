"""request → forkserver → result: the scheduler's side of a training. Whatever dies over there is a RunFailed here."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec

from headrace.models.errors import RunFailed
from headrace.trainer.messages import Failed, Job, Message, Progressed, RunRequest, RunResult

# torch._dynamo comes with the first optimiser: 2.4 s and 900 modules that a run would import again and again
PRELOAD = (
    "headrace.trainer.torch_training",
    "headrace.trainer.run",
    "torch._dynamo",
    "torch.onnx.utils",
    "numpy.ma",
)
OnProgress = Callable[[str, dict[str, float]], None]


class Trainer:
    """Owns the forkserver: started with the first run, or by `warm_up`, and again when it died. Close it in the end."""

    def __init__(
        self, preload: Sequence[str] = PRELOAD, *, memory_mb: int = 8192, niceness: int = 5, gpus: str = ""
    ) -> None:
        """`gpus` is CUDA_VISIBLE_DEVICES of the runs: none by default."""
        self._preload, self._memory_mb, self._niceness, self._gpus = tuple(preload), memory_mb, niceness, gpus
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def warm_up(self) -> None:
        """Starts the forkserver without waiting for it: its imports take seconds that a first run need not."""
        with self._lock:
            self._running()

    def start(self, request: RunRequest, *, time_limit_s: float = 3600.0) -> "Run":
        """Returns at once. Raises RunFailed("crashed") where no forkserver can be reached."""
        ours, theirs = socket.socketpair()
        job = Job(request=request, time_limit_s=time_limit_s, memory_mb=self._memory_mb, niceness=self._niceness)
        with self._lock, theirs:
            for _attempt in (1, 2):  # the second one with a new forkserver: the first may have died between runs
                try:
                    socket.send_fds(self._running(), [msgspec.json.encode(job)], [theirs.fileno()])
                except (BrokenPipeError, ConnectionResetError):
                    self._stop()
                else:
                    return Run(ours)
        ours.close()
        raise RunFailed("crashed", "the trainer's forkserver dies at its start; its messages are on standard error")

    def close(self) -> None:
        """Runs that still go on end with it only where nobody holds their handle: cancel them first."""
        with self._lock:
            self._stop()

    def _running(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._stop()
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._control, theirs = socket.socketpair(socket.AF_UNIX, kind)
        settings = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
            "CUDA_VISIBLE_DEVICES": self._gpus,
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve a GB at once, and RLIMIT_DATA counts that
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace.trainer.forkserver", str(theirs.fileno()), *self._preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | settings,
                start_new_session=True,  # Ctrl-C is for the scheduler, which stops in order
            )
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._control = self._process = None


class Run:
    """One training that is going on. One thread waits for it; `cancel` may come from another."""

    def __init__(self, outcome: socket.socket) -> None:
        self._socket = outcome
        self._pending = b""
        self._done: RunResult | RunFailed | None = None

    def wait(self, timeout: float | None = None, on_progress: OnProgress | None = None) -> RunResult | None:
        """The result, or None after `timeout` seconds. Raises RunFailed: timeout, memory, crashed, cancelled, …"""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._done is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._receive(left, on_progress)
        if isinstance(self._done, RunFailed):
            raise self._done
        return self._done

    def cancel(self) -> None:
        """The training is killed; whoever waits for it gets RunFailed("cancelled")."""
        if self._done is None:
            self._done = RunFailed("cancelled", "stopped on request")
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _receive(self, timeout: float | None, on_progress: OnProgress | None) -> None:
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._finish(RunFailed("crashed", "the trainer's process is gone without a word"))
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in filter(None, lines):
            with contextlib.suppress(msgspec.DecodeError):  # cut off by its writer's death; the next line says how
                self._hear(msgspec.json.decode(line, type=Message), on_progress)

    def _hear(self, message: Message, on_progress: OnProgress | None) -> None:
        if isinstance(message, Progressed):
            if on_progress is not None:
                on_progress(message.stage, message.facts)
        elif isinstance(message, Failed):
            self._finish(RunFailed(message.reason, message.detail))
        else:
            self._finish(message.result)

    def _finish(self, outcome: RunResult | RunFailed) -> None:
        if self._done is None:
            self._done = outcome
        self._socket.close()
