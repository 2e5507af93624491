"""Clients of `headrace serve` that send too much, too slowly or nothing: they cost little, the others are answered."""

import http.client
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import grpc
import msgspec
import numpy as np
import pytest
import tritonclient.grpc
from kit import hanging, linear, wait_for
from test_serve import FOR_EVER, ROW, SLOW, infer_body, server_of
from test_swap import PIPELINE, Publisher
from tritonclient.utils import InferenceServerException

from headrace.infra.serve.limits import Limits
from headrace.infra.topics import apply

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/inference.GRPCInferenceService/ModelInfer",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}


@pytest.fixture
def published(settings):
    apply(settings, PIPELINE)
    Publisher(settings, PIPELINE).publish(linear([0.5, -0.25]))
    return settings


def asked(port, rows, **options):
    """One inference by gRPC."""
    given = tritonclient.grpc.InferInput("numbers", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows.astype(np.float32))
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        return client.infer("delay", [given], **options).as_numpy("prediction")
    finally:
        client.close()


# ── gRPC ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_large_grpc_messages_that_wait_for_answers_are_bounded_together_and_the_rest_is_refused(settings):
    apply(settings, SLOW)
    Publisher(settings, SLOW).publish(hanging())
    quick = settings.model_copy(update={"onnx_timeout_s": 12.0})
    rows = {"request_rows": 1_000_000, "waiting_rows": 10_000_000}
    limits = Limits(request_bytes=1 << 20, waiting_bytes=7 << 19, deadline_seconds=60, **rows)
    with server_of(quick, SLOW, limits=limits) as (server, client), ThreadPoolExecutor(13) as pool:
        service, large = server.service, np.tile(np.array(ROW), (120_000, 1))  # 0.96 MB
        hangs = pool.submit(client, "POST", "/v2/models/delay/infer", infer_body(FOR_EVER))
        wait_for("the model to hang", lambda: service.pipelines["delay"].busy[0])

        def outcome(_):
            try:
                asked(server.grpc_port, large)
            except InferenceServerException as error:
                return error.message()
            return "OK"

        outcomes = [pool.submit(outcome, n) for n in range(12)]
        wait_for("the refusals", lambda: sum(one.done() for one in outcomes) >= 9)
        assert 3 * large.nbytes // 2 < service.bodies.held <= limits.waiting_bytes  # as float32
        status, answer = client.post("/v2/models/delay/infer", b" " * 1_000_000 + b"{}")  # REST's count with them
        assert (status, "bytes of requests are being read" in answer["error"]) == (429, True)
        assert hangs.result()[0] == 503
        found = sorted(one.result() for one in outcomes)
        assert found[9:] == ["OK"] * 3
        assert all("bytes of requests are being read: ask again later" in said for said in found[:9]), found
        wait_for("nothing to be held", lambda: service.bodies.held == 0)
        assert len(asked(server.grpc_port, np.array([[0.5, 1.0]]))) == 1


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def begun_call(stream, announced, sent):
    """HTTP/2 frames of a call whose message is not sent to its end."""
    texts = [text.encode() for pair in HEADERS.items() for text in pair]
    literal = b"".join((b"\0" if n % 2 == 0 else b"") + bytes([len(text)]) + text for n, text in enumerate(texts))
    message = b"\0" + announced.to_bytes(4, "big") + sent
    return frame(1, 4, stream, literal) + frame(0, 0, stream, message)


def test_grpc_clients_that_never_finish_their_message_keep_nobody_out(published):
    limits = Limits(request_bytes=1 << 20, waiting_bytes=4 << 20, deadline_seconds=60.0)  # two are received at a time
    with server_of(published, PIPELINE, limits=limits) as (server, _), ExitStack() as stack:
        stalled = [socket.create_connection(("127.0.0.1", server.grpc_port)) for _ in range(4)]
        for one in stalled:
            stack.enter_context(one)
            calls = b"".join(begun_call(stream, 1_000_000, b"x" * 100) for stream in (1, 3))
            one.sendall(PREFACE + frame(4, 0, 0) + calls)
        wait_for("two that are received", lambda: server.service.bodies.held == 2 << 20)
        for _ in range(3):
            assert len(asked(server.grpc_port, np.array([[0.5, 1.0]]), client_timeout=50)) == 1
        for one in stalled:
            one.close()
        wait_for("nothing to be held", lambda: server.service.bodies.held == 0)


def test_connections_by_grpc_are_bounded(published):
    with server_of(published, PIPELINE, limits=Limits(connections=3)) as (server, _), ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", server.grpc_port))) for _ in range(6)]

        def closed():
            return sum(gone(one) for one in silent)

        wait_for("some to be closed", lambda: closed() >= 3)
        for one in silent:
            one.close()
        wait_for("room", lambda: len(asked_again(server)) == 1)


def asked_again(server):
    try:
        return asked(server.grpc_port, np.array([[0.5, 1.0]]))
    except InferenceServerException:
        return []


