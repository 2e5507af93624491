"""`headrace serve` on a real broker and a real Redis, as its clients see it: tritonclient judges the protocol."""

import asyncio
import gzip
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from kit import Facts, hanging, linear, produce, read_all, wait_for
from test_source import worker_of
from test_swap import PIPELINE, Publisher
from tritonclient.utils import InferenceServerException

from headrace.infra.kafka import admin
from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.processes.serve import Options, Server
from headrace.infra.serve.limits import Limits
from headrace.infra.topics import apply
from headrace.models.errors import PortTaken
from headrace.models.facts import Predicted, Proven, Refused, Served, SideRowsApplied, Swapped
from headrace.models.features import Aggregate, Category, Datetime, Lookup, Number, Topic
from headrace.models.labels import Binary, Multiclass
from headrace.models.pipeline import Pipeline

ROW = [1.0, 2.0]
EVENT = {"id": "a", "at": "2013-07-04T11:00:00Z", "distance": 1.0, "wind": 2.0}


class Client:
    """HTTP as it is on the wire, without a library's manners."""

    def __init__(self, port):
        self.port = port

    def __call__(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if body is not None and not isinstance(body, bytes):
            body = msgspec.json.encode(body)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        parsed = json.loads(data) if answer.getheader("content-type") == "application/json" else data
        return answer.status, parsed, {name.lower(): value for name, value in answer.getheaders()}

    def get(self, path, **headers):
        return self("GET", path, headers=headers)[:2]

    def post(self, path, body=None, **headers):
        return self("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})[:2]


@contextmanager
def server_of(settings, *pipelines, facts=None, origins=None, **options):
    """The whole server, in a thread of this process. With `origins` its console may ask for moves."""
    chosen = Options(port=0, grpc_port=0, drain_seconds=0, **options)
    server, failed = Server(settings, pipelines, facts or Facts(), chosen, origins=origins), []

    def run():
        try:
            asyncio.run(server.run())
        except BaseException as error:  # noqa: BLE001  it is raised in the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for("the server to listen", lambda: server.port or failed)
        if not failed:
            yield server, Client(server.port)
    finally:
        with suppress(RuntimeError):
            server.stop()
        thread.join(60)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def infer_body(*rows, **more):
    data = [float(number) for row in rows for number in row]
    return {"inputs": [{"name": "numbers", "shape": [len(rows), 2], "datatype": "FP32", "data": data}], **more}


def score_of(body):
    return body["outputs"][0]["data"]


@pytest.fixture
def publisher(settings):
    apply(settings, PIPELINE, 2)
    return Publisher(settings)


# ── the protocol ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tritonclient_infers_lists_and_reads_metadata_over_http_and_grpc(settings, publisher):
    publisher.publish(linear([0.5, -0.25], bias=1.0))
    rows = np.array([[1, 2], [3, 4], [-1, 0.5]], np.float32)
    expected = (1 / (1 + np.exp(-(rows @ np.array([0.5, -0.25], np.float32) + 1)))).astype(np.float32)
    with server_of(settings, PIPELINE) as (server, _):
        for library, port in ((tritonclient.http, server.port), (tritonclient.grpc, server.grpc_port)):
            client = library.InferenceServerClient(f"127.0.0.1:{port}")
            as_json = {"as_json": True} if library is tritonclient.grpc else {}
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("delay")
            assert client.is_model_ready("delay", "1")
            assert client.get_server_metadata(**as_json)["name"] == "headrace"
            metadata = client.get_model_metadata("delay", **as_json)
            assert metadata["inputs"] == [
                {"name": "numbers", "datatype": "FP32", "shape": ["-1", "2"] if as_json else [-1, 2]}
            ]
            assert metadata["outputs"][0]["name"] == "prediction"
            assert metadata["versions"] == ["0", "1"]
            index = client.get_model_repository_index(**as_json)
            found = {one["version"]: one["state"] for one in (index["models"] if as_json else index)}
            assert found == {"0": "UNAVAILABLE", "1": "READY"}
            given = library.InferInput("numbers", [3, 2], "FP32")
            given.set_data_from_numpy(rows)
            for version, outputs in (
                ("", None),
                ("1", [library.InferRequestedOutput("prediction")]),
                ("champion", None),
            ):
                answer = client.infer("delay", [given], model_version=version, outputs=outputs, request_id="mine")
                np.testing.assert_allclose(answer.as_numpy("prediction"), expected, rtol=1e-6)
                assert answer.as_numpy("prediction").dtype == np.float32
            response = answer.get_response()
            assert (response.id if as_json else response["id"]) == "mine"
            with pytest.raises(InferenceServerException, match="expected one of 0, 1, or champion; got '7'"):
                client.infer("delay", [given], model_version="7")
            client.close()
        client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}")
        given.set_data_from_numpy(rows)
        plain = tritonclient.http.InferInput("numbers", [3, 2], "FP32")
        plain.set_data_from_numpy(rows, binary_data=False)
        for packed in ("gzip", "deflate"):
            output = tritonclient.http.InferRequestedOutput("prediction", binary_data=False)
            answer = client.infer("delay", [plain], outputs=[output], request_compression_algorithm=packed)
            np.testing.assert_allclose(answer.as_numpy("prediction"), expected, rtol=1e-6)


def test_categories_and_numbers_in_either_form_say_the_same(settings):
    pipeline = replace(PIPELINE, features=[Number("distance"), Category("carrier"), Category("origin", nullable=True)])
    apply(settings, pipeline)
    Publisher(settings, pipeline).publish(linear([0.5], categories=2))
    with server_of(settings, pipeline) as (server, client):
        carriers = ["UA", "EWR", "Ünited", ""]
        numbers = {"name": "numbers", "shape": [2, 1], "datatype": "FP32", "data": [[1.5], [2]]}
        texts = {"name": "categories", "shape": [2, 2], "datatype": "BYTES"}
        answers = []
        for data in (carriers, [carriers[:2], ["Ünited", None]]):
            status, answer = client.post("/v2/models/delay/infer", {"inputs": [texts | {"data": data}, numbers]})
            assert status == 200, answer
            answers.append(score_of(answer))
        for library, port in ((tritonclient.http, server.port), (tritonclient.grpc, server.grpc_port)):
            given = [library.InferInput("numbers", [2, 1], "FP32"), library.InferInput("categories", [2, 2], "BYTES")]
            given[0].set_data_from_numpy(np.array([[1.5], [2]], np.float32))
            given[1].set_data_from_numpy(np.array(carriers, object).reshape(2, 2))
            answer = library.InferenceServerClient(f"127.0.0.1:{port}").infer("delay", given)
            answers.append(answer.as_numpy("prediction").astype(np.float64).tolist())
        assert all(answer == answers[0] for answer in answers)


def tensor(shape=(1, 2), data=ROW, name="numbers", datatype="FP32"):
    return {"inputs": [{"name": name, "shape": list(shape), "datatype": datatype, "data": data}]}


BAD_REQUESTS = {
    "no JSON": (b"{", 400, "expected an inference request"),
    "no UTF-8": (b'{"inputs": "\xff"}', 400, "expected an inference request"),
    "deeply nested": (b"[" * 100_000, 400, "expected an inference request"),
    "no inputs": ({}, 400, "inputs"),
    "an unknown name": (tensor(name="x"), 400, "numbers FP32[-1, 2]; got x"),
    "one input too many": ({"inputs": infer_body(ROW)["inputs"] * 2}, 400, "inputs: expected numbers"),
    "a wrong datatype": (tensor(datatype="INT64"), 400, "expected datatype FP32; got INT64"),
    "a wrong shape": (tensor((2, 1)), 400, "expected shape [-1, 2]"),
    "a shape of other rank": (tensor((2,)), 400, "expected shape [-1, 2]"),
    "a negative shape": (tensor((-1, 2)), 400, "at least one row"),
    "no rows": (tensor((0, 2), []), 400, "at least one row"),
    "too few elements": (tensor((2, 2)), 400, "expected 4 elements"),
    "texts for numbers": (tensor(data=["1", "2"]), 400, "expected numbers; got '1'"),
    "null where nothing may be missing": (tensor(data=[1, None]), 400, "nan for 'wind' in row 0"),
    "NaN": (b'{"inputs":[{"name":"numbers","shape":[1,2],"datatype":"FP32","data":[1,NaN]}]}', 400, "expected"),
    "beyond float32": (tensor(data=[1, 1e300]), 400, "inf for 'wind' in row 0"),
    "nested too deep": (tensor(data=[[[1, 2]]]), 400, "nested"),
    "no data": ({"inputs": [{"name": "numbers", "shape": [1, 2], "datatype": "FP32"}]}, 400, "expected data"),
    "another output": (infer_body(ROW, outputs=[{"name": "x"}]), 400, "outputs: expected prediction"),
    "more rows than allowed": (tensor((1_000_000, 2), []), 413, "up to 10,000 rows"),
    "a shape of astronomic size": (tensor((1 << 62, 2), []), 413, "up to 10,000 rows"),
}


def test_what_is_wrong_with_a_request_is_said_with_what_was_expected_and_the_rest_goes_on(settings, publisher):
    publisher.publish(linear([0.5, -0.25]))
    facts = Facts()
    with server_of(settings, PIPELINE, facts=facts) as (_, client):
        for what, (body, expected, said) in BAD_REQUESTS.items():
            status, answer = client.post("/v2/models/delay/infer", body)
            assert (status, said in answer["error"]) == (expected, True), (what, status, answer)
        nowhere = ["/v2/models/other/infer", "/nothing", "/" + "x/" * 500]
        for path in (*nowhere, *(f"/v2/models/delay/versions/{version}/infer" for version in ("7", "-1", "%C3%A9"))):
            assert client.post(path, infer_body(ROW))[0] == 404, path
        status, _, headers = client("DELETE", "/v2/models/delay/infer")
        assert (status, headers["allow"]) == (405, "POST")
        for given, expected in (("x", 400), ("-1", 400), ("0", 400), ("9" * 10, 400), ("10000", 200)):
            assert client.post("/v2/models/delay/infer", infer_body(ROW), X_Request_Timeout_Ms=given)[0] == expected
        for given in ("x", "-1", "0", "99999"):
            assert (
                client.post("/v2/models/delay/infer", infer_body(ROW), Inference_Header_Content_Length=given)[0] == 400
            )
        head = b'{"inputs":[{"name":"numbers","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":%d}}]}'
        tails = [(8, b"", "8 bytes after"), (4, b"1234", "expected 8 bytes"), (-1, b"", "-1 bytes")]
        nan = np.array([1, np.nan], "<f4").tobytes()
        for size, tail, said in (*tails, (8, b"123456789", "1 bytes are left"), (8, nan, "nan for 'wind'")):
            length = {"Inference_Header_Content_Length": str(len(head % size))}
            status, answer = client.post("/v2/models/delay/infer", head % size + tail, **length)
            assert (status, said in answer["error"]) == (400, True), answer
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[0] == 200


def test_one_bad_request_of_a_batch_spoils_no_other(settings, publisher):
    publisher.publish(linear([0.5, -0.25]))
    with server_of(settings, PIPELINE) as (_, client), ThreadPoolExecutor(32) as pool:
        good, bad = infer_body(ROW), infer_body([1.0, 1e300])
        answers = list(
            pool.map(lambda n: client.post("/v2/models/delay/infer", bad if n % 3 == 0 else good)[0], range(90))
        )
    assert answers == [400 if n % 3 == 0 else 200 for n in range(90)]


def test_bodies_are_bounded_however_they_come(settings, publisher):
    publisher.publish(linear([0.5, -0.25]))
    limits = Limits(request_bytes=1 << 20, deadline_seconds=5.0)
    with server_of(settings, PIPELINE, limits=limits) as (server, client):
        bomb = gzip.compress(b'{"inputs":[' + b" " * (64 << 20))
        status, answer = client.post("/v2/models/delay/infer", bomb, Content_Encoding="gzip")
        assert (status, "up to 1,048,576 bytes" in answer["error"]) == (413, True)
        packed = gzip.compress(msgspec.json.encode(infer_body(ROW)))
        assert client.post("/v2/models/delay/infer", packed, Content_Encoding="gzip")[0] == 200
        assert client.post("/v2/models/delay/infer", packed[:-9], Content_Encoding="gzip")[0] == 400
        assert client.post("/v2/models/delay/infer", b"rubbish", Content_Encoding="deflate")[0] == 400
        assert client.post("/v2/models/delay/infer", packed, Content_Encoding="br")[0] == 415
        assert client.post("/v2/models/delay/infer", b" " * (1 << 20) + b"{}")[0] == 413
        with socket.create_connection(("127.0.0.1", server.port)) as raw:  # a length that is never sent
            raw.sendall(
                b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{"
            )
            assert b" 413 " in raw.recv(100)
        body = msgspec.json.encode(infer_body(ROW))
        with socket.create_connection(("127.0.0.1", server.port)) as raw:  # 1-byte chunks
            raw.sendall(
                b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for byte in body:
                raw.sendall(b"1\r\n%c\r\n" % byte)
            raw.sendall(b"0\r\n\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        for sent in (0, 10):  # clients that hang up, before and within their body
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(
                    b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                raw.sendall(body[:sent])
        with socket.create_connection(("127.0.0.1", server.port)) as raw:  # and right after it
            raw.sendall(
                b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body
            )
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[0] == 200
        given = tritonclient.grpc.InferInput("numbers", [200_000, 2], "FP32")
        given.set_data_from_numpy(np.zeros((200_000, 2), np.float32))
        remote = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            remote.infer("delay", [given])


def test_an_id_is_echoed_and_made_where_there_is_none(settings, publisher):
    with server_of(settings, PIPELINE) as (_, client):
        ask = lambda **headers: client("GET", "/v2", headers=headers)[2]["x-request-id"]  # noqa: E731
        assert ask(**{"X-Request-Id": "order-17"}) == "order-17"
        assert ask(**{"X-Request-Id": "bad id"}) != "bad id"
        assert ask() != ask()


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────

DEPARTURES = Topic("departures", time="at")
WEATHER = Topic("weather", time="at")
FLIGHTS = Pipeline(
    name="flights",
    events=Topic("flights", id="id", time="at"),
    features=[
        Number("distance"),
        Category("carrier", nullable=True),
        Datetime("at", parts=["hour", "weekday"], timezone="America/New_York"),
        Aggregate(DEPARTURES, "delay", "mean", over="2h", by="origin"),
        Lookup(WEATHER, by="origin", fields=["wind"], max_age="3h"),
    ],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)


def zero_for_missing(graph):
    """The same graph, with 0 for NaN."""
    model = onnx.load_from_string(graph)
    model.graph.node[0].input[0] = "filled"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "zero"))
    first = [
        onnx.helper.make_node("IsNaN", ["numbers"], ["missing"]),
        onnx.helper.make_node("Where", ["missing", "zero", "numbers"], ["filled"]),
    ]
    for node in reversed(first):
        model.graph.node.insert(0, node)
    return model.SerializeToString()


def test_an_event_gets_the_answer_of_the_stream_to_the_bit_for_each_version(settings):
    """Alone, in lists, and beside others: on the kind of processor that tests run on, a row's bits do not depend on the
    rows that run with it (docs/serving.md)."""
    apply(settings, FLIGHTS, 2)
    publisher, facts, random = Publisher(settings, FLIGHTS), Facts(), np.random.default_rng(7)
    weights = random.standard_normal(3) * [0.001, 0.1, 0.1]
    origins = ["EWR", "JFK", "LGA"]
    sides = [
        {
            "origin": origins[n % 3],
            "at": f"2013-07-04T{9 + n % 2:02}:{n % 60:02}:00Z",
            "delay": float(d),
            "wind": float(d) / 3,
        }
        for n, d in enumerate(random.standard_normal(60) * 20)
    ]
    events = [
        {
            "id": f"e{n}",
            "at": f"2013-07-04T11:{n % 60:02}:00Z",
            "distance": float(d),
            "origin": origins[n % 3],
            "carrier": None if n % 5 == 0 else "UA",
        }
        for n, d in enumerate(random.uniform(100, 3_000, 400))
    ]
    names = publisher.names
    encoded = [msgspec.json.encode(event) for event in events]

    def streamed(first, last, version):
        produce(
            settings,
            names.events,
            [{"value": value, "partition": n % 2} for n, value in enumerate(encoded[first:last])],
        )
        wait_for("predictions", lambda: sum(fact.rows for fact in facts.of(Predicted)) == last)
        found = [msgspec.json.decode(m.value()) for m in read_all(settings, names.topics.predictions)]
        return {one["id"]: one for one in found if one["version"] == version}

    with worker_of(settings, FLIGHTS, facts), server_of(settings, FLIGHTS) as (_, client):
        for topic in ("departures", "weather"):
            produce(settings, settings.prefixed(topic), [{"value": msgspec.json.encode(side)} for side in sides])
        wait_for("side rows", lambda: sum(fact.rows for fact in facts.of(SideRowsApplied)) == 120)
        publisher.publish(zero_for_missing(linear(weights, bias=0.1, categories=3)))
        facts.wait(Proven, lambda fact: fact.version == 1)
        first = streamed(0, 200, 1)
        publisher.publish(zero_for_missing(linear(-weights, bias=0.3, categories=3)))
        facts.wait(Proven, lambda fact: fact.version == 2)
        second = streamed(200, 400, 2)
        wait_for("the swap here", lambda: client.get("/v2/models/flights/versions/2/ready")[0] == 200)
        assert len({one["prediction"] for one in first.values()}) > 190

        def same(answer, expected):
            assert answer == {name: value for name, value in expected.items() if name != "source"}

        for version, chunk, expected in (("1", encoded[:200], first), ("", encoded[200:], second)):
            path = f"/v1/pipelines/flights/predict{f'?version={version}' if version else ''}"
            status, together = client.post(path, b"[" + b",".join(chunk) + b"]")
            assert status == 200
            for answer in together:
                same(answer, expected[answer["id"]])
            with ThreadPoolExecutor(16) as pool:
                for status, answer in pool.map(lambda event, path=path: client.post(path, event), chunk):
                    assert status == 200
                    same(answer, expected[answer["id"]])


def test_events_that_would_be_dead_letters_say_their_reason_in_their_place(settings, publisher):
    with server_of(settings, PIPELINE) as (_, client):
        path = "/v1/pipelines/delay/predict"
        status, answer = client.post(path, {"id": "a"})
        assert (status, answer["reason"]) == (422, "wrong_shape")
        status, answers = client.post(path, [EVENT, {"id": "x"}, EVENT | {"at": "2999-01-01T00:00:00Z"}, 7, EVENT])
        assert status == 200
        assert [one.get("reason", one.get("prediction")) for one in answers] == [
            0.25,
            "wrong_shape",
            "future",
            "wrong_shape",
            0.25,
        ]
        assert client.post(path, []) == (200, [])
        for body in (b"", b"[1,", b"[" * 100_000, b"\xff"):
            assert client.post(path, body)[0] in (400, 422)
        assert client.post(path + "?version=9", EVENT)[0] == 404
        assert client.post("/v1/pipelines/nobody/predict", EVENT)[0] == 404
        assert client.post(path, b"[" + b",".join([b"{}"] * 10_001) + b"]")[0] == 413


def test_a_label_of_several_classes_has_a_probability_for_each(settings):
    label = Multiclass(PIPELINE.label.topic, "late", within="1h", if_absent="drop", classes=["a", "b", "c"])
    pipeline = replace(PIPELINE, label=label)
    apply(settings, pipeline)
    with server_of(settings, pipeline) as (_, client):
        assert client.get("/v2/models/delay")[1]["outputs"] == [
            {"name": "prediction", "datatype": "FP64", "shape": [-1, 3]}
        ]
        output = client.post("/v2/models/delay/infer", infer_body(ROW, ROW))[1]["outputs"][0]
        assert (output["shape"], output["data"]) == ([2, 3], [pytest.approx(1 / 3)] * 6)
        status, answer = client.post("/v1/pipelines/delay/predict", EVENT)
        assert (status, answer["label"], answer["probabilities"]) == (200, "a", dict.fromkeys("abc", 1 / 3))
        assert answer["prediction"] == answer["probabilities"]["a"]


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_swaps_are_followed_and_other_versions_are_loaded_when_they_are_asked_for(settings, publisher):
    facts = Facts()
    with server_of(settings, PIPELINE, facts=facts, limits=Limits(versions=2)) as (_, client):
        ask = lambda version: client.post(f"/v2/models/delay/versions/{version}/infer", infer_body(ROW))  # noqa: E731
        status, answer = client.post("/v2/models/delay/infer", infer_body(ROW))
        assert (status, answer["model_version"], score_of(answer), answer["outputs"][0]["datatype"]) == (
            200,
            "0",
            [0.25],
            "FP64",
        )
        for number in range(1, 6):
            publisher.publish(linear([0.0, 0.0], bias=number))
            facts.wait(Swapped, lambda fact, number=number: fact.version == number)
        publisher.publish(b"garbage")
        assert facts.wait(Refused).version == 6
        status, answer = client.post("/v2/models/delay/infer", infer_body(ROW))
        assert (status, answer["model_version"]) == (200, "5")
        sigmoid = lambda bias: pytest.approx([1 / (1 + np.exp(-bias))], rel=1e-6)  # noqa: E731
        for number in (1, 2, 3, 4, 1):
            assert client.get(f"/v2/models/delay/versions/{number}/ready")[0] == 503
            status, answer = ask(number)
            assert (status, answer["model_version"], score_of(answer)) == (200, str(number), sigmoid(number))
            assert client.get(f"/v2/models/delay/versions/{number}/ready")[0] == 200
        index = {one["version"]: one["state"] for one in client.post("/v2/repository/index")[1]}
        assert [version for version, state in index.items() if state == "READY"] == ["1", "4", "5"]
        assert len(client.post("/v2/repository/index", {"ready": True})[1]) == 3
        status, answer = ask("6")
        assert (status, "version 6" in answer["error"]) == (503, True)
        assert ask("0")[1]["outputs"][0]["data"] == [0.25]
        with ThreadPoolExecutor(16) as pool:  # many who wait for one that is being loaded
            assert {status for status, _ in pool.map(ask, ["2"] * 16)} == {200}
        publisher.promote(2)  # a rollback
        facts.wait(Swapped, lambda fact: fact.seq == publisher.seq)
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[1]["model_version"] == "2"


# ── load ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

SLOW = replace(PIPELINE, operators=["Loop"])
FOR_EVER = [0.5, 1e12]  # rounds


def test_what_cannot_be_answered_in_time_is_refused_and_the_queue_is_bounded(settings):
    apply(settings, SLOW)
    Publisher(settings, SLOW).publish(hanging())
    quick = settings.model_copy(update={"onnx_timeout_s": 4.0})
    facts = Facts()
    with server_of(quick, SLOW, facts=facts, limits=Limits(waiting_requests=3)) as (server, client):
        path = "/v2/models/delay/infer"
        with ThreadPoolExecutor(4) as pool:
            hangs = pool.submit(client, "POST", path, infer_body(FOR_EVER))
            wait_for("the model to hang", lambda: server.service.pipelines["delay"].busy[0])
            status, answer = client.post(path, infer_body(ROW), X_Request_Timeout_Ms="100")
            assert (status, "expected an answer within" in answer["error"]) == (504, True)
            given = tritonclient.grpc.InferInput("numbers", [1, 2], "FP32")
            given.set_data_from_numpy(np.array([ROW], np.float32))
            remote = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
            with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
                remote.infer("delay", [given], client_timeout=0.2)
            assert client.post(path, infer_body(ROW, parameters={"timeout": 50_000}))[0] == 504
            wait_for("those to leave the queue", lambda: server.service.pipelines["delay"].busy == (1, 0))
            patient = [pool.submit(client, "POST", path, infer_body(ROW)) for _ in range(3)]
            wait_for("a full queue", lambda: server.service.pipelines["delay"].busy == (1, 3))
            status, answer, headers = client("POST", path, infer_body(ROW))
            assert (status, headers["retry-after"].isdigit()) == (429, True), answer
            with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED") as refused:
                remote.infer("delay", [given])
            assert "expected a place in the queue" in str(refused.value)
            assert client.get("/v2/health/ready")[0] == 200
            assert client.post("/v1/pipelines/delay/predict", EVENT)[0] == 200  # in a lane of its own
            status, answer, _ = hangs.result()
            assert (status, "timeout" in answer["error"]) == (503, True)
            assert [one.result()[0] for one in patient] == [200] * 3
        assert client.post(path, infer_body(ROW))[0] == 200
    ran = sum(fact.rows for fact in facts.of(Served) if fact.lane == "tensors")
    assert ran == 5  # the one that hung, three that waited, and the last: nobody ran what was over


def test_a_registry_that_was_made_anew_ends_readiness_with_a_sentence_and_no_answers(settings, publisher):
    publisher.publish(linear([1.0, 0.0]))
    with server_of(settings, PIPELINE) as (server, client):
        assert client.get("/v2/health/ready") == (200, {"ready": True})
        path = "/v2/models/delay/infer"
        before = client.post(path, infer_body(ROW))
        registry, deleter = Names(settings.prefix, PIPELINE).of(REGISTRY), admin(settings)
        for gone in deleter.delete_topics([registry]).values():
            gone.result(30)
        apply(settings, PIPELINE, 2)
        wait_for("it to notice", lambda: client.get("/v2/health/ready")[0] == 503)
        _, said = client.get("/v2/health/ready")
        assert not said["ready"]
        assert said["error"].startswith(f"Topic {registry} was deleted and made anew")
        assert said["error"].endswith("Restart it.")
        assert client.get("/v2/models/delay/ready")[0] == 503
        remote = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        assert not remote.is_server_ready()
        assert remote.is_server_live()
        assert client.post(path, infer_body(ROW)) == before
        wait_for("the console to say so", lambda: b"was deleted and made anew" in client.get("/console/p/delay")[1])


def test_concurrent_requests_share_runs_and_each_gets_its_own_answer(settings, publisher):
    publisher.publish(linear([1.0, 0.0]))
    facts = Facts()
    with server_of(settings, PIPELINE, facts=facts) as (_, client), ThreadPoolExecutor(64) as pool:

        def ask(n):
            rows = [[n / 100 + row, 0.0] for row in range(n % 3 + 1)]
            status, answer = client.post("/v2/models/delay/infer", infer_body(*rows))
            expected = 1 / (1 + np.exp(-np.array([row[0] for row in rows], np.float32)))
            np.testing.assert_allclose(score_of(answer), expected, rtol=1e-5)
            return status

        assert set(pool.map(ask, range(600))) == {200}
    runs = facts.of(Served)
    assert sum(run.requests for run in runs) == 600
    assert len(runs) < 600


def test_a_stop_answers_what_is_in_flight_and_says_not_ready_meanwhile(settings):
    apply(settings, SLOW)
    Publisher(settings, SLOW).publish(hanging())
    quick = settings.model_copy(update={"onnx_timeout_s": 3.0})
    with server_of(quick, SLOW) as (server, client), ThreadPoolExecutor(1) as pool:
        kept = http.client.HTTPConnection("127.0.0.1", server.port)
        kept.request("GET", "/v2/health/ready")
        assert kept.getresponse().read() == b'{"ready":true}'
        hangs = pool.submit(client, "POST", "/v2/models/delay/infer", infer_body(FOR_EVER))
        wait_for("the model to hang", lambda: server.service.pipelines["delay"].busy[0])
        server.stop()
        wait_for("not ready", lambda: not server.service.ready)
        assert hangs.result()[0] == 503  # an answer: the model's deadline
    with pytest.raises(ConnectionError):
        client.get("/v2/health/live")


# ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_can_be_asked_for_and_looked_at(settings, publisher):
    with server_of(settings, PIPELINE) as (_, client):
        status, asked = client.post("/v1/pipelines/delay/retrain", {"why": "a new carrier"})
        assert (status, asked["state"]) == (202, "requested")
        (record,) = read_all(settings, Names(settings.prefix, PIPELINE).of(RUNS))
        found = msgspec.json.decode(record.value())
        assert (found["run"], found["on_demand"], found["why"]) == (asked["run"], True, "a new carrier")
        status, run = client.get(f"/v1/pipelines/delay/runs/{asked['run']}")
        assert (status, run["state"], run["by"]) == (200, "requested", "serve: anybody on this machine")
        assert [one["run"] for one in client.get("/v1/pipelines/delay/runs")[1]] == [asked["run"]]
        assert client.get("/v1/pipelines/delay/runs/none")[0] == 404
        assert client.post("/v1/pipelines/delay/retrain", {"when": "now"})[0] == 400
        assert client.post("/v1/pipelines/other/retrain")[0] == 404


def test_a_port_that_is_taken_is_a_sentence(settings, publisher):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(settings, [PIPELINE], Facts(), Options(port=taken.getsockname()[1], grpc_port=0))
        with pytest.raises(PortTaken, match="expected a free"):
            asyncio.run(server.run())
    with server_of(settings, PIPELINE) as (first, _):
        server = Server(settings, [PIPELINE], Facts(), Options(port=0, grpc_port=first.grpc_port))
        with pytest.raises(PortTaken, match="--grpc-port"):
            asyncio.run(server.run())
