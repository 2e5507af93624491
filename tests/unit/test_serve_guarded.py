"""Connections by HTTP that have no end: on a transport of the test's own."""

import asyncio
from time import monotonic

import pytest
import uvicorn
from uvicorn.server import ServerState

from headrace.infra.serve.guarded import GuardedProtocol

POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
KB = b"y" * 1_000


class Wire(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.said, self.unread, self.is_closed, self.is_aborted = b"", 0, False, False

    def write(self, data):
        self.said += data

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def is_closing(self):
        return self.is_closed

    def get_write_buffer_size(self):
        return self.unread

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


async def answer(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def answer_at_the_end(scope, receive, send):
    got = b""
    while (message := await receive())["type"] == "http.request":
        got += message["body"]
        if not message["more_body"]:
            scope["state"]["got"].append(got)
            await answer(scope, receive, send)
            return


def connected(app):
    config = uvicorn.Config(app, http=GuardedProtocol, lifespan="off", log_config=None, ws="none")
    config.load()
    wire = Wire()
    connection = GuardedProtocol(config=config, server_state=ServerState(), app_state={"got": []})
    connection.connection_made(wire)
    return connection, wire


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


def test_after_an_answer_that_came_before_the_body_the_next_head_is_bounded_all_the_same():
    async def scenario():
        connection, wire = connected(answer)
        connection.data_received(POST + b"Content-Length: 4\r\n\r\nab")
        await turns()
        assert wire.said.startswith(b"HTTP/1.1 200 ")
        connection.data_received(b"cd")
        connection.data_received(POST + b"X-A: ")
        for _ in range(100):
            if not wire.is_closed:
                connection.data_received(KB)
        assert wire.is_closed
        assert b"HTTP/1.1 431 " in wire.said

    asyncio.run(scenario())


@pytest.mark.parametrize("app", [answer, answer_at_the_end])
@pytest.mark.parametrize("trailer", [b"x: " + KB + b"\r\n", KB], ids=["many trailers", "one without an end"])
def test_the_trailers_of_a_chunked_body_are_bounded_as_its_head_is(app, trailer):
    async def scenario():
        connection, wire = connected(app)
        connection.data_received(CHUNKED + b"2\r\nab\r\n0\r\n")
        await turns()
        before = wire.said
        connection.data_received(b"x: ")
        for _ in range(100):
            if not wire.is_closed:
                connection.data_received(trailer)
        assert wire.is_closed
        told = wire.said.removeprefix(before)
        assert told == b"" if app is answer else told.startswith(b"HTTP/1.1 431 ")
        connection.connection_lost(None)
        await turns()

    asyncio.run(scenario())


def test_a_body_may_come_in_small_chunks_or_one_large_one_with_trailers():
    async def scenario():
        connection, wire = connected(answer_at_the_end)
        for length, chunk, count in ((b"a", b"0123456789", 20_000), (b"%x" % 500_000, b"z" * 500_000, 1)):
            connection.data_received(CHUNKED)
            for _ in range(count):
                for piece in (
                    length + b"\r\n",
                    *(chunk[at : at + 1_000] for at in range(0, len(chunk), 1_000)),
                    b"\r\n",
                ):
                    connection.data_received(piece)
            connection.data_received(b"0\r\nx: y\r\n\r\n")
            await turns()
            assert connection.app_state["got"].pop() == chunk * count
        assert not wire.is_closed
        assert wire.said.count(b"HTTP/1.1 200 ") == 2

    asyncio.run(scenario())


def test_a_client_that_takes_nothing_of_what_is_written_for_a_minute_is_let_go():
    async def scenario():
        connection, wire = connected(answer)
        wire.unread, begun = 100_000, monotonic()
        connection.close_if_unread(begun)
        connection.close_if_unread(begun + 59)
        wire.unread -= 1  # slow, and alive
        for seconds in (61, 120):
            connection.close_if_unread(begun + seconds)
        assert not wire.is_closed
        connection.close_if_unread(begun + 122)
        assert wire.is_aborted

        connection, wire = connected(answer)
        connection.close_if_unread(begun)
        connection.close_if_unread(begun + 1_000)
        assert not wire.is_closed  # all was read: it waits for its next request

    asyncio.run(scenario())
