"""Topics in MessagePack: the same records, rules and reasons as in JSON; and tensors as bytes, in both."""

import base64
import json
import math
import re
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import Aggregate, Binary, Category, Datetime, Lookup, Number, Pipeline, Regression, Tensor, Topic
from headrace.infra.row_format import readable, writer
from headrace.infra.rows import dated
from headrace.models.errors import BadInput, DeclarationError
from headrace.models.features import fields_of
from headrace.streams.codec import EventDecoder, LabelDecoder
from headrace.streams.features import FeaturePlan
from headrace.streams.memory_store import MemoryFeatureStore
from headrace.streams.side_rows import SideDecoder
from headrace.testing import replay

NOW = 1_372_939_200_000  # 2013-07-04T12:00:00Z, Unix ms
HOUR = 3_600_000
MAX_FUTURE = 300_000  # ms
EVENTS = {written: Topic("events", id="id", time="at", format=written) for written in ("json", "msgpack")}
ENCODE = {"json": lambda row: json.dumps(row).encode(), "msgpack": msgspec.msgpack.encode}
SIDE = Topic("side", time="at", format="msgpack")
LABELS = Topic("labels", id="id", time="at", format="msgpack")
FEATURES = [
    Number("x"),
    Number("n", nullable=True),
    Category("c", nullable=True),
    Tensor("t", shape=[2, 2]),
    Datetime("d", parts=["minute", "weekday"], timezone="Asia/Kathmandu", nullable=True),
    Lookup(SIDE, by="e", fields=["v"]),
]
EVENT = {"id": "a", "at": "2013-07-04T11:00:00Z", "x": 1.5, "t": [1, 2, 3, 4]}

pixels = Pipeline(
    name="pixels",
    events=Topic("images", id="id", time="at", format="msgpack"),
    features=[Tensor("pixels", shape=[2, 2]), Aggregate(SIDE, "v", "sum", over="1h", by="camera")],
    label=Binary(LABELS, "cat", within="1h", if_absent="drop"),
)
IMAGE = {"id": "i1", "at": "2013-07-04T11:00:00Z", "camera": "north"}


def floats(*values):
    return np.array(values, "<f4").tobytes()


def columns(*values, features=FEATURES, written="msgpack"):
    """What the chunk comes to, and why the rest of it does not."""
    decoded = EventDecoder(EVENTS[written], fields_of(features), MAX_FUTURE).decode(list(values), NOW)
    decoded, found = FeaturePlan(features).compute(decoded, MemoryFeatureStore())
    return decoded, {name: array.tolist() for name, array in found.items()}


def event(**changed):
    return msgspec.msgpack.encode({**EVENT, **changed})


def reason(*values, **options):
    decoded, _ = columns(*values, **options)
    ((_, error),) = decoded.rejected
    return str(error)


# ── the same as in JSON ───────────────────────────────────────────────────────────────────────────────────────────────

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),  # beyond, MessagePack has none
    st.floats(allow_nan=False, allow_infinity=False),
)
_inner = st.recursive(
    st.one_of(_scalars, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
_anything = st.one_of(_inner, st.sampled_from(["2013-07-04T11:30:00+02:00", "2013-07-04T11:30:00", NOW, NOW * 2]))
# without texts, which are base64 in JSON alone
_tensor = st.one_of(_scalars, st.lists(_inner, max_size=4), st.just([[1, 2], [3, 4.5]]))


@settings(deadline=None)  # the first example loads a timezone
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "at", "x", "n", "c", "d", "e"], _anything) | {"t": _tensor})
)
def test_an_event_is_the_same_row_or_has_the_same_reason_in_both_formats(fields):
    def come_to(written):
        encode = ENCODE[written]
        decoded, found = columns(encode(EVENT), encode({**EVENT, **fields}), written=written)
        times = decoded.times.tolist()
        reasons = [(index, error.reason) for index, error in decoded.rejected]
        return decoded.kept, decoded.ids, times, repr(decoded.fields), repr(found), reasons

    assert come_to("msgpack") == come_to("json")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "at", "x"], _anything)))
def test_a_label_is_the_same_in_both_formats(fields):
    def come_to(written):
        decoder = LabelDecoder(Regression(EVENTS[written], "x", within="1h", if_absent="drop"), MAX_FUTURE)
        values = [ENCODE[written]({**EVENT, **fields})] * 2
        kept, rows, rejected = decoder.decode(values, NOW)
        ids, times, learnt = decoder.columns(values, NOW)
        assert list(zip(ids, times, learnt, strict=True)) == [(row.id, row.time, row.value) for row in rows]
        return kept, rows, [(index, error.reason) for index, error in rejected]

    assert come_to("msgpack") == come_to("json")


