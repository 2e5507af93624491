"""HTTP connections that send nothing, or too slowly, or too much of a head, or read no answer → closed. The others are
not slowed down.

Uvicorn waits for the end of a request's line and headers for ever, however long they are, and after an early answer for
the end of a body that nobody reads; and for ever until somebody reads what it wrote. Here a connection only notes since
when it owes such an end (a few writes of a number a request); one task looks at all of them now and then.
"""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any

from headrace.infra.serve.one_write import OneWriteProtocol

_MOST_HEAD_BYTES = 64 * 1024  # of a line and headers; of the trailers of a chunked body
_MORE_CONNECTIONS = 256  # beyond the limit that may ask, and hear 503; those beyond them are closed at once
_LOOK_SECONDS = 0.5
_UNREAD_SECONDS = 60.0  # without a byte being taken of what is written: a client that reads slowly takes some


class GuardedProtocol(OneWriteProtocol):
    since = 0.0  # monotonic seconds: the end of a head, or of a body whose answer is out, is owed; 0: nothing is
    _owes_body = False  # it is the latter
    _text = 0.0  # monotonic seconds: when a head began, or what follows the length of a chunk; 0: a body is received
    _text_bytes = 0  # of it, without what came together with its beginning
    _unread, _unread_since = 0, 0.0  # bytes that were written and wait for the client; monotonic seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self._text = monotonic()
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + _MORE_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        within = self._text
        super().data_received(data)
        if within and within == self._text:
            self._text_bytes += len(data)
            if self._text_bytes > _MOST_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.since = self._text = monotonic()
        self._owes_body, self._text_bytes = False, 0

    def on_headers_complete(self) -> None:
        self.since = self._text = 0.0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Its bytes follow; behind the last one, of none, trailers, which are held as headers are."""
        self._text, self._text_bytes = monotonic(), 0

    def on_body(self, body: bytes) -> None:
        self._text = 0.0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.since = self._text = 0.0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.response_complete and self.cycle.more_body:  # not the next one, which waits for its turn
            self.since, self._owes_body = monotonic(), True
        super().on_response_complete()

    def close_if_late(self, begun_before: float) -> None:
        if not 0.0 < self.since < begun_before or self.flow.read_paused:
            return
        if self.scope is None:
            self.transport.close()
        else:
            self._refuse(b"408 Request Timeout")

    def close_if_unread(self, now: float) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_since = unread, now
        elif unread and now - self._unread_since > _UNREAD_SECONDS:
            self.transport.abort()

    def _refuse(self, status: bytes) -> None:
        """In words only where they would be an answer to what is owed, and not to an earlier request."""
        if self.since:
            is_next = not self._owes_body and (self.cycle is None or self.cycle.response_complete)
        else:
            is_next = not self.pipeline and not self.cycle.response_started
        self.since = 0.0
        if is_next:
            self.transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()


async def close_late_ones(connections: Iterable[Any], seconds: float) -> None:
    """For ever. `connections` are those of a server, which come and go."""
    while True:
        await asyncio.sleep(min(_LOOK_SECONDS, seconds / 2))
        for connection in list(connections):
            connection.close_if_late(monotonic() - seconds)
            connection.close_if_unread(monotonic())
