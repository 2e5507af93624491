"""`headrace.testing`: what a user's own test sees is what a worker does."""

import json
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from headrace import (
    Aggregate,
    Binary,
    Category,
    Datetime,
    Function,
    Gate,
    Last,
    Lookup,
    Number,
    Pipeline,
    Regression,
    Tensor,
    Topic,
    Torch,
)
from headrace.models.errors import BadInput, DeclarationError, RunFailed
from headrace.models.records import Prediction
from headrace.testing import Record, replay, train

FLIGHTS = Topic("flights", id="flight_id", time="published_at")
DEPARTURES = Topic("departures", time="departed_at")
WEATHER = Topic("weather", time="observed_at")
ARRIVALS = Topic("arrivals", id="flight_id", time="landed_at")
BY_ORIGIN = "departures_dep_delay_mean_2h_by_origin"

flight_delay = Pipeline(
    name="flight-delay",
    events=FLIGHTS,
    features=[
        Number("distance"),
        Category("carrier"),
        Category("origin"),
        Category("dest"),
        Datetime("scheduled_departure", parts=["hour", "weekday"], timezone="America/New_York"),
        Lookup(WEATHER, by="origin", fields=["wind_speed", "precip"], max_age="3h"),
        Aggregate(DEPARTURES, "dep_delay", "mean", over="2h", by="origin"),
        Aggregate(DEPARTURES, "dep_delay", "mean", over="3h", by=["origin", "carrier"]),
        Aggregate(DEPARTURES, "dep_delay", "mean", over="12h", by="tailnum"),
    ],
    label=Binary(ARRIVALS, "arr_delay", at_least=15, within="36h", if_absent="drop", prior=0.24),
    train_on=Last("52w", holdout="7d"),
)

START = datetime(2013, 7, 4, 5, tzinfo=UTC)
NOW = "2013-07-08T00:00Z"


def flight(number=1, at=START, **fields):
    own = {
        "flight_id": f"UA{number}",
        "published_at": at,
        "scheduled_departure": at + timedelta(hours=1),
        "distance": 1400,
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "tailnum": "N1",
    }
    return {name: value for name, value in {**own, **fields}.items() if value is not ...}


def departure(at, delay, **fields):
    return {"departed_at": at, "dep_delay": delay, "origin": "EWR", "carrier": "UA", "tailnum": "N1", **fields}


def minutes(count):
    return timedelta(minutes=count)


# ── the way of an event ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_becomes_a_prediction_as_on_the_wire():
    result = replay(flight_delay, [flight()], now=NOW)
    assert result.predictions == [
        Prediction(
            id="UA1",
            prediction=0.24,
            decision=False,
            pipeline="flight-delay",
            version=0,
            event_time="2013-07-04T05:00:00Z",
            source=("flights", 0, 0),
        )
    ]
    assert result.prediction("UA1") == result.predictions[0]
    assert result.dead_letters == []


def test_features_are_those_that_were_served():
    sides = {
        "departures": [departure(START - minutes(30), 10), departure(START - minutes(60), 30, origin="JFK")],
        "weather": [{"observed_at": START - minutes(5), "origin": "EWR", "wind_speed": 12.5}],
    }
    assert replay(flight_delay, [flight()], side_rows=sides, now=NOW).features["UA1"] == {
        "distance": 1400,
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "scheduled_departure_hour": "2",
        "scheduled_departure_weekday": "4",
        "weather_wind_speed_by_origin": 12.5,
        "weather_precip_by_origin": None,
        BY_ORIGIN: 10,
        "departures_dep_delay_mean_3h_by_origin_carrier": 10,
        "departures_dep_delay_mean_12h_by_tailnum": 20,
    }


def test_the_key_and_the_headers_of_an_event_are_its_predictions():
    event = Record(flight(), key=b"\xff\x00", headers=[("traceparent", b"00-abc"), ("traceparent", None)])
    (prediction,) = [r for r in replay(flight_delay, [event], now=NOW).records if r.topic.endswith("predictions")]
    assert prediction.key == b"\xff\x00"
    assert prediction.headers == [("traceparent", b"00-abc"), ("traceparent", None), ("headrace-version", b"0")]


def test_a_model_serves_as_version_1():
    class Shortest:
        def predict(self, columns, _rows):
            return 1 / columns["distance"]

    result = replay(flight_delay, [flight(distance=4)], model=Shortest(), now=NOW)
    assert (result.prediction("UA1").prediction, result.prediction("UA1").version) == (0.25, 1)


