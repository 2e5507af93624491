"""HTTP connections that send nothing, or too slowly, or too much of a head → closed. The others are not slowed down.

Uvicorn waits for the end of a request's line and headers for ever, however long they are, and after an early answer for
the end of a body that nobody reads. Here a connection only notes since when it owes such an end (two writes of a number
a request); one task looks at all of them now and then.
"""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any

from headrace.infra.serve.one_write import OneWriteProtocol

_MOST_HEAD_BYTES = 64 * 1024
_MORE_CONNECTIONS = 256  # beyond the limit that may ask, and hear 503; those beyond them are closed at once
_LOOK_SECONDS = 0.5


class GuardedProtocol(OneWriteProtocol):
    since = 0.0  # monotonic seconds: the end of a head, or of a body whose answer is out, is owed; 0: nothing is
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = monotonic()
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + _MORE_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        within_head = self.since
        super().data_received(data)
        if within_head and within_head == self.since:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES and not self._is_answered:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.since, self._head_bytes = monotonic(), 0

    def on_headers_complete(self) -> None:
        self.since = 0.0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.since = 0.0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.response_complete and self.cycle.more_body:  # not the next one, which waits for its turn
            self.since = monotonic()
        super().on_response_complete()

    def close_if_late(self, begun_before: float) -> None:
        if not 0.0 < self.since < begun_before or self.flow.read_paused:
            return
        if self.scope is None or self._is_answered or not self._is_idle:
            self.transport.close()
        else:
            self._refuse(b"408 Request Timeout")

    @property
    def _is_answered(self) -> bool:
        """Whether what is owed is the rest of a body."""
        return self.cycle is not None and self.cycle.more_body

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, status: bytes) -> None:
        self.since = 0.0
        self.transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()


async def close_late_ones(connections: Iterable[Any], seconds: float) -> None:
    """For ever. `connections` are those of a server, which come and go."""
    while True:
        await asyncio.sleep(min(_LOOK_SECONDS, seconds / 2))
        for connection in list(connections):
            connection.close_if_late(monotonic() - seconds)
