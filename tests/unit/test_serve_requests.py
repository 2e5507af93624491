"""Requests that are wrong in costly ways, and what they may ask for: bodies, versions, timeouts."""

import msgspec
import pytest

from headrace.infra.serve import messages
from headrace.infra.serve.refusals import RequestRefused, TooLarge
from headrace.infra.serve.rows import Events


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
