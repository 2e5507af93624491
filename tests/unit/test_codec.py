"""Bytes on the wire ↔ columns: times, ids, served batches."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.errors import EventRejected
from headrace.models.features import Category, Column, Datetime, Function, Lookup, Number, Tensor, Topic, fields_of
from headrace.models.labels import Binary, Regression
from headrace.streams.codec import EventDecoder, LabelDecoder
from headrace.streams.features import FeaturePlan
from headrace.streams.memory_store import MemoryFeatureStore
from headrace.streams.predictions import times_as_text
from headrace.streams.served import decode_served, encode_served, served_batch, served_schema

NOW = 1_372_939_200_000  # 2013-07-04T12:00:00Z, Unix ms
MAX_FUTURE = 300_000  # ms
EVENTS = Topic("events", id="id", time="at")


X = (Number("x"),)


def decode(*values, features=X):
    return EventDecoder(EVENTS, fields_of(features), MAX_FUTURE).decode(list(values), NOW)


def event(**fields):
    return json.dumps({"id": "a", "at": "2013-07-04T11:00:00Z", "x": 1, **fields}).encode()


def columns(*values, features):
    plan = FeaturePlan(features)
    return plan.compute(decode(*values, features=features), MemoryFeatureStore())


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_good_events_keep_their_places_and_bad_ones_have_reasons():
    decoded = decode(event(), b"{", event(id=7, at=NOW), event(at=NOW + MAX_FUTURE + 1), event(id="c"))
    assert decoded.kept == [0, 2, 4]
    assert decoded.ids == ["a", "7", "c"]
    assert decoded.times.tolist() == [NOW - 3_600_000, NOW, NOW - 3_600_000]
    assert decoded.fields == {"x": [1, 1, 1]}
    assert [(index, error.reason) for index, error in decoded.rejected] == [(1, "not_json"), (3, "future")]


def test_two_broken_events_never_mend_each_other():
    halves = [b'{"id":"a","at":1,"x":1,"y":[{}', b'{}],"z":0}']
    assert [error.reason for _, error in decode(*halves).rejected] == ["not_json", "wrong_shape"]


def test_the_id_and_the_time_may_be_features_too():
    features = [Category("id"), Datetime("at", parts=["hour"], timezone="UTC")]
    _, found = columns(event(id="k"), features=features)
    assert (found["id"].tolist(), found["at_hour"].tolist()) == (["k"], ["11"])


@given(st.lists(st.one_of(st.binary(max_size=60), st.none(), st.just(event())), max_size=6))
def test_no_bytes_raise_and_none_get_lost(values):
    decoded = decode(*values)
    assert sorted(decoded.kept + [index for index, _ in decoded.rejected]) == list(range(len(values)))
    assert all(error.reason for _, error in decoded.rejected)


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
_ALL = [
    Number("x"),
    Number("n", nullable=True),
    Category("c", nullable=True),
    Tensor("t", shape=[2]),
    Datetime("d", parts=["minute", "hour", "day", "weekday", "month"], timezone="Asia/Kathmandu", nullable=True),
    Lookup(Topic("side", time="at"), by="e", fields=["v"]),
]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "at", "x", "n", "c", "t", "d", "e"], _json)))
def test_no_json_object_stops_the_way_to_the_served_batch(fields):
    decoded, found = columns(event(t=[0, 0]), event(**{"t": [1, 2], **fields}), features=_ALL)
    assert sorted(decoded.kept + [index for index, _ in decoded.rejected]) == [0, 1]
    for value, _, _ in encode_served(batch_of(_ALL, decoded, found)):
        assert decode_served(value).num_rows == len(decoded.kept)


# ── features of their own fields ──────────────────────────────────────────────────────────────────────────────────────


def test_categories_are_text_however_json_writes_them():
    _, found = columns(event(x=1), event(x=True), event(x="1"), features=[Category("x")])
    assert found["x"].tolist() == ["1", "true", "1"]


def test_calendar_parts_are_those_of_the_declared_timezone():
    moment = Datetime("at", parts=["minute", "hour", "day", "weekday", "month"], timezone="America/New_York")
    _, found = columns(event(at="2013-01-01T03:07:00Z"), features=[moment])
    assert {name: values.tolist() for name, values in found.items()} == {
        "at_minute": ["7"],
        "at_hour": ["22"],
        "at_day": ["31"],
        "at_weekday": ["1"],  # Monday
        "at_month": ["12"],
    }


def test_a_field_of_numbers_that_are_no_float32_is_still_a_number():
    _, found = columns(event(x=1e300), features=[Number("x")])
    assert found["x"].tolist() == [1e300]


def doubled(numbers):
    return numbers * 2


def of_wrong_length(numbers):
    return numbers[:0]


def as_text(numbers):
    return [None if number < 0 else number for number in numbers]


def test_a_function_reads_columns_and_fields_of_its_own():
    features = [Number("x"), Function(doubled, inputs=["x"]), Function(as_text, inputs=[Number("y")], kind="category")]
    _, found = columns(event(x=2, y=3), event(x=5, y=-1), features=features)
    assert found["doubled"].tolist() == [4, 10]
    assert found["as_text"].tolist() == ["3", None]
    assert "y" not in found


def test_a_function_that_gives_another_length_parks_every_event():
    decoded, _ = columns(event(), event(), features=[Number("x"), Function(of_wrong_length, inputs=["x"])])
    assert [error.reason for _, error in decoded.rejected] == ["function_failed"] * 2


# ── labels ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def labels(*values, label):
    return LabelDecoder(label, MAX_FUTURE).decode(list(values), NOW)


def test_labels_are_rows_with_the_value_that_is_learnt():
    late = Binary(EVENTS, "x", at_least=15, within="1h", if_absent="drop")
    kept, rows, rejected = labels(event(x=15), event(x=14.9, id=3), event(x="15"), event(x=15, at=NOW * 2), label=late)
    assert kept == [0, 1]
    assert [(row.id, row.time, row.value) for row in rows] == [("a", NOW - 3_600_000, 1.0), ("3", NOW - 3_600_000, 0.0)]
    assert sorted((index, error.reason) for index, error in rejected) == [(2, "wrong_shape"), (3, "future")]


def test_a_yes_or_no_is_true_false_0_or_1():
    clicked = Binary(EVENTS, "x", within="1h", if_absent=0)
    kept, rows, rejected = labels(event(x=True), event(x=0), event(x=0.5), label=clicked)
    assert (kept, [row.value for row in rows]) == ([0, 1], [1.0, 0.0])
    assert [(index, error.reason) for index, error in rejected] == [(2, "wrong_shape")]


@given(st.lists(st.one_of(st.binary(max_size=60), st.none()), max_size=6))
def test_no_bytes_on_a_label_topic_raise(values):
    kept, rows, rejected = labels(*values, label=Regression(EVENTS, "x", within="1h", if_absent="drop"))
    assert sorted(kept + [index for index, _ in rejected]) == list(range(len(values)))
    assert len(rows) == len(kept)


# ── served batches ────────────────────────────────────────────────────────────────────────────────────────────────────


def batch_of(features, decoded, found):
    rows = len(decoded.kept)
    return served_batch(
        served_schema(FeaturePlan(features).columns),
        ids=decoded.ids,
        times=decoded.times,
        partition=3,
        offsets=decoded.kept,
        version=12,
        scores=np.full(rows, 0.25),
        columns=found,
    )


def test_a_served_batch_comes_back_as_it_went_with_null_for_missing():
    features = [Number("x", nullable=True), Category("c", nullable=True), Tensor("t", shape=[2, 1])]
    given_ = (event(c="é", t=[[1], [2]]), event(x=None, t=[3, 4], at=NOW + 7))
    batch = batch_of(features, *columns(*given_, features=features))
    ((value, first, last),) = encode_served(batch)
    assert (first, last) == (0, 1)
    back = decode_served(value)
    assert back.schema == served_schema(
        (*features[0].columns, *features[1].columns, Column("t", "tensor", shape=(2, 1)))
    )
    one, two = back.to_pylist()
    assert (one["x"], one["c"], one["t"], one["score"]) == (1.0, "é", [1.0, 2.0], 0.25)
    assert (two["x"], two["c"], two["t"], two["version"]) == (None, None, [3.0, 4.0], 12)
    assert (two["id"], two["partition"], two["offset"]) == ("a", 3, 1)
    assert back.column("event_time").cast(pa.int64()).to_pylist() == [NOW - 3_600_000, NOW + 7]


def test_a_large_batch_is_split_into_records_of_at_most_512_kb_and_offsets_go_on():
    features = [Category("c")]
    batch = batch_of(features, *columns(*[event(c="x" * 10_000)] * 200, features=features))
    parts = encode_served(batch)
    assert len(parts) > 1
    assert all(len(value) <= 520 * 1024 for value, _, _ in parts)
    assert [first for _, first, _ in parts] == [0, *(last + 1 for _, _, last in parts[:-1])]
    assert sum(decode_served(value).num_rows for value, _, _ in parts) == 200


def test_of_rows_that_differ_in_size_none_shares_a_record_that_is_too_large():
    features = [Category("c")]
    sizes = [10] * 50 + [700_000] + [10] * 50 + [300_000] * 3
    batch = batch_of(features, *columns(*[event(c="x" * size) for size in sizes], features=features))
    parts = encode_served(batch)
    assert all(len(value) <= 520 * 1024 or first == last for value, first, last in parts)
    assert [row for _, first, last in parts for row in range(first, last + 1)] == list(range(104))


def test_slices_of_a_batch_of_tensors_carry_their_own_rows_alone():
    features, pixels = [Tensor("t", shape=[3, 64, 64])], np.random.default_rng(0).random((50, 12_288), np.float32)
    decoded, _ = columns(*[event()] * 50, features=X)
    batch = batch_of(features, decoded, {"t": pixels.reshape(50, 3, 64, 64)})
    parts = encode_served(batch)
    assert [last - first + 1 for _, first, last in parts] == [10] * 5
    assert sum(len(value) for value, _, _ in parts) < 1.01 * batch.nbytes
    back = pa.Table.from_batches([decode_served(value) for value, _, _ in parts]).combine_chunks()
    assert np.array_equal(back["t"].chunk(0).flatten().to_numpy().reshape(50, 12_288), pixels)


def test_a_served_record_is_what_arrows_own_stream_writer_writes():
    features = [Number("x", nullable=True), Category("c"), Tensor("t", shape=[2])]
    batch = batch_of(features, *columns(event(c="é", t=[1, 2]), event(x=None, c="b", t=[3, 4]), features=features))
    for part in (batch, batch.slice(1)):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as stream:
            stream.write_batch(part)
        assert encode_served(part)[0][0] == sink.getvalue().to_pybytes()


@given(st.binary(max_size=200))
def test_what_is_no_served_batch_is_refused(value):
    with pytest.raises(EventRejected, match=r"not_arrow|wrong_shape"):
        decode_served(value)


def test_an_arrow_stream_of_something_else_is_refused_by_what_it_lacks():
    sink = pa.BufferOutputStream()
    table = pa.table({"id": ["a"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(EventRejected, match=r"lacks.*event_time.*score"):
        decode_served(sink.getvalue().to_pybytes())


def test_times_are_written_in_utc_with_milliseconds_where_there_are_any():
    assert times_as_text(np.array([0, NOW])) == ["1970-01-01T00:00:00Z", "2013-07-04T12:00:00Z"]
    assert times_as_text(np.array([NOW, NOW + 5])) == ["2013-07-04T12:00:00.000Z", "2013-07-04T12:00:00.005Z"]


@given(st.lists(st.integers(0, 253_402_300_799_999), min_size=1), st.integers(0, 10**12), st.integers(0, 5_000))
def test_times_read_as_python_writes_them_dense_or_sparse(sparse, first, span):
    def written(times):
        unit = "milliseconds" if any(ms % 1000 for ms in times) else "seconds"
        moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms) for ms in times]
        return [moment.isoformat(timespec=unit).replace("+00:00", "Z") for moment in moments]

    dense = [first + span * step // 50 for step in range(50)]
    for times in (sparse, dense, [ms // 1000 * 1000 for ms in dense]):
        assert times_as_text(np.array(times)) == written(times)
