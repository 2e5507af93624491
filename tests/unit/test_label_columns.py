"""Labels as columns are the labels that the live join takes one by one: the dataset must not learn from others."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.features import Topic
from headrace.models.labels import Binary, Regression
from headrace.streams.codec import LabelDecoder

NOW = 1_372_939_200_000  # 2013-07-04T12:00Z
MAX_FUTURE = 300_000
LABELS = Topic("arrivals", id="id", time="at")
KINDS = [
    Binary(LABELS, "x", at_least=15, within="1h", if_absent="drop"),
    Binary(LABELS, "x", within="1h", if_absent=0),
    Regression(LABELS, "x", within="1h", if_absent="drop"),
]
digits = st.text("0123456789", min_size=1, max_size=4)
TIMES = st.one_of(
    st.integers(NOW - 10, NOW + MAX_FUTURE + 2),
    st.integers(-(10**30), 10**30),
    st.just("2013-07-04T11:59:59Z"),
    st.sampled_from(["2013-07-04T11:59:59.123Z", "2013-07-04 11:59:59Z", "2013-07-04t11:59:59z"]),
    st.sampled_from(["2013-07-04T11:59:59.12Z", "2013-07-04T13:59:59+02:00", "2013-07-04T11:59:59.1234567Z"]),
    st.sampled_from(["1372939200000", "2013-07-04T11:59:60Z", "2013-02-30T11:59:59Z", "0000-07-04T11:59:59Z", "Z"]),
    st.builds("{}-07-04T11:{}:59Z".format, digits, digits),
    st.builds("2013-07-04{}11:59:59.{}Z".format, st.sampled_from("T _+"), digits),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
)
IDS = st.one_of(st.text(max_size=3), st.integers(-3, 2**70), st.booleans(), st.none())
VALUES = st.one_of(st.sampled_from([0, 1, -0.0, 15, 14.9, True, False]), st.floats(-1e6, 1e6), st.none(), st.text())
GOOD = st.fixed_dictionaries(
    {"id": st.integers(0, 3).map(str), "at": st.integers(NOW - 10, NOW), "x": st.sampled_from([0, 1, True])}
)
ANY = st.fixed_dictionaries({"id": IDS, "at": TIMES, "x": VALUES})
BYTES = st.one_of(ANY.map(msgspec.json.encode), st.binary(max_size=30), st.none())


def one_by_one(decoder, values):
    _, rows, _ = decoder.decode(values, NOW)
    return [(row.id, row.time, row.value) for row in rows]


def as_columns(decoder, values):
    ids, times, given = decoder.columns(values, NOW)
    assert (times.dtype, given.dtype) == (np.int64, np.float64)
    return list(zip(ids, times.tolist(), given.tolist(), strict=True))


@pytest.mark.parametrize("label", KINDS)
@given(st.lists(st.one_of(GOOD.map(msgspec.json.encode), BYTES), max_size=8))
def test_columns_are_the_good_labels_in_order_whatever_comes(label, values):
    decoder = LabelDecoder(label, MAX_FUTURE)
    assert repr(as_columns(decoder, values)) == repr(one_by_one(decoder, values))  # repr tells -0.0 from 0.0


@given(ANY)
def test_each_way_to_write_a_label_is_read_as_the_live_join_reads_it(label):
    decoder = LabelDecoder(KINDS[2], MAX_FUTURE)
    value = [msgspec.json.encode(label)]
    assert repr(as_columns(decoder, value)) == repr(one_by_one(decoder, value))


def test_a_chunk_with_one_bad_label_loses_that_one():
    decoder = LabelDecoder(KINDS[0], MAX_FUTURE)
    good = [msgspec.json.encode({"id": n, "at": "2013-07-04T11:59:59Z", "x": n}) for n in range(14, 17)]
    ids, times, given = decoder.columns([*good, b"{"], NOW)
    assert (ids, times.tolist(), given.tolist()) == (["14", "15", "16"], [NOW - 1_000] * 3, [0.0, 1.0, 1.0])