def gone(connection):
    """Whether the other side closed it; what it said is passed over."""
    connection.setblocking(False)
    try:
        while connection.recv(1_000):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_what_is_no_message_of_the_protocol_is_an_invalid_argument(published):
    with (
        server_of(published, PIPELINE) as (server, _),
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"\xff\xff\xff\xff")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        nothing = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            nothing(iter(()))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert server.service.bodies.held == 0


# ── REST ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

HEAD = b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUICK = Limits(head_seconds=0.5)


def said_by(connection):
    """All that comes until the other side closes."""
    connection.settimeout(60)
    said = b""
    try:
        while data := connection.recv(1_000):
            said += data
    except ConnectionResetError:
        pass
    return said


def trickle(connection, data, closed):
    """Byte by byte, as slowly as the other side allows: until it closes, or the end."""
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
        except OSError:
            return
        if closed.wait(0.05):
            return


def test_a_head_that_is_not_whole_in_time_is_no_reason_to_wait_for_ever_and_others_are_answered(published):
    with server_of(published, PIPELINE, limits=QUICK) as (_, client), ExitStack() as stack:
        address = ("127.0.0.1", client.port)
        silent, begun, slow, kept = (stack.enter_context(socket.create_connection(address)) for _ in range(4))
        begun.sendall(HEAD[:30])
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for("its answer", lambda: kept.recv(1_000).endswith(b'{"live":true}'))
        kept.sendall(HEAD[:-1])  # of its second request
        closed = threading.Event()
        stack.callback(closed.set)
        sender = threading.Thread(target=trickle, args=(slow, HEAD * 1_000, closed))
        sender.start()
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[0] == 200
        assert said_by(silent) == b""
        for one in (begun, kept, slow):
            assert said_by(one).startswith(b"HTTP/1.1 408 ")
        closed.set()
        sender.join(60)
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[0] == 200


def test_a_connection_that_waits_for_its_next_request_or_its_answer_is_not_late(settings):
    apply(settings, SLOW)
    Publisher(settings, SLOW).publish(hanging())
    patient = settings.model_copy(update={"onnx_timeout_s": 3.0})
    with server_of(patient, SLOW, limits=QUICK) as (_, client), ExitStack() as stack:
        address = ("127.0.0.1", client.port)
        asking, idle, late = (stack.enter_context(socket.create_connection(address)) for _ in range(3))
        ask = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        idle.sendall(ask)
        wait_for("its answer", lambda: idle.recv(1_000).endswith(b'{"live":true}'))
        body = msgspec.json.encode(infer_body(FOR_EVER))
        asking.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)  # three seconds
        for _ in range(2):
            assert said_by(late) == b""  # closed: at least half a second has passed
            late = stack.enter_context(socket.create_connection(address))
        assert asking.recv(1_000).startswith(b"HTTP/1.1 503 ")
        for one in (asking, idle):
            one.sendall(ask)
            assert one.recv(1_000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [HEAD + b"X-A: ", b"POST /v2/"], ids=["a header", "a path"])
def test_a_head_without_an_end_is_refused_by_its_size(published, begun):
    with (
        server_of(published, PIPELINE, limits=Limits(head_seconds=600.0)) as (_, client),
        socket.create_connection(("127.0.0.1", client.port)) as one,
    ):
        one.sendall(begun)
        with suppress(ConnectionError):
            for _ in range(1_000):
                one.sendall(b"a" * 10_000)
        said = said_by(one)  # closed; what was sent meanwhile may reset the connection, and take the words with it
        assert said[:13] in (b"", b"HTTP/1.1 431 ")


def test_the_rest_of_a_body_whose_answer_is_out_is_not_waited_for_for_ever(published):
    with (
        server_of(published, PIPELINE, limits=QUICK) as (_, client),
        socket.create_connection(("127.0.0.1", client.port)) as one,
    ):
        one.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n{")
        closed = threading.Event()
        sender = threading.Thread(target=trickle, args=(one, b" " * 100_000, closed))
        sender.start()
        assert said_by(one).startswith(b"HTTP/1.1 413 ")
        closed.set()
        sender.join(60)


def test_connections_by_http_are_bounded_whatever_they_send(published):
    limits = Limits(connections=10, head_seconds=60)
    with server_of(published, PIPELINE, limits=limits) as (_, client), ExitStack() as stack:
        address = ("127.0.0.1", client.port)
        silent = [stack.enter_context(socket.create_connection(address)) for _ in range(300)]
        wait_for("those that are too many to be closed", lambda: sum(gone(one) for one in silent) == 300 - 10 - 256)
        for one in silent[:200]:
            one.close()
        wait_for("503, while there are more than ten", lambda: status_of(client) == 503)
        for one in silent:
            one.close()
        wait_for("room", lambda: status_of(client) == 200)


def status_of(client):
    try:
        return client("GET", "/v2/health/ready")[0]
    except (ConnectionError, http.client.HTTPException, ValueError):  # closed at once; or a text that is no JSON
        return None
