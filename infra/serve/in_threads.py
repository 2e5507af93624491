"""questions that wait for the broker → threads, a few at a time, and a refusal where there are too many."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from headrace.infra.serve.refusals import Overloaded, Unavailable
from headrace.models.errors import BrokerUnavailable

Answer = TypeVar("Answer")


class InThreads:
    def __init__(self, at_once: int, *, waiting: int = 0) -> None:
        """`waiting`: so many more wait for their turn before others are refused."""
        self._places, self._most, self._asking = asyncio.Semaphore(at_once), at_once + waiting, 0

    async def __call__(self, ask: Callable[[], Answer]) -> Answer:
        """Raises Overloaded, Unavailable, and whatever else `ask` raises."""
        if self._asking >= self._most:
            raise Overloaded(f"{self._asking} such questions are being answered: ask again later")
        self._asking += 1
        try:
            async with self._places:
                return await in_a_thread(ask)
        except BrokerUnavailable as error:
            raise Unavailable(str(error), 5) from error
        finally:
            self._asking -= 1


async def in_a_thread(ask: Callable[[], Answer]) -> Answer:
    """In one of its own. Those of the loop's pool are few where processors are, and a process waits for them when it
    ends, however long they look."""
    answer: Future[Answer] = Future()
    answer.set_running_or_notify_cancel()  # who goes away does not stop it

    def work() -> None:
        try:
            found = ask()
        except BaseException as error:  # noqa: BLE001  whoever waits raises it
            answer.set_exception(error)
        else:
            answer.set_result(found)

    threading.Thread(target=work, name="question", daemon=True).start()
    return await asyncio.wrap_future(answer)