@given(st.lists(st.one_of(st.binary(max_size=60), st.none(), st.just(event())), max_size=6))
def test_no_bytes_raise_and_none_get_lost(values):
    decoded, _ = columns(*values)
    assert sorted(decoded.kept + [index for index, _ in decoded.rejected]) == list(range(len(values)))


@given(st.data())
def test_no_event_with_a_few_bytes_changed_raises(data):
    value = bytearray(event(t=floats(1, 2, 3, 4), d=datetime(2013, 7, 4, tzinfo=UTC), e="x"))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    decoded, found = columns(bytes(value[: data.draw(st.integers(1, len(value)))]), event())
    assert len(decoded.kept) + len(decoded.rejected) == 2
    assert all(len(array) == len(decoded.kept) for array in found.values())


# ── what only MessagePack has ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_time_is_text_or_a_number_or_a_timestamp():
    moment = datetime(2013, 7, 4, 11, tzinfo=UTC)
    exact = moment + timedelta(microseconds=700)
    decoded, found = columns(event(), event(at=NOW - HOUR), event(at=moment, d=moment), event(at=exact))
    assert decoded.times.tolist() == [NOW - HOUR] * 3 + [NOW - HOUR + 1]
    assert found["d_minute"] == [None, None, "45", None]


def test_labels_may_have_timestamps_too():
    decoder = LabelDecoder(Binary(LABELS, "cat", within="1h", if_absent="drop"), MAX_FUTURE)
    moment = datetime(2013, 7, 4, 11, tzinfo=UTC)
    values = [msgspec.msgpack.encode({"id": place, "at": at, "cat": True}) for place, at in enumerate([moment, NOW])]
    ids, times, learnt = decoder.columns(values, NOW)
    assert (ids, times.tolist(), learnt.tolist()) == (["0", "1"], [NOW - HOUR, NOW], [1.0, 1.0])


