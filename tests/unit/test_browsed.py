"""Any message can be looked at."""

import math

import msgspec
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.names import Names
from headrace.infra.services.data.browsed import browsed
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at", format="msgpack"), "late", within="1h", if_absent="drop"),
)
NAMES = Names("p.", PIPELINE)
KINDS = ["events", "labels", "predictions", "dead-letters"]
packed = msgspec.msgpack.encode
POISON = [
    None,
    b"",
    b"\xff\xfe\x00",
    b'{"id":' + b"9" * 5_000 + b',"at":1}',
    b'{"id":"e1","at":' + b"9" * 5_000 + b"}",
    b'{"id":"e1","at":1e400}',
    b'{"id":"e1","at":-1}',
    b'{"id":"e1","at":0.5}',
    b'{"id":"\\ud800","at":1}',
    b'{"id":true,"at":true}',
    b'{"id":"e1","at":"0001-01-01T00:00:00+14:00"}',
    b'{"id":"e1","at":"9999-12-31T23:59:59-14:00"}',
    b'{"id":"e1","at":"2013-07-04T11:00:00"}',
    b"[" * 100_000,
    packed({"id": "e1", "at": math.nan}),
    packed({"id": "e1", "at": -math.inf}),
    packed({"id": 2**64 - 1, "at": 2**64 - 1}),
    packed({"id": b"\xff", "at": msgspec.msgpack.Ext(5, b"1")}),
    packed({1: 2}),
    b"\xdf\xff\xff\xff\xff",
    b"\x91" * 100_000,
]
HEADERS = [("headrace-source", b"p.arrivals/0/1"), ("\xff", b"\xff"), ("none", None), ("x" * 900, b"y" * 900)]


def shown(kind, value, headers=HEADERS, width=50, search="e1"):
    about = browsed(NAMES, kind)
    message = Message(
        topic=about.full, partition=0, offset=7, key=value, value=value, headers=headers, timestamp=(1, 1_000)
    )
    found = about.has(message, search)
    one = about.record(message, width)
    msgspec.json.encode(one)
    assert len(one.value or "") <= width + 1
    assert len(one.key or "") <= width + 1
    return one, found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", POISON, ids=range(len(POISON)))
def test_poison_is_shown_within_the_width(kind, value):
    one, _ = shown(kind, value)
    assert one.size == len(value or b"")


@given(st.sampled_from(KINDS), st.binary(max_size=200), st.binary(max_size=20))
def test_no_bytes_make_it_fail(kind, value, source):
    one, _ = shown(kind, value, [("headrace-source", source)])
    assert one.place.endswith("/0/7")


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip()), st.sampled_from(["json", "msgpack"]))
def test_an_event_is_found_by_its_id_whatever_it_is(about, written):
    value = (packed if written == "msgpack" else msgspec.json.encode)({"id": about, "at": 1_000})
    one, found = shown("labels" if written == "msgpack" else "events", value, [], search=about)
    assert found
    assert (one.id, one.event_time) == (about, "1970-01-01T00:00:01Z")
