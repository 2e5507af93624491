"""a run of ONNX Runtime → ended when its time is over. One thread for the process looks after all of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

_LOOK_SECONDS = 0.25


@dataclass(eq=False)
class Deadline:
    """`expired` says afterwards whether the run was ended by it."""

    options: Any  # onnxruntime.RunOptions: `terminate` is honoured between two nodes of the graph, in loops as well
    at: float  # monotonic seconds
    expired: bool = False


class _Overseer:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Deadline] = set()
        self._thread: threading.Thread | None = None

    def add(self, deadline: Deadline) -> None:
        with self._lock:
            self._running.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="model-deadlines", daemon=True)
                self._thread.start()

    def remove(self, deadline: Deadline) -> None:
        with self._lock:
            self._running.discard(deadline)

    def _look(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_SECONDS):
            with self._lock:
                over = [deadline for deadline in self._running if deadline.at < monotonic()]
                for deadline in over:
                    deadline.expired = True
                    deadline.options.terminate = True


_overseer = _Overseer()


@contextmanager
def within(seconds: float, options: Any) -> Iterator[Deadline]:
    """`options` are those of the run inside the block."""
    deadline = Deadline(options, monotonic() + seconds)
    _overseer.add(deadline)
    try:
        yield deadline
    finally:
        _overseer.remove(deadline)
