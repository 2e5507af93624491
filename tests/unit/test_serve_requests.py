"""Requests that are wrong in costly ways, and what they may ask for: bodies, versions, timeouts."""

import asyncio
import gzip
from dataclasses import replace

import msgspec
import pytest

from headrace.infra.serve import grpc_service, messages
from headrace.infra.serve.grpc_messages import message
from headrace.infra.serve.http import Bodies, Request
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import Overloaded, RequestRefused, TooLarge
from headrace.infra.serve.rows import Events
from headrace.infra.serve.versions import as_json
from headrace.infra.services.versions.resolve import resolve
from headrace.models.errors import BadInput
from headrace.models.features import Lookup, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.registry import Versions


def test_events_are_as_they_came_whatever_their_commas():
    events = Events(10)
    wide = [{"id": str(n), "values": list(range(50)), "more": {"a": [{}, {}]}} for n in range(10)]
    assert [msgspec.json.decode(one) for one in events(msgspec.json.encode(wide))] == wide
    assert events(b"[]") == []
    assert events(b'[ {"a":1} , 7]') == [b'{"a":1}', b"7"]  # refused in its place, as a dead letter would be


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"[" + b",".join([b"{}"] * 11) + b"]", TooLarge, "up to 10 events"),
        (b"[" + b",".join([b"{}"] * 11), TooLarge, "up to 10 events"),  # not read to its end
        (b"[" + b",".join([b"1"] * 1_000_000) + b"]", RequestRefused, r"list of them; Expected `object`.*\$\[0\]"),
        (b"[[" + b",".join([b'""'] * 1_000_000) + b"]]", RequestRefused, "Expected `object`"),
        (b"[" * 100_000 + b"," * 20, RequestRefused, "body: expected an event"),
    ],
)
def test_too_many_events_are_refused_before_anything_is_made_of_them(body, error, said):
    with pytest.raises(error, match=said):
        Events(10)(body)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_a_request_names_a_bounded_number_of_tensors(field):
    one = {"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}
    with pytest.raises(RequestRefused, match="up to 10,000 inputs and outputs"):
        messages.parsed(msgspec.json.encode({"inputs": [one], field: [one] * 10_001}), None)
    _, given = messages.parsed(msgspec.json.encode({"inputs": [one] * 5_000, "outputs": [one] * 5_000}), None)
    assert len(given) == 5_000


def test_what_a_body_unpacks_to_is_counted_until_it_is_answered():
    bodies = Bodies(Limits(request_bytes=3_000, waiting_bytes=5_000))

    async def receive():
        return {"type": "http.request", "body": gzip.compress(b" " * 3_000)}

    async def scenario():
        scope = {"headers": [(b"content-encoding", b"gzip")], "method": "POST", "path": "/"}
        first, second = Request(scope, receive, bodies), Request(scope, receive, bodies)
        assert await first.body() == b" " * 3_000
        assert bodies.held == 3_000
        with pytest.raises(Overloaded):
            await second.body()
        second.release()
        first.release()
        assert bodies.held == 0

    asyncio.run(scenario())


def test_a_timeout_is_a_number_or_a_text_of_microseconds_and_0_is_none():
    assert [messages.milliseconds(given) for given in (2_000, "2000", 0, "0")] == [2.0, 2.0, None, None]
    assert messages.milliseconds(10**400) == messages.milliseconds("9" * 400) == 1e12
    for wrong in ("", "soon", -1, "-1", "9" * 5_000):
        with pytest.raises(RequestRefused, match=r"parameters\.timeout: expected microseconds"):
            messages.milliseconds(wrong)
    parameter = message("InferParameter")
    given = [parameter(string_param="2000"), parameter(int64_param=2_000), parameter(uint64_param=2_000)]
    assert [messages.milliseconds(grpc_service._timeout(one)) for one in given] == [2.0] * 3
    for wrong in (parameter(), parameter(bool_param=True), parameter(double_param=1.5)):
        with pytest.raises(RequestRefused, match="as int64_param"):
            grpc_service._timeout(wrong)


def test_a_version_that_is_not_there_is_said_in_short():
    versions = Versions(published=dict.fromkeys(range(1, 3_001)))
    assert [resolve(versions, text) for text in ("0", "00", "3000")] == [0, 0, 3_000]
    for wrong in ("3001", "9" * 5_000, "x" * 5_000, "-1"):
        with pytest.raises(BadInput, match=r"expected one of 0, …, 2991, .*3000, or") as refused:
            resolve(versions, wrong)
        assert len(str(refused.value)) < 250
    with pytest.raises(BadInput, match="expected one of 0, 1, 2, or"):
        resolve(Versions(published=dict.fromkeys((1, 2))), "3")


def test_events_are_json_where_their_messagepack_topic_has_labels_and_side_rows_too():
    topic = Topic("flights", id="id", time="at", format="msgpack")
    side = Lookup(topic, by="carrier", fields=["delay"])
    label = Binary(topic, "late", within="1h", if_absent="drop")
    pipeline = Pipeline(name="delay", events=topic, features=[Number("distance"), side], label=label)
    asked = as_json(pipeline)
    assert (asked.events.format, pipeline.events.format, asked.label.topic.format) == ("json", "msgpack", "msgpack")
    assert replace(asked, events=pipeline.events) == pipeline
