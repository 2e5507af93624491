"""request → forkserver → result: the scheduler's side of a training. Whatever dies over there is a RunFailed here."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from headrace.models.errors import RunFailed
from headrace.models.limits import RunLimits
from headrace.trainer.forkserver import THREADS
from headrace.trainer.messages import Failed, Job, Message, Progressed, RunRequest, RunResult
from headrace.trainer.run_folder import STOP, Messages, entered, is_worked_on

# torch._dynamo comes with the first optimiser: 2.4 s and 900 modules that a run would import again and again
PRELOAD = (
    "headrace.trainer.torch_training",
    "headrace.trainer.run",
    "torch._dynamo",
    "torch.onnx.utils",
    "numpy.ma",
)
_LOOK_SECONDS = 0.02
_LIMITS = RunLimits()
OnProgress = Callable[[str, dict[str, float]], None]


class Trainer:
    """Owns the forkserver: started with the first run, or by `warm_up`, and again when it died. Close it in the end."""

    def __init__(self, preload: Sequence[str] = PRELOAD, *, detached: bool = False, gpus: str = "") -> None:
        """`detached`: runs go on when this process ends, whatever ends it, until somebody takes them up or their time
        is over. Otherwise they end with it. `gpus` is CUDA_VISIBLE_DEVICES of the runs: none by default."""
        self._preload, self._detached, self._gpus = tuple(preload), detached, gpus
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._leash = os.pipe()  # runs that are not detached hold the one end, and end when the other is gone
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

    def start(self, request: RunRequest, limits: RunLimits = _LIMITS) -> "Run":
        """Returns at once. Raises RunFailed: no_forkserver where none can be reached, busy where the run goes on."""
        job = Job(
            request=request,
            time_limit_s=limits.time_s,
            memory_mb=limits.memory_mb,
            niceness=limits.nice,
            cpus=limits.cpus,
        )
        folder = Path(request.out)
        with self._lock, entered(folder) as held:
            held_by_it = [held] if self._detached else [held, self._leash[0]]
            for _attempt in (1, 2):  # the second one with a new forkserver: the first may have died between runs
                try:
                    socket.send_fds(self._running(), [msgspec.json.encode(job)], held_by_it)
                except (BrokenPipeError, ConnectionResetError):
                    self._stop()
                else:
                    return Run(folder)
        raise RunFailed("no_forkserver", "the trainer's forkserver dies at its start; see its words on standard error")

    def close(self) -> None:
        """Ends the runs that still go on, unless they are detached."""
        with self._lock:
            self._stop()
            for end in self._leash:
                os.close(end)

    def _running(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._stop()
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._control, theirs = socket.socketpair(socket.AF_UNIX, kind)
        settings = dict.fromkeys(THREADS, "1") | {
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
    """One training that goes on, or has ended, as its folder tells. One thread waits for it; `cancel` may come from
    another."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._messages = folder, Messages(folder)
        self._done: RunResult | RunFailed | None = None
        self._cancelled = threading.Event()

    def wait(self, timeout: float | None = None, on_progress: OnProgress | None = None) -> RunResult | None:
        """The result, or None after `timeout` seconds. Raises RunFailed: timeout, memory, crashed, gone, …"""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._look(on_progress)
        while self._done is None:
            left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return None
            self._cancelled.wait(left)
            self._look(on_progress)
        if isinstance(self._done, RunFailed):
            raise self._done
        return self._done

    def cancel(self) -> None:
        """The training is told to stop; whoever waits for it gets RunFailed("cancelled")."""
        self._cancelled.set()
        (self._folder / STOP).touch()

    def _look(self, on_progress: OnProgress | None) -> None:
        alive = is_worked_on(self._folder)  # before what it said is read: its last word comes before its end
        for message in self._messages.new():
            self._hear(message, on_progress)
        if self._cancelled.is_set():
            self._finish(RunFailed("cancelled", "stopped on request"))
        elif not alive:
            self._finish(RunFailed("gone", "its processes ended without a word, as after a reboot or a kill"))

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
