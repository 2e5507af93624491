"""Files of rows → JSON bytes, and their order in event time."""

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.infra.rows import dated, read_rows
from headrace.models.errors import BadInput
from headrace.models.features import Topic

FLIGHTS = Topic("flights", id="flight_id", time="published_at")


def rows(place, **options):
    return list(read_rows(place, **options))


def test_json_lines_are_rows_and_blank_lines_are_not(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  {"a":2} \n{"a":3}')
    assert rows(file) == [b'{"a": 1}', b'{"a":2}', b'{"a":3}']


def test_a_hyphen_reads_standard_input():
    assert rows("-", stdin=io.BytesIO(b'{"a":1}\n')) == [b'{"a":1}']


@pytest.mark.parametrize("line", [b"[", b'{"a":NaN}', b'{"a":"\xff"}', b"{'a': 1}", b"[" * 100_000])
def test_a_line_that_is_no_json_is_named_by_its_number(tmp_path, line):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"a":1}\n\n' + line + b"\n")
    with pytest.raises(BadInput, match=r"events\.jsonl, line 3: expected one JSON object per line, got .*jq -c"):
        rows(file)


def test_without_strictness_rubbish_comes_through_for_the_pipeline_to_park(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"a":1}\n\xff\n')
    assert rows(file, strict=False) == [b'{"a":1}', b"\xff"]


def test_a_file_that_is_not_there_is_an_error_before_the_first_row():
    with pytest.raises(BadInput, match=r"'nowhere\.jsonl' is not there"):
        read_rows("nowhere.jsonl")


def test_parquet_becomes_json_with_times_in_utc(tmp_path):
    table = pa.table(
        {
            "flight_id": pa.array(["UA1", None]).dictionary_encode(),
            "at": pa.array([datetime(2013, 7, 4, 5, tzinfo=UTC)] * 2, pa.timestamp("ns", "America/New_York")),
            "plain": pa.array([datetime(2013, 7, 4, 5, 0, 0, 250_000), None], pa.timestamp("us")),  # noqa: DTZ001
            "day": [date(2013, 7, 4)] * 2,
            "fare": pa.array([Decimal("1.50"), None]),
            "delay": [1.5, float("nan")],
            "shape": [[1, 2], []],
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    first, second = map(json.loads, rows(tmp_path / "events.parquet"))
    assert first == {
        "flight_id": "UA1",
        "at": "2013-07-04T05:00:00Z",
        "plain": "2013-07-04T05:00:00.250Z",
        "day": "2013-07-04",
        "fare": 1.5,
        "delay": 1.5,
        "shape": [1, 2],
    }
    assert (second["plain"], second["delay"], second["fare"]) == (None, None, None)


def test_a_file_that_only_says_it_is_parquet_is_refused(tmp_path):
    (tmp_path / "events.parquet").write_bytes(b"{}")
    with pytest.raises(BadInput, match="expected a Parquet file"):
        read_rows(tmp_path / "events.parquet")


def event(at, flight_id="UA1", **fields):
    return json.dumps({"flight_id": flight_id, "published_at": at, **fields}).encode()


def test_rows_are_sorted_by_event_time_and_stay_in_order_within_one():
    given = [
        event("2013-07-04T07:00:00+02:00", "c"),
        event(1_372_914_000_000, "d"),
        event("2013-07-04T04:59:59.999Z", "a"),
        event("2013-07-04T05:00:00Z", 5),
    ]
    stream = dated(given, FLIGHTS)
    assert stream.topic == "flights"
    assert stream.times.tolist() == [1_372_913_999_999] + [1_372_914_000_000] * 3
    assert stream.times.dtype == np.int64
    assert stream.keys == [b"a", b"c", b"d", b"5"]
    assert stream.values == [given[2], given[0], given[1], given[3]]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff",
        b"[]",
        b"{}",
        event(None),
        event("noon"),
        event("2013-07-04T05:00:00"),
        event(1.5),
        event(-1),
        event(1e18),
    ],
)
def test_a_row_without_a_time_goes_with_the_one_before_it(rubbish):
    given = [rubbish, event(2000), rubbish, event(1000)]
    stream = dated(given, FLIGHTS)
    assert stream.times.tolist() == [1000, 2000, 2000, 2000]
    assert stream.values == [given[3], rubbish, given[1], rubbish]


def test_the_key_is_the_field_that_was_asked_for():
    given = [event(1, origin="EWR"), event(2, origin=7), event(3), b"{"]
    assert dated(given, FLIGHTS, key="origin").keys == [b"EWR", b"7", None, None]
    assert dated(given, Topic("weather", time="published_at")).keys == [None] * 4


def test_no_rows_are_an_empty_stream():
    assert len(dated([], FLIGHTS)) == 0
