"""questions that wait for the broker → threads, a few at a time, and a refusal where there are too many."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from headrace.infra.serve.refusals import Overloaded, Unavailable
from headrace.models.errors import BrokerUnavailable

Answer = TypeVar("Answer")


class InThreads:
    def __init__(self, at_once: int) -> None:
        self._at_once, self._asking = at_once, 0

    async def __call__(self, ask: Callable[[], Answer]) -> Answer:
        """Raises Overloaded, Unavailable, and whatever else `ask` raises."""
        if self._asking >= self._at_once:
            raise Overloaded(f"{self._asking} such questions are being answered: ask again later")
        self._asking += 1
        try:
            return await asyncio.to_thread(ask)
        except BrokerUnavailable as error:
            raise Unavailable(str(error), 5) from error
        finally:
            self._asking -= 1