def test_a_missing_prediction_says_why():
    with pytest.raises(LookupError, match=r"no prediction of 'UA1'; dead letters: .*wrong_shape.*distance"):
        replay(flight_delay, [flight(distance="far")], now=NOW).prediction("UA1")


def test_side_rows_of_another_topic_are_refused_by_name():
    with pytest.raises(BadInput, match=r"\['departures', 'weather'\].*\['departure'\]"):
        replay(flight_delay, side_rows={"departure": []})


@pytest.mark.parametrize("wrong", ["yesterday", "2013-07-08", datetime(2013, 7, 8)])  # noqa: DTZ001  the point
def test_the_time_has_a_timezone(wrong):
    with pytest.raises((BadInput, DeclarationError), match=r"2013|yesterday"):
        replay(flight_delay, now=wrong)


def test_nothing_in_is_nothing_out():
    result = replay(flight_delay)
    assert (result.predictions, result.features, result.joined, result.counts) == ([], {}, [], None)


# ── law 6: no leakage ─────────────────────────────────────────────────────────────────────────────────────────────────


def a_day(seed, own_delay=None):
    """Flights, their own departures; each departs 17 minutes after it was published at the earliest."""
    dice = random.Random(seed)
    flights, departures = [], []
    for number in range(60):
        at = START + minutes(dice.randrange(0, 600, 5))
        shared = {
            "origin": dice.choice(["EWR", "JFK"]),
            "carrier": dice.choice("AB"),
            "tailnum": f"N{dice.randrange(9)}",
        }
        delay = dice.randrange(-40, 200)
        flights.append(flight(number, at, **shared))
        row = departure(at + minutes(max(17, 60 + delay)), delay, **shared)
        departures.append(row if own_delay is None else {**row, "dep_delay": own_delay.get(number, delay)})
    dice.shuffle(departures)
    return flights, departures


@pytest.mark.parametrize("seed", range(3))
def test_an_aggregate_is_the_mean_of_what_happened_strictly_before_the_event(seed):
    flights, departures = a_day(seed)
    result = replay(flight_delay, flights, side_rows={"departures": departures}, now=NOW)
    some = 0
    for event in flights:
        t = event["published_at"]
        for name, hours, by in (
            (BY_ORIGIN, 2, ["origin"]),
            ("departures_dep_delay_mean_3h_by_origin_carrier", 3, ["origin", "carrier"]),
            ("departures_dep_delay_mean_12h_by_tailnum", 12, ["tailnum"]),
        ):
            seen = [
                row["dep_delay"]
                for row in departures
                if t - timedelta(hours=hours) <= row["departed_at"] < t and all(row[f] == event[f] for f in by)
            ]
            expected = pytest.approx(np.mean(seen)) if seen else None
            assert result.features[event["flight_id"]][name] == expected
            some += len(seen)
    assert some > 100


def test_no_aggregate_of_a_row_contains_its_own_flight():
    flights, departures = a_day(7)
    before = replay(flight_delay, flights, side_rows={"departures": departures}, now=NOW).features
    for number in range(0, 60, 6):
        _, changed = a_day(7, own_delay={number: 1e6})
        after = replay(flight_delay, flights, side_rows={"departures": changed}, now=NOW).features
        assert after[f"UA{number}"] == before[f"UA{number}"]


def test_a_side_row_of_the_events_own_moment_is_not_seen():
    sides = {"departures": [departure(START, 99), departure(START - timedelta(hours=2), 7)]}
    assert replay(flight_delay, [flight()], side_rows=sides, now=NOW).features["UA1"][BY_ORIGIN] == 7


def test_the_order_of_rows_and_the_size_of_chunks_change_no_feature():
    flights, departures = a_day(1)
    whole = replay(flight_delay, flights, side_rows={"departures": departures}, now=NOW).features
    mixed = replay(flight_delay, flights[::-1], side_rows={"departures": departures[::-1]}, now=NOW).features
    alone = {
        event["flight_id"]: replay(flight_delay, [event], side_rows={"departures": departures}, now=NOW).features
        for event in flights[:5]
    }
    assert mixed == whole
    assert all(features[event_id] == whole[event_id] for event_id, features in alone.items())


# ── law 9: poison is parked ───────────────────────────────────────────────────────────────────────────────────────────


def scaled(numbers):
    return 1 / numbers if (numbers != 0).all() else _refuse()


def _refuse():
    raise ZeroDivisionError("a number is 0")


def hopeful(numbers):
    return np.where(numbers == 13, np.nan, 0.5) if (numbers >= 0).all() else _refuse()


