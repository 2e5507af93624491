"""an ASGI request → its body, deadline and id, within the limits; an answer → the wire."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import count
from re import compile as pattern
from secrets import token_hex
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import Late, Overloaded, RequestRefused, TooLarge, UnknownEncoding

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
DEADLINE_HEADER = b"x-request-timeout-ms"
_ID = pattern(rb"[\x21-\x7e]{1,128}")
_TRACE = pattern(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # zlib's wbits: a gzip member, a zlib stream
_DIGITS = 9  # of milliseconds: eleven days
_ids, _process = count(1), token_hex(6).encode()
JSON = (b"content-type", b"application/json")


class ClientGone(Exception):
    """There is nobody to answer."""


@dataclass(slots=True, eq=False)
class Response:
    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [JSON])


class Bodies:
    """How many bytes of bodies are in memory that are not answered yet: of those that came in more than one piece, or
    packed."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    def take(self, size: int) -> None:
        if self.held + size > self.limits.waiting_bytes:
            raise Overloaded(f"{self.held:,} bytes of requests are being read: ask again later")
        self.held += size


class Request:
    """One request of a connection."""

    __slots__ = (
        "_bodies",
        "_receive",
        "arrived",
        "deadline",
        "headers",
        "held",
        "id",
        "method",
        "parts",
        "scope",
        "who",
    )

    def __init__(self, scope: Mapping[str, Any], receive: Receive, bodies: Bodies) -> None:
        self.scope, self._receive, self._bodies = scope, receive, bodies
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.parts: list[str] = scope["path"].split("/")[1:]
        self.who = ""
        self.held = 0
        self.arrived = monotonic()
        self.deadline = self.arrived + bodies.limits.deadline_seconds
        given = self.headers.get(b"x-request-id")
        self.id = given if given is not None and _ID.fullmatch(given) else b"%b-%d" % (_process, next(_ids))

    @property
    def receive(self) -> Receive:
        """What comes of it, for who streams an answer."""
        return self._receive

    def authorization(self) -> str | None:
        given = self.headers.get(b"authorization")
        return None if given is None else given.decode("latin-1")

    @property
    def trace(self) -> str:
        """`traceparent`, where it is one (W3C Trace Context, section 3.2); else ""."""
        given = self.headers.get(b"traceparent", b"")
        return given.decode() if _TRACE.fullmatch(given) else ""

    def query(self, name: str) -> str:
        """Its last value; "" where there is none."""
        if not self.scope["query_string"]:
            return ""
        try:
            text: str = self.scope["query_string"].decode()
            return parse_qs(text, max_num_fields=20).get(name, [""])[-1]
        except ValueError as error:
            raise RequestRefused(f"query: expected name=value, UTF-8 and percent-encoded; {error}") from error

    def within(self, milliseconds: float | None) -> None:
        """The earlier of both: what was allowed so far, and so many from the request's arrival."""
        if milliseconds is not None:
            self.deadline = min(self.deadline, self.arrived + milliseconds / 1000)

    def read_deadline(self) -> None:
        """Raises RequestRefused for a header that is no number."""
        given = self.headers.get(DEADLINE_HEADER)
        if given is None:
            return
        if not given.isdigit() or len(given) > _DIGITS or int(given) == 0:
            got = repr(given[:40].decode("latin-1"))
            raise RequestRefused(f"X-Request-Timeout-Ms: expected milliseconds, a whole number from 1; got {got}")
        self.within(int(given))

    async def body(self) -> bytes:
        """Unpacked. Raises TooLarge, Overloaded, Late, UnknownEncoding, ClientGone."""
        message = await self._receive()
        body: bytes = message.get("body", b"")
        most = self._bodies.limits.request_bytes
        if message.get("more_body", False):
            try:
                async with asyncio.timeout(max(0.0, self.deadline - monotonic())):
                    body = await self._rest(body, most)
            except TimeoutError:
                raise Late(f"expected the whole body within {self.deadline - self.arrived:.3g} s") from None
        elif message["type"] != "http.request":
            raise ClientGone
        if len(body) > most:
            raise _too_large(most, len(body))
        encoding = self.headers.get(b"content-encoding")
        if encoding is None:
            return body
        body = _unpacked(body, encoding.lower(), most)
        self.release()
        self._hold(len(body))
        return body

    async def _rest(self, first: bytes, most: int) -> bytes:
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > most:
            raise _too_large(most, int(announced[:20]))
        pieces = bytearray()
        message: MutableMapping[str, Any] = {"type": "http.request", "body": first, "more_body": True}
        while message["type"] == "http.request":
            piece = message.get("body", b"")
            if len(pieces) + len(piece) > most:
                raise _too_large(most, len(pieces) + len(piece))
            self._hold(len(piece))
            pieces += piece
            if not message.get("more_body", False):
                return bytes(pieces)
            message = await self._receive()
        raise ClientGone

    def _hold(self, size: int) -> None:
        self._bodies.take(size)
        self.held += size

    def release(self) -> None:
        """Its body is no longer needed."""
        self._bodies.held -= self.held
        self.held = 0


async def respond(send: Send, request_id: bytes, response: Response) -> None:
    body = response.body
    headers = [*response.headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id)]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    """Never more than `most` bytes are made of it, whatever it says that it holds."""
    if encoding == b"identity":
        return body
    if encoding not in _WINDOWS:
        got = repr(encoding[:40].decode("latin-1"))
        raise UnknownEncoding(f"Content-Encoding: expected gzip, deflate or identity; got {got}")
    unpacker = zlib.decompressobj(_WINDOWS[encoding])
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise RequestRefused(f"body: expected {encoding.decode()}; {error}") from error
    if len(found) > most:
        raise _too_large(most, None)
    if not unpacker.eof:
        raise RequestRefused(f"body: expected {encoding.decode()} to its end; it ends before")
    return found


def _too_large(most: int, got: int | None) -> TooLarge:
    return TooLarge(f"body: expected up to {most:,} bytes; got {'more' if got is None else f'{got:,}'}")
