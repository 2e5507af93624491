"""What requests bring as arrays, and the messages against those of another implementation of the protocol."""

from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from headrace.infra.serve import grpc_messages
from headrace.infra.serve.refusals import RequestRefused
from headrace.infra.serve.tensors import Given, bad_row, checked, inputs_of, stacked
from headrace.models.features import Column
from headrace.models.schema import Schema

SCHEMA = Schema(
    (
        Column("distance", "number"),
        Column("wind", "number", nullable=True),
        Column("carrier", "category"),
        Column("image", "tensor", shape=(2, 2)),
    )
)
SPECS = inputs_of(SCHEMA)
NUMBERS, CATEGORIES, IMAGE = SPECS
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_a_schema_s_tensors_have_its_names_datatypes_and_shapes():
    assert [(spec.name, spec.datatype, spec.shape) for spec in SPECS] == [
        ("numbers", "FP32", (-1, 2)),
        ("categories", "BYTES", (-1, 1)),
        ("image", "FP32", (-1, 2, 2)),
    ]


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=5))
def test_json_flat_or_nested_binary_and_contents_are_the_same_array(rows):
    flat, shape = [value for row in rows for value in row], [len(rows), 2]
    ways = [
        Given("numbers", "FP32", shape, json=msgspec.Raw(msgspec.json.encode(flat))),
        Given("numbers", "FP32", shape, json=msgspec.Raw(msgspec.json.encode(rows))),
        Given("numbers", "FP32", shape, binary=memoryview(np.array(flat, "<f4").tobytes())),
        Given("numbers", "FP32", shape, flat=flat),
    ]
    found = [stacked(NUMBERS, checked([NUMBERS], [one], 10).flat, len(rows)) for one in ways]
    for array in found:
        np.testing.assert_array_equal(array, np.array(rows, np.float32))
        assert array.dtype == np.float32


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_texts_are_the_same_in_json_binary_and_contents(texts):
    shape = [len(texts), 1]
    binary = serialize_byte_tensor(np.array([text.encode() for text in texts], object)).item()
    ways = [
        Given("categories", "BYTES", shape, json=msgspec.Raw(msgspec.json.encode(texts))),
        Given("categories", "BYTES", shape, binary=memoryview(binary)),
        Given("categories", "BYTES", shape, flat=[text.encode() for text in texts]),
    ]
    for one in ways:
        assert stacked(CATEGORIES, checked([CATEGORIES], [one], 10).flat, len(texts))[:, 0].tolist() == texts


@given(st.binary(max_size=40), st.integers(0, 5))
def test_any_bytes_for_texts_are_texts_or_refused(data, rows):
    one = Given("categories", "BYTES", [rows, 1], binary=memoryview(data))
    with suppress(RequestRefused):
        assert len(checked([CATEGORIES], [one], 10).flat[0]) == rows


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=9)
)
def test_any_json_for_numbers_is_numbers_or_refused(value):
    one = Given("numbers", "FP32", [1, 2], json=msgspec.Raw(msgspec.json.encode(value)))
    with suppress(RequestRefused):
        assert stacked(NUMBERS, checked([NUMBERS], [one], 10).flat, 1).shape == (1, 2)


def test_several_requests_are_one_batch_whatever_their_forms():
    parts = [[1.0, 2.0], np.array([3, 4, 5, 6], np.float32)]
    assert stacked(NUMBERS, parts, 3).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert stacked(IMAGE, [[1.0, 2.0, 3.0, 4.0]], 1).shape == (1, 2, 2)


def test_nan_is_for_what_may_be_missing_and_infinity_for_nothing():
    assert bad_row(NUMBERS, np.array([[1, np.nan]], np.float32)) is None
    assert "nan for 'distance' in row 1" in str(bad_row(NUMBERS, np.array([[1, 2], [np.nan, 2]], np.float32)))
    assert "NaN is for what may be missing: wind" in str(bad_row(NUMBERS, np.array([[np.nan, 2]], np.float32)))
    assert "inf for 'wind'" in str(bad_row(NUMBERS, np.array([[1, np.inf]], np.float32)))
    assert "nan for element [0, 1] in row 0" in str(bad_row(IMAGE, np.array([[[0, np.nan], [0, 0]]], np.float32)))
    assert bad_row(CATEGORIES, np.array([["x"]], object)) is None


def test_inputs_may_come_in_any_order_and_each_only_once():
    numbers = Given("numbers", "FP32", [1, 2], flat=[1, 2])
    categories = Given("categories", "BYTES", [1, 1], flat=[b"UA"])
    found = checked([NUMBERS, CATEGORIES], [categories, numbers], 10)
    assert (found.rows, found.flat[1]) == (1, ["UA"])
    with pytest.raises(RequestRefused, match="inputs: expected numbers"):
        checked([NUMBERS, CATEGORIES], [numbers, numbers], 10)
    with pytest.raises(RequestRefused, match="expected 1 rows as in 'numbers'; got 2"):
        checked([NUMBERS, CATEGORIES], [numbers, Given("categories", "BYTES", [2, 1], flat=[b"a", b"b"])], 10)


@pytest.mark.parametrize("name", sorted(grpc_messages._MESSAGES))
def test_grpc_messages_have_the_names_numbers_and_types_that_tritonclient_has(name):
    ours = grpc_messages.message(name).DESCRIPTOR
    theirs = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{name}")
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        kinds = [
            (
                one.number,
                one.type,
                one.is_repeated,
                one.message_type and one.message_type.full_name,
                one.containing_oneof and one.containing_oneof.name,
            )
            for one in (field, other)
        ]
        assert kinds[0] == kinds[1], field.name
    assert len(ours.fields) == len(theirs.fields)
