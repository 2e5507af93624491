"""a gRPC call → its message. Only so many are received at a time, each counted as the largest until it is there.

grpc.aio hands over whole messages, and says nothing of their size before. But one that is read as a stream is not asked
for until its handler does so: until then its connection holds a window of it (64 KB) and no more.
"""

import asyncio
from time import monotonic
from typing import Any

import grpc.aio

from headrace.infra.serve.http import Bodies
from headrace.infra.serve.refusals import Late, Overloaded, RequestRefused

_PATIENCE_SECONDS = 1.0  # for a message that does not come whole while others wait for its place
_LEAST_SECONDS = 0.05  # where more of them wait than there are places, many times over


class Receiving:
    """For the event loop in which it was made."""

    def __init__(self, bodies: Bodies) -> None:
        """`bodies` are counted together with those by REST."""
        limits = bodies.limits
        self._bodies, self._largest = bodies, limits.request_bytes
        self._most = max(1, limits.waiting_bytes // limits.request_bytes // 2)
        self._places, self._waiting = asyncio.Semaphore(self._most), 0
        self._open: dict[asyncio.Timeout, float] = {}  # since when, loop seconds

    async def read(self, context: Any, deadline: float) -> bytes:
        """Counted until `release`. Raises Overloaded, Late, RequestRefused."""
        if self._places.locked():
            await self._wait(deadline)
        else:
            await self._places.acquire()
        try:
            self._bodies.take(self._largest)
            size = 0
            try:
                message = await self._read(context, deadline)
                size = len(message)
            finally:
                self._bodies.held -= self._largest - size
        finally:
            self._places.release()
        return message

    def release(self, message: bytes) -> None:
        """It is answered."""
        self._bodies.held -= len(message)

    async def _wait(self, deadline: float) -> None:
        """For a place. Who has one is hurried: a client that sends nothing keeps nobody out."""
        self._waiting += 1
        for cut, since in self._open.items():
            self._hurry(cut, since)
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded("expected a place to be received in, others are being received: ask again later") from None
        finally:
            self._waiting -= 1

    def _hurry(self, cut: asyncio.Timeout, since: float) -> None:
        if cut.expired():  # it is being told
            return
        patience = max(_LEAST_SECONDS, _PATIENCE_SECONDS * min(1.0, self._most / self._waiting))
        cut.reschedule(min(cut.when() or 0.0, since + patience))

    async def _read(self, context: Any, deadline: float) -> bytes:
        cut = asyncio.timeout(max(0.0, deadline - monotonic()))
        end = cut.when()
        try:
            async with cut:
                self._open[cut] = since = asyncio.get_running_loop().time()
                if self._waiting:
                    self._hurry(cut, since)
                message = await context.read()
        except TimeoutError:
            if cut.when() != end:  # not by the clock: a loop's timer may be half a millisecond early
                raise Overloaded("expected the whole message sooner, while others wait: send it again") from None
            raise Late("expected the whole message before the deadline") from None
        finally:
            self._open.pop(cut, None)  # None: it was over before it began
        if message is grpc.aio.EOF:
            raise RequestRefused(f"expected one message of up to {self._largest:,} bytes")
        found: bytes = message
        return found
