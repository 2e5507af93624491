"""changes, from any thread → open pages, told over server-sent events that what they show has changed.

An event says that something changed, and nothing of it: the page asks for itself again, with its own rights.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from time import monotonic

from headrace.infra.serve.http import Receive, Send
from headrace.infra.serve.refusals import Overloaded

_MOST = 256  # pages that listen
_MOST_OF_ONE = 32  # with one API key: it does not keep the others out
_AGAIN_SECONDS = 30  # then there may be room
_APART_SECONDS = 0.5  # two events of one page
_ALIVE_SECONDS = 15.0  # a comment, so that who sits between does not close the line
_HEAD = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Hub:
    """Made in the event loop that serves its pages."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = monotonic()  # what came before, pages of a server before this one have not heard of
        self._changed: dict[str, float] = {}  # by topic, when it did last
        self._listeners: set[asyncio.Event] = set()
        self._lines = Counter[str]()  # those of each key
        self._closed = False

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def changed(self, *topics: str) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop has gone, and every page with it
            self._loop.call_soon_threadsafe(self._tell, topics)

    def close(self) -> None:
        """Pages hear that it is over. In the event loop."""
        self._closed = True
        self._wake()

    async def stream(
        self, topics: Collection[str], since: float, receive: Receive, send: Send, *, key: str = ""
    ) -> None:
        """Changes after `since`, when the page was asked for (monotonic), so that none is missed before it listens.
        Until the browser goes, or the server. `key` is the id of an API key, where one is needed. Raises Overloaded."""
        if key and self._lines[key] >= _MOST_OF_ONE:
            raise Overloaded(f"{_MOST_OF_ONE} pages listen with this API key already: close some", _AGAIN_SECONDS)
        if len(self._listeners) >= _MOST:
            raise Overloaded(f"{_MOST} pages listen already: close some", _AGAIN_SECONDS)
        woken = asyncio.Event()
        self._listeners.add(woken)
        self._lines[key] += 1
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEAD})
            await _say(send, b"retry: 2000\n\n")
            since = since if since <= monotonic() else 0.0  # of a machine that was started anew
            while not self._closed and not gone.done():
                newest = max((self._changed.get(topic, self._began) for topic in topics), default=0)
                if newest > since:
                    since = newest
                    await _say(send, b"event: changed\ndata: \n\n")
                    await asyncio.wait({gone}, timeout=_APART_SECONDS)
                    continue
                await _say(send, b": alive\n\n")
                waiting = asyncio.ensure_future(woken.wait())
                await asyncio.wait({waiting, gone}, timeout=_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                woken.clear()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._listeners.discard(woken)
            self._lines[key] -= 1
            self._lines = +self._lines  # keys come for ever
            gone.cancel()

    def _tell(self, topics: Collection[str]) -> None:
        self._changed.update(dict.fromkeys(topics, monotonic()))
        self._wake()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.set()


async def _say(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