READINGS = Topic("readings", id="id", time="at")
readings = Pipeline(
    name="readings",
    events=READINGS,
    features=[
        Number("x"),
        Category("kind", nullable=True),
        Tensor("v", shape=[2, 2]),
        Function(scaled, inputs=["x"]),
    ],
    label=Regression(Topic("truths", id="id", time="at"), "y", within="1h", if_absent="drop"),
    baseline=Function(hopeful, inputs=["x"], name="rule"),
)
GOOD = {"id": "a", "at": "2013-07-04T05:00:00Z", "x": 1.5, "kind": "k", "v": [[1, 2], [3, 4]]}


def reading(**fields):
    return json.dumps({name: value for name, value in {**GOOD, **fields}.items() if value is not ...}).encode()


def literal(name, text):
    """JSON as Python would not write it."""
    return reading(**{name: "@"}).replace(b'"@"', text)


POISON = {
    "an empty value": (b"", "empty"),
    "a tombstone": (None, "tombstone"),
    "bytes that are not UTF-8": (literal("kind", b'"\xff"'), "not_utf8"),
    "truncated JSON": (reading()[:-3], "not_json"),
    "two objects in one record": (reading() * 2, "not_json"),
    "half a surrogate pair": (literal("id", rb'"\ud800"'), "not_json"),
    "NaN": (literal("x", b"NaN"), "not_json"),
    "Infinity": (literal("x", b"-Infinity"), "not_json"),
    "a number beyond float64": (literal("x", b"1e400"), "wrong_shape"),
    "an integer of 5000 digits": (literal("id", b"1" * 5000), "wrong_shape"),
    "arrays 10,000 deep": (b"[" * 10_000, "wrong_shape"),
    "arrays 10,000 deep in a field": (literal("v", b"[" * 10_000 + b"]" * 10_000), "not_json"),
    "arrays 100,000 deep in a field that nobody reads": (
        literal("extra", b"[" * 100_000 + b"]" * 100_000),
        "not_json",
    ),
    "an array": (b"[1]", "wrong_shape"),
    "a missing field": (reading(x=...), "wrong_shape"),
    "a null field": (reading(x=None), "wrong_shape"),
    "a text in a number": (reading(x="1.5"), "wrong_shape"),
    "a boolean in a number": (reading(x=True), "wrong_shape"),
    "a number with a fraction in a category": (reading(kind=1.5), "wrong_shape"),
    "no id": (reading(id=...), "wrong_shape"),
    "an empty id": (reading(id=""), "wrong_shape"),
    "a null id": (reading(id=None), "wrong_shape"),
    "a tensor of another length": (reading(v=[1, 2, 3]), "wrong_shape"),
    "a tensor of another rank": (reading(v=[[[1, 2], [3, 4]]]), "wrong_shape"),
    "a ragged tensor": (reading(v=[[1, 2], [3]]), "wrong_shape"),
    "a null in a tensor": (reading(v=[1, 2, 3, None]), "wrong_shape"),
    "texts in a tensor": (reading(v=["1", "2", "3", "4"]), "wrong_shape"),
    "booleans in a tensor": (reading(v=[True, False, True, False]), "wrong_shape"),
    "a tensor beyond float32": (reading(v=[1, 2, 3, 1e300]), "wrong_shape"),
    "no tensor": (reading(v={}), "wrong_shape"),
    "no time": (reading(at=...), "no_time"),
    "a time without an offset": (reading(at="2013-07-04T05:00:00"), "no_time"),
    "a date": (reading(at="2013-07-04"), "no_time"),
    "time -1": (reading(at=-1), "no_time"),
    "a time before 1970": (reading(at="1969-12-31T23:59:59Z"), "no_time"),
    "the year 1": (reading(at="0001-01-01T00:00:00+14:00"), "no_time"),
    "the year 9999": (reading(at="9999-12-31T23:59:59Z"), "future"),
    "a time more than max_future ahead": (reading(at="2013-07-08T00:05:01Z"), "future"),
    "what a function raises at": (reading(x=0), "function_failed"),
    "what the baseline raises at": (reading(x=-1), "score_not_finite"),
    "what the baseline answers with NaN": (reading(x=13), "score_not_finite"),
}
HARMLESS = {
    "an integer beyond 2^53": literal("x", b"9007199254740993"),
    "an integer of 300 digits": literal("id", b"1" * 300),
    "a tiny number": literal("x", b"1e-300"),
    "a key twice": reading().replace(b"{", b'{"x":0,', 1),
    "a field that nobody reads": reading(schema_version=99),
    "a nullable field that is missing": reading(kind=...),
    "a number where a category is a text": reading(kind=7),
    "a flat tensor": reading(v=[1, 2, 3, 4]),
    "Unix milliseconds": reading(at=1_372_914_000_000),
    "an offset": reading(at="2013-07-04T07:00:00+02:00"),
    "a little ahead of the clock": reading(at="2013-07-08T00:04:59Z"),
    "900 KB": reading(extra="x" * 900_000),
    "1 MiB": reading(kind="x" * (1 << 20)),
    "a NUL in its id": reading(id="a\0b"),
}


