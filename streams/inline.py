"""an agent's work → the thread that waits for it.

A chunk's work and its records' are Python under one interpreter lock. In two threads they took turns at it record by
record, which cost a quarter of both; in one thread, they do not.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any


class Inline(Executor):
    """An executor without a thread of its own: what is submitted waits for `work`."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self, seconds: float) -> bool:
        """Does one task; False if none came within `seconds`."""
        try:
            future, task = self._tasks.get(timeout=seconds)
        except Empty:
            return False
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001  it is raised where the future is awaited
                future.set_exception(error)
        return True
