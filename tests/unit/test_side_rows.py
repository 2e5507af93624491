"""Side rows: what ends in a ring, and what ends as a dead letter. Any bytes may come."""

import json
import math
from struct import iter_unpack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.models.features import Aggregate, Lookup, Topic
from headrace.streams.rings import rings_of
from headrace.streams.side_rows import SideDecoder

NOW = 1_372_939_200_000  # 2013-07-04T12:00:00Z, Unix ms
MAX_FUTURE = 300_000  # ms
DEPARTURES = Topic("departures", time="departed at")  # a name that is no identifier
FEATURES = [
    Aggregate(DEPARTURES, "delay", "mean", over="2h", by="origin"),
    Aggregate(DEPARTURES, "delay", "mean", over="3h", by=["origin", "class"]),
    Lookup(DEPARTURES, by="origin", fields=["taxi", "delay"]),
]
BY_ORIGIN, BY_BOTH, LATEST = rings_of(FEATURES)


def decode(*values, features=FEATURES):
    return SideDecoder(list(rings_of(features)), MAX_FUTURE).decode(list(values), NOW)


def row(**fields):
    return json.dumps({"departed at": "2013-07-04T11:00:00Z", "origin": "EWR", **fields}).encode()


def rows_in(chunk, ring, *entity):
    return list(iter_unpack(f"<q{len(ring.fields)}d", chunk.rows.get(ring, {}).get(ring.key(entity), b"")))


def reasons(chunk):
    return [(index, error.reason) for index, error in chunk.rejected]


AT = NOW - 3_600_000


def test_a_row_is_filed_under_each_rings_entity_with_that_rings_values():
    chunk = decode(row(delay=7, taxi=2.5, **{"class": 1}), row(delay=-3.25, origin="JFK", **{"class": True}))
    assert rows_in(chunk, BY_ORIGIN, "EWR") == [(AT, 7.0)]
    assert rows_in(chunk, BY_ORIGIN, "JFK") == [(AT, -3.25)]
    assert rows_in(chunk, BY_BOTH, "1", "EWR") == [(AT, 7.0)]  # by is sorted: class, origin
    assert rows_in(chunk, BY_BOTH, "true", "JFK") == [(AT, -3.25)]
    assert rows_in(chunk, LATEST, "EWR") == [(AT, 7.0, 2.5)]
    assert (chunk.newest, chunk.accepted, chunk.rejected) == (AT, 2, [])


def test_rows_of_an_entity_lie_in_one_piece_in_their_order():
    chunk = decode(row(delay=1), row(delay=2, origin="JFK"), row(delay=3))
    assert [value for _, value in rows_in(chunk, BY_ORIGIN, "EWR")] == [1.0, 3.0]


def test_a_missing_value_counts_for_no_aggregate_and_is_missing_in_a_lookup():
    chunk = decode(row(delay=None, taxi=1), row())
    assert chunk.accepted == 2
    assert rows_in(chunk, BY_ORIGIN, "EWR") == []
    first, second = rows_in(chunk, LATEST, "EWR")
    assert math.isnan(first[1])
    assert first[2] == 1.0
    assert all(map(math.isnan, second[1:]))


def test_a_row_without_an_entity_is_good_but_in_no_ring_that_is_looked_up_by_it():
    chunk = decode(row(delay=1), row(delay=1, origin=None, **{"class": "x"}))
    assert (chunk.accepted, chunk.rejected) == (2, [])
    assert BY_BOTH not in chunk.rows
    assert len(rows_in(chunk, BY_ORIGIN, "EWR")) == 1


@pytest.mark.parametrize(
    "time", ["2013-07-04T11:00:00Z", "2013-07-04T07:00:00-04:00", "2013-07-04T11:00:00.000000Z", AT]
)
def test_an_event_time_is_rfc_3339_with_an_offset_or_unix_milliseconds(time):
    assert rows_in(decode(row(delay=1, **{"departed at": time})), BY_ORIGIN, "EWR") == [(AT, 1.0)]


def test_an_event_time_may_be_ahead_of_the_clock_by_max_future_and_no_more():
    chunk = decode(*[row(delay=1, **{"departed at": NOW + MAX_FUTURE + beyond}) for beyond in (0, 1)])
    assert chunk.newest == NOW + MAX_FUTURE
    assert reasons(chunk) == [(1, "future")]