@pytest.mark.parametrize("name", POISON)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_poison_is_parked_with_its_bytes_and_a_reason_and_its_neighbours_are_served(name):
    value, reason = POISON[name]
    events = [reading(id="before"), Record(value, key=b"\xff", headers=[("h", b"1")]), reading(id="after")]
    result = replay(readings, events, now=NOW)
    (letter,) = result.dead_letters
    assert (letter.topic, letter.offset, letter.key, letter.value) == ("readings", 1, b"\xff", value)
    assert (letter.reason, bool(letter.detail)) == (reason, True)
    assert [(prediction.id, prediction.source) for prediction in result.predictions] == [
        ("before", ("readings", 0, 0)),
        ("after", ("readings", 0, 2)),
    ]
    (record,) = [record for record in result.records if record.topic == "readings.dead-letters"]
    assert record.headers[0] == ("h", b"1")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_odd_but_clear_is_served(name):
    result = replay(readings, [HARMLESS[name]], now=NOW)
    assert result.dead_letters == []
    assert len(result.predictions) == 1


def test_of_a_key_that_is_there_twice_the_last_wins():
    assert replay(readings, [HARMLESS["a key twice"]], now=NOW).features["a"]["x"] == 1.5


def test_the_longest_reason_fits_beside_the_record():
    result = replay(readings, [literal("x", b'"' + "é".encode() * 400_000 + b'"')], now=NOW)
    (record,) = result.records
    assert len(dict(record.headers)["headrace-reason"]) <= 1_000


def test_a_chunk_of_nothing_but_poison_reads_no_features():
    result = replay(flight_delay, [b"{}", None, b"\xff"], now=NOW)
    assert [letter.reason for letter in result.dead_letters] == ["wrong_shape", "tombstone", "not_utf8"]


def test_one_id_twice_is_two_predictions_with_sources_of_their_own():
    result = replay(readings, [reading(), reading(x=2)], now=NOW)
    assert [prediction.source[2] for prediction in result.predictions] == [0, 1]
    assert result.features["a"]["x"] == 2


def test_missing_is_none_and_never_zero():
    features = replay(flight_delay, [flight(tailnum=None)], now=NOW).features["UA1"]
    assert features["departures_dep_delay_mean_12h_by_tailnum"] is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"", "empty"),
        (None, "tombstone"),
        (b"{", "not_json"),
        (b'{"origin":"\xff"}', "not_utf8"),
        ({"origin": "EWR", "dep_delay": 1}, "no_time"),
        ({"departed_at": "noon", "origin": "EWR"}, "no_time"),
        (departure("2013-07-09T00:00:00Z", 1), "future"),
        (departure("2013-07-04T00:00:00Z", "late"), "wrong_shape"),
    ],
)
def test_poison_on_a_side_topic_is_parked_too(row, reason):
    sides = {"departures": [departure(START - minutes(9), 4), row]}
    result = replay(flight_delay, [flight()], side_rows=sides, now=NOW)
    (letter,) = result.dead_letters
    assert (letter.topic, letter.offset, letter.reason) == ("departures", 1, reason)
    assert result.features["UA1"][BY_ORIGIN] == 4


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (b"", "empty"),
        (None, "tombstone"),
        (b'{"flight_id":', "not_json"),
        ({"flight_id": "UA1", "landed_at": "2013-07-04T09:00:00Z", "arr_delay": None}, "wrong_shape"),
        ({"flight_id": "UA1", "landed_at": "2013-07-04T09:00:00Z", "arr_delay": "20"}, "wrong_shape"),
        ({"flight_id": "UA1", "landed_at": "2013-07-09T09:00:00Z", "arr_delay": 20}, "future"),
        ({"flight_id": "UA1", "landed_at": "1960-07-09T09:00:00Z", "arr_delay": 20}, "no_time"),
        ({"landed_at": "2013-07-04T09:00:00Z", "arr_delay": 20}, "wrong_shape"),
    ],
)
def test_poison_on_the_label_topic_is_parked_too(label, reason):
    good = arrival(1, 60, 20)
    result = replay(flight_delay, [flight()], labels=[label, good], now=NOW)
    assert [(letter.topic, letter.offset, letter.reason) for letter in result.dead_letters] == [("arrivals", 0, reason)]
    assert [row.label for row in result.joined] == [1.0]