BOMB = b"\xdd\xff\xff\xff\xff"  # an array that says that it has 2³² - 1 elements
CUT = msgspec.msgpack.encode({**EVENT, "t": 0})[:-1]
BAD = {
    "no value": (None, "tombstone: expected a MessagePack map"),
    "no bytes": (b"", "empty: expected a MessagePack map"),
    "text": (b"flight 1545 is late", "not_msgpack: "),
    "JSON": (json.dumps(EVENT).encode(), r"not_msgpack: .*begins as JSON does"),
    "cut off": (event()[:-3], "not_msgpack: .*truncated"),
    "two values": (event() + event(), "not_msgpack: .*trailing"),
    "an unused opcode": (b"\xc1", "not_msgpack: "),
    "an array": (msgspec.msgpack.encode([1, 2]), "wrong_shape: Expected `object`, got `array`"),
    "nil": (b"\xc0", "wrong_shape: "),
    "keys that are numbers": (msgspec.msgpack.encode({1: 2}), "wrong_shape: "),
    "keys that are bytes": (msgspec.msgpack.encode({b"id": "a"}), "wrong_shape: "),
    "too deep": (b"\x81\xa1y" + b"\x91" * 100_000, "not_msgpack: "),
    "text that is not UTF-8": (event(c="q").replace(b"\xa1q", b"\xa1\xff"), "not_utf8: "),
    "a bomb": (BOMB, "not_msgpack: "),
    "a bomb as tensor": (CUT + BOMB, "not_msgpack: "),
    "a bomb in a tensor": (CUT + b"\x92" + BOMB, "not_msgpack: "),
    "a bomb in no field": (event(y=0)[:-1] + BOMB, "not_msgpack: "),
    "an extension for a time": (event(at=msgspec.msgpack.Ext(5, b"12")), "no_time: "),
    "a timestamp out of range": (event(at=0)[:-1] + b"\xc7\x0c\xff" + b"\x00" * 4 + b"\x7f" + b"\xff" * 7, ""),
    "a timestamp before 1970": (event(at=datetime(1969, 1, 1, tzinfo=UTC)), "no_time: "),
    "a time of float": (event(at=float(NOW)), "no_time: "),
    "the future": (event(at=datetime(2014, 1, 1, tzinfo=UTC)), "future: "),
    "a number that is none": (event(x=math.nan), "wrong_shape: .*`float`.*`\\$.x`"),
    "a nullable number that is none": (event(n=math.nan), "wrong_shape: "),
    "an infinite number": (event(x=-math.inf), "wrong_shape: "),
    "an entity that is no number": (event(e=math.nan), "wrong_shape: "),
    "an infinite entity": (event(e=math.inf), "wrong_shape: "),
    "a tensor of texts": (event(t=["1", "2", "3", "4"]), "wrong_shape: .*'t'"),
    "a tensor of bytes in a row": (event(t=[b"1", b"2", b"3", b"4"]), "wrong_shape: .*'t'"),
    "a tensor of maps": (event(t=[{}, {}, {}, {}]), "wrong_shape: .*'t'"),
    "a tensor of timestamps": (event(t=[datetime(2013, 1, 1, tzinfo=UTC)] * 4), "wrong_shape: .*'t'"),
    "a ragged tensor": (event(t=[[1], [2, 3, 4]]), "wrong_shape: .*'t'"),
    "a tensor with NaN": (event(t=[1, 2, 3, math.nan]), "wrong_shape: .*NaN or infinity"),
    "a tensor as text": (event(t="AAAA"), "wrong_shape: "),
    "too few bytes": (event(t=floats(1, 2, 3)), r"wrong_shape: field 't': expected 4 .* or 16 bytes .*got 12 bytes"),
    "bytes that are no floats": (event(t=b"12345"), "wrong_shape: .*16 bytes.*got 5 bytes"),
    "no bytes at all": (event(t=b""), "wrong_shape: .*16 bytes.*got 0 bytes"),
    "bytes with NaN": (event(t=floats(1, 2, 3, math.nan)), "wrong_shape: .*NaN or infinity"),
    "bytes with infinity": (event(t=floats(1, 2, math.inf, 4)), "wrong_shape: .*NaN or infinity"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_event_has_its_reason_and_its_neighbours_are_kept(what):
    value, expected = BAD[what]
    good = event(t=floats(1, 2, 3, 4))
    decoded, found = columns(good, value, good)
    assert decoded.kept == [0, 2]
    assert found["t"] == [[[1, 2], [3, 4]]] * 2
    (index, error), *_ = decoded.rejected
    assert index == 1
    assert re.match(expected, str(error)), str(error)


def test_numbers_that_are_none_reach_neither_rings_nor_labels():
    rings = list(FeaturePlan(pixels.features).rings)
    rows = [{"at": NOW, "camera": "north", "v": value} for value in (1.0, math.nan, math.inf)]
    rows.append({"at": NOW, "camera": math.nan, "v": 1})
    chunk = SideDecoder(rings, MAX_FUTURE, "msgpack").decode([msgspec.msgpack.encode(row) for row in rows], NOW)
    assert (chunk.accepted, [error.reason for _, error in chunk.rejected]) == (1, ["wrong_shape"] * 3)

    for label in (Regression(LABELS, "v", within="1h", if_absent="drop"), Binary(LABELS, "v", 1, "1h", "drop")):
        value = msgspec.msgpack.encode({"id": "a", "at": NOW, "v": math.nan})
        _, good, rejected = LabelDecoder(label, MAX_FUTURE).decode([value], NOW)
        assert (good, [error.reason for _, error in rejected]) == ([], ["wrong_shape"])


# ── tensors as bytes ──────────────────────────────────────────────────────────────────────────────────────────────────

TENSOR = [Tensor("t", shape=[2, 2])]


@pytest.mark.parametrize("written", ["json", "msgpack"])
def test_a_tensor_is_bytes_of_float32_or_nested_or_flat_in_one_chunk(written):
    data = floats(1.5, 2, 3, 4)
    ways = [base64.b64encode(data).decode() if written == "json" else data, [[1.5, 2], [3, 4]], [1.5, 2, 3, 4]]
    values = [ENCODE[written]({**EVENT, "t": way}) for way in ways]
    for chunk in (values, values[:1] * 3):
        decoded, found = columns(*chunk, features=TENSOR, written=written)
        assert (decoded.kept, found["t"]) == ([0, 1, 2], [[[1.5, 2], [3, 4]]] * 3)


def test_a_chunk_of_bytes_parks_only_the_rows_with_numbers_that_are_none():
    rows = [event(t=floats(row, 0, math.nan if row in (3, 7) else 0, 0)) for row in range(10)]
    decoded, found = columns(*rows, features=TENSOR)
    assert [index for index, _ in decoded.rejected] == [3, 7]
    assert [row[0][0] for row in found["t"]] == [0, 1, 2, 4, 5, 6, 8, 9]


def test_a_function_may_write_into_a_tensor():
    decoder = EventDecoder(EVENTS["msgpack"], fields_of(TENSOR), MAX_FUTURE)
    _, found = FeaturePlan(TENSOR).compute(decoder.decode([event(t=floats(1, 2, 3, 4))], NOW), None)
    found["t"] *= 2
    assert found["t"].tolist() == [[[2, 4], [6, 8]]]
    assert found["t"].dtype == np.float32


def test_base64_that_is_none_is_refused_in_json():
    def of_text(text):
        return reason(json.dumps({**EVENT, "t": text}).encode(), written="json")

    assert of_text("no base64").startswith("wrong_shape: Invalid base64")
    assert "16 bytes of float32; got 8 bytes" in of_text(base64.b64encode(floats(1, 2)).decode())


# ── declarations, tests, files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_format_that_is_none_is_refused_when_it_is_declared():
    with pytest.raises(DeclarationError, match=r"Topic\('x'\).format: expected 'json' or 'msgpack', got 'avro'"):
        Topic("x", time="at", format="avro")


def test_one_topic_has_one_format():
    with pytest.raises(DeclarationError, match=r"Topic\('labels'\).format: expected one format"):
        Pipeline(
            name="p",
            events=Topic("events", id="id", time="at"),
            features=[Number("x"), Lookup(Topic("labels", time="at"), by="e", fields=["v"])],
            label=Binary(LABELS, "cat", within="1h", if_absent="drop"),
        )


def test_a_pipeline_in_messagepack_is_tested_with_dicts():
    result = replay(
        pixels,
        events=[{**IMAGE, "pixels": floats(1, 2, 3, 4)}, {**IMAGE, "id": "i2", "pixels": floats(1, 2)}, b"{}"],
        side_rows={"side": [{"at": NOW - HOUR - 60_000, "camera": "north", "v": 7}, b"{}"]},
        labels=[{"id": "i1", "at": datetime(2013, 7, 4, 11, 30, tzinfo=UTC), "cat": True}, b"{}"],
        now=NOW,
    )
    assert result.features["i1"] == {"pixels": [1, 2, 3, 4], "side_v_sum_1h_by_camera": 7}
    assert [row.label for row in result.joined] == [1.0]
    assert sorted((letter.topic, letter.reason) for letter in result.dead_letters) == [
        ("images", "not_msgpack"),
        ("images", "wrong_shape"),
        ("labels", "not_msgpack"),
        ("side", "not_msgpack"),
    ]


def test_what_messagepack_cannot_hold_is_said():
    with pytest.raises(BadInput, match="expected what msgpack can hold"):
        replay(pixels, events=[{**IMAGE, "pixels": np.zeros(4)}])


def test_rows_of_json_go_in_the_format_of_their_topic():
    write = writer(pixels, "images")
    row = {**IMAGE, "pixels": base64.b64encode(floats(1, 2, 3, 4)).decode(), "camera": "AAAA"}
    assert msgspec.msgpack.decode(write(json.dumps(row).encode())) == row | {"pixels": floats(1, 2, 3, 4)}
    nested = {**IMAGE, "pixels": [[1, 2.5], [3, 4]]}
    assert msgspec.msgpack.decode(write(json.dumps(nested).encode())) == nested
    assert msgspec.msgpack.decode(writer(pixels, "side")(b'{"pixels":"AAAA"}')) == {"pixels": "AAAA"}
    for rubbish in (b"{", b"[1]", b"\xff"):
        assert write(rubbish) == rubbish
    no_base64 = json.dumps({**IMAGE, "pixels": "a cat"}).encode()
    assert msgspec.msgpack.decode(write(no_base64))["pixels"] == "a cat"


def test_rows_for_no_topic_and_numbers_beyond_64_bits_are_refused():
    with pytest.raises(BadInput, match="topic: expected 'side' or 'labels' or 'images' of pixels, got 'flights'"):
        writer(pixels, "flights")
    with pytest.raises(BadInput, match="MessagePack can hold"):
        writer(pixels, "images")(b'{"id":%d}' % 2**64)


def test_dated_rows_keep_their_order_and_keys_in_another_format():
    rows = [b'{"id":"b","at":2000}', b'{"id":"a","at":1000}', b"rubbish"]
    stream = dated(rows, pixels.events, write=writer(pixels, "images"))
    assert stream.keys == [b"a", None, b"b"]
    assert [msgspec.msgpack.decode(stream.values[row])["id"] for row in (0, 2)] == ["a", "b"]
    assert stream.values[1] == b"rubbish"


def test_messagepack_is_shown_as_json_without_its_long_bytes():
    value = msgspec.msgpack.encode({**IMAGE, "pixels": bytes(49_152), "hash": b"\xff\x00", "n": [math.nan]})
    assert json.loads(readable(value, "msgpack")) == IMAGE | {"pixels": "<49,152 bytes>", "hash": "0xff00", "n": [None]}
    assert readable(b'{"id":"a"}', "msgpack") == '{"id":"a"}'
    assert readable(b"\xc1\xff", "msgpack") == "0xc1ff"
    assert readable(b"\x91" * 5_000, "msgpack").startswith("0x9191")


@given(st.binary(max_size=40))
def test_any_bytes_can_be_shown(value):
    assert isinstance(readable(value, "msgpack"), str)