def test_booleans_count_as_0_and_1_and_infinities_do_not_exist():
    chunk = decode(row(delay=True), row(delay=False), row().replace(b'"EWR"', b'"EWR", "delay": 1e999'))
    assert [value for _, value in rows_in(chunk, BY_ORIGIN, "EWR")] == [1.0, 0.0]
    assert reasons(chunk) == [(2, "wrong_shape")]


def test_a_field_may_be_entity_and_value_at_once_but_then_holds_numbers():
    features = [Aggregate(DEPARTURES, "gate", "count", over="1h", by="gate")]
    (ring,) = rings_of(features)
    chunk = decode(row(gate=4), row(gate="B7"), row(gate=None), features=features)
    assert rows_in(chunk, ring, "4") == [(AT, 4.0)]
    assert reasons(chunk) == [(1, "wrong_shape")]


def test_the_event_time_may_be_looked_up_as_a_number():
    features = [Lookup(DEPARTURES, by="origin", fields=["departed at"])]
    (ring,) = rings_of(features)
    assert rows_in(decode(row(), features=features), ring, "EWR") == [(AT, float(AT))]


POISON = {
    "tombstone": [None],
    "empty": [b""],
    "not_json": [b" ", b"{", b"{} {}", b"\xef\xbb\xbf{}", b"NaN", b'{"delay": NaN}', b'{"origin": "\\ud800"}'],
    "not_utf8": [b'{"origin": "\xff"}', b"\xff\xfe", b"\x00\x80"],
    "wrong_shape": [
        *(b"[]", b"null", b"3", b'"x"', row(delay="7"), row(delay=[7]), row(origin={}), row(origin=["EWR"])),
        row(delay=10**400),
        row(origin="x").replace(b'"x"', b"1" * 5_000),
    ],
    "no_time": [
        *(b"{}", row(**{"departed at": None}), row(**{"departed at": "yesterday"}), row(**{"departed at": True})),
        *(row(**{"departed at": "2013-07-04T11:00:00"}), row(**{"departed at": 1.5}), row(**{"departed at": 10**30})),
        *(row(**{"departed at": -1}), row(**{"departed at": "1969-12-31T23:59:59Z"}), row(**{"departed at": 10**15})),
        row(**{"departed at": "9999-12-31T23:59:59-12:00"}),
        row(**{"departed at": "0001-01-01T00:00:00+12:00"}),
    ],
    "future": [row(**{"departed at": "9999-12-31T23:59:59Z"}), row(**{"departed at": NOW + MAX_FUTURE + 1})],
}


@pytest.mark.parametrize(("reason", "value"), [(reason, value) for reason, of in POISON.items() for value in of])
def test_poison_is_rejected_with_its_reason_and_its_neighbours_go_on(reason, value):
    chunk = decode(row(delay=1), value, row(delay=2))
    assert reasons(chunk) == [(1, reason)]
    assert [number for _, number in rows_in(chunk, BY_ORIGIN, "EWR")] == [1.0, 2.0]
    assert chunk.newest == AT


def test_rejected_rows_come_in_the_order_of_their_messages():
    chunk = decode(b"{}", b"{", None, row(**{"departed at": NOW + 86_400_000}), b"")
    assert reasons(chunk) == [(0, "no_time"), (1, "not_json"), (2, "tombstone"), (3, "future"), (4, "empty")]
    assert (chunk.rows, chunk.newest, chunk.accepted) == ({}, None, 0)


def test_two_broken_messages_cannot_mend_each_other():
    assert len(decode(b'{"departed at": 1, "origin": "EWR"', b'"delay": 1}').rejected) == 2


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
objects = st.dictionaries(st.sampled_from(["departed at", "origin", "class", "delay", "taxi"]), scalars)
times = st.datetimes().map(lambda moment: {"departed at": moment.isoformat() + "Z"}) | st.integers().map(
    lambda ms: {"departed at": ms}
)
jsons = st.tuples(objects, times).map(lambda both: json.dumps(both[0] | both[1]).encode())


@settings(deadline=None)
@given(st.lists(st.none() | st.binary(max_size=40) | jsons, max_size=8))
@example([b"[" * 100_000])
@example([b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_no_bytes_raise_and_each_message_is_accepted_or_rejected_once(values):
    chunk = decode(*values)
    assert chunk.accepted + len(chunk.rejected) == len(values)
    assert all(0 <= index < len(values) for index, _ in chunk.rejected)
    for ring, by_key in chunk.rows.items():
        for data in by_key.values():
            assert all(0 <= time <= NOW + MAX_FUTURE for time, *_ in iter_unpack(f"<q{len(ring.fields)}d", data))