# ── labels ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def arrival(number, after, delay):
    return {"flight_id": f"UA{number}", "landed_at": START + minutes(after), "arr_delay": delay}


def test_the_first_label_within_the_horizon_wins():
    labels = [arrival(1, 200, 0), arrival(1, 100, 15), arrival(1, -1, 0), arrival(1, 36 * 60 + 1, 0), arrival(2, 1, 0)]
    result = replay(flight_delay, [flight()], labels=labels, now=NOW)
    assert [(row.id, row.event_time, row.label, row.score) for row in result.joined] == [
        ("UA1", "2013-07-04T05:00:00Z", 1.0, 0.24)
    ]
    assert (result.counts.labels_repeated, result.counts.labels_late, result.counts.labels_early) == (1, 1, 1)
    assert result.counts.labels_unknown == 1


def test_labels_are_joined_as_of_now():
    labels = [arrival(1, 100, 15)]
    early = replay(flight_delay, [flight()], labels=labels, now=START + minutes(98))
    assert (early.joined, early.counts.labels_unseen, early.dead_letters) == ([], 1, [])
    assert len(replay(flight_delay, [flight()], labels=labels).joined) == 1


def test_silence_is_the_declared_value_once_the_horizon_has_closed():
    clicks = Pipeline(
        name="clicks",
        events=READINGS,
        features=[Number("x")],
        label=Binary(Topic("truths", id="id", time="at"), "y", within="1h", if_absent=0),
    )
    labels = [{"id": "a", "at": "2013-07-04T05:30:00Z", "y": True}]
    events = [reading(), reading(id="b")]
    assert replay(clicks, events, labels=labels, now="2013-07-04T05:59Z").joined == []
    closed = replay(clicks, events, labels=labels, now="2013-07-04T06:00Z").joined
    assert [(row.id, row.label) for row in closed] == [("a", 1.0), ("b", 0.0)]


def test_metrics_are_of_what_was_served():
    events = [flight(number, distance=number) for number in range(1, 5)]
    labels = [arrival(number, 300, 20 * (number > 2)) for number in range(1, 5)]

    class Far:
        def predict(self, columns, _rows):
            return columns["distance"] / 10

    assert replay(flight_delay, events, labels=labels, model=Far(), now=NOW).metrics["roc_auc"] == 1.0


# ── training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def net(inputs):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(inputs.numbers, 1)

        def forward(self, numbers, _categories):
            return self.layer(numbers).squeeze(1)

    return Net()


simple = Pipeline(
    name="simple",
    events=READINGS,
    features=[Number("x")],
    label=Binary(Topic("truths", id="id", time="at"), "y", at_least=0, within="1h", if_absent="drop"),
    learner=Torch(net, epochs=8, batch_size=32, lr=0.05),
    train_on=Last("30d", holdout="2d", min_rows=50),
    gate=Gate("roc_auc", min_gain=0.1),
)


def readings_of(count):
    dice = random.Random(3)
    events, labels = [], []
    for number in range(count):
        at, x = START + timedelta(hours=number), dice.gauss(0, 1)
        events.append({"id": number, "at": at, "x": x})
        labels.append({"id": number, "at": at + minutes(10), "y": x + dice.gauss(0, 0.3)})
    return events, labels


def test_a_training_on_what_was_replayed_gives_a_model_that_replays():
    events, labels = readings_of(240)
    served = replay(simple, events, labels=labels)
    assert len(served.dataset()) == 240
    candidate = train(simple, served)
    assert candidate.run.promote
    assert candidate.run.metrics["roc_auc"] > 0.9
    assert candidate.run.champion_metrics["roc_auc"] == 0.5
    again = replay(simple, events, labels=labels, model=candidate)
    assert again.metrics["roc_auc"] > 0.9
    assert {prediction.version for prediction in again.predictions} == {1}
    assert not train(simple, again).run.promote  # no better than the champion that served now


def test_a_training_sees_nothing_newer_than_its_time():
    events, labels = readings_of(240)
    served = replay(simple, events, labels=labels)
    assert len(served.dataset(at=START + timedelta(hours=100))) == 100
    with pytest.raises(RunFailed, match="too_few_rows"):
        train(simple, served, at=START + timedelta(hours=60))
