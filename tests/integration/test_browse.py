"""Looking at topics: pages without gaps or repeats, searches, single records, served rows and their profile."""

import json
import random
from contextlib import closing

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from kit import DEADLINE, linear, produce
from test_cli import Cli
from test_swap import Publisher

from headrace.infra.kafka import producer_config
from headrace.infra.merged import Merged
from headrace.infra.names import Names
from headrace.infra.seek import Seeker
from headrace.infra.services.data.browse import browse, record
from headrace.infra.services.data.column_profile import column_profile
from headrace.infra.services.data.served_rows import served_rows
from headrace.infra.topics import apply
from headrace.models.drift import reference_of
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.features import Aggregate, Category, Column, Number, Tensor, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.records import FIRST_OFFSET_HEADER, LAST_OFFSET_HEADER
from headrace.streams.codec import clock_ms
from headrace.streams.served import encode_served, served_batch, served_schema

AT = 1_372_935_600_000  # 2013-07-04T11:00:00Z: event time
FILE = """
from headrace import Aggregate, Binary, Category, Number, Pipeline, Tensor, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[
        Number("distance"),
        Category("carrier", nullable=True),
        Tensor("image", shape=[2, 2]),
        Aggregate(Topic("departures", time="at", format="msgpack"), "wait", "mean", over="2h", by="carrier"),
    ],
    label=Binary(Topic("arrivals", id="id", time="at", format="msgpack"), "late", within="1h", if_absent="drop"),
)
"""
PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[
        Number("distance"),
        Category("carrier", nullable=True),
        Tensor("image", shape=[2, 2]),
        Aggregate(Topic("departures", time="at", format="msgpack"), "wait", "mean", over="2h", by="carrier"),
    ],
    label=Binary(Topic("arrivals", id="id", time="at", format="msgpack"), "late", within="1h", if_absent="drop"),
)


@pytest.fixture
def names(settings):
    apply(settings, PIPELINE, 3)
    return Names(settings.prefix, PIPELINE)


def event(number, **more):
    value = msgspec.json.encode({"id": f"e{number}", "at": AT + 1_000 * number, "distance": number})
    return {"value": value, "key": f"k{number}", "partition": number % 3} | more


def pages(ask, first=""):
    """Each page to the end; `ask` takes the place of the next one."""
    place, found = first, []
    while place is not None:
        found.append(page := ask(place))
        place = page.older
        assert len(found) < 500
    return found


def places(found):
    return [one.place for page in found for one in page.records]


def aborted(settings, topic, records):
    producer = Producer(producer_config(settings, transactional_id=settings.prefixed("aborts")))
    producer.init_transactions(DEADLINE)
    producer.begin_transaction()
    for one in records:
        producer.produce(topic, **one)
    producer.flush(DEADLINE)
    producer.abort_transaction(DEADLINE)


def committed(settings, topic, records):
    producer = Producer(producer_config(settings, transactional_id=settings.prefixed("commits")))
    producer.init_transactions(DEADLINE)
    producer.begin_transaction()
    for one in records:
        producer.produce(topic, **one)
    producer.commit_transaction(DEADLINE)


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 7, 100, 1_000])
def test_pages_over_partitions_have_every_record_once_and_the_newest_first(settings, names, limit):
    total, now = (40 if limit == 1 else 500), clock_ms()
    rng = random.Random(limit)
    partitions = [rng.choice([0, 0, 0, 0, 2]) for _ in range(total)]  # one busy, one empty
    produce(settings, names.events, [event(n, partition=p, timestamp=now + n) for n, p in enumerate(partitions)])
    found = pages(lambda place: browse(settings, names, "events", before=place, limit=limit))
    assert [one.id for page in found for one in page.records] == [f"e{n}" for n in reversed(range(total))]
    assert [len(page.records) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert all(page.looked_at == len(page.records) for page in found)


def test_timestamps_out_of_order_make_no_gap_and_a_partition_keeps_its_order(settings, names):
    now, rng = clock_ms(), random.Random(3)
    produce(settings, names.events, [event(n, timestamp=now + rng.randrange(1_000)) for n in range(300)])
    found = places(pages(lambda place: browse(settings, names, "events", before=place, limit=13)))
    assert len(found) == len(set(found)) == 300
    for partition in range(3):
        of_it = [int(place.split("/")[2]) for place in found if place.split("/")[1] == str(partition)]
        assert of_it == sorted(of_it, reverse=True)


def test_going_forwards_shows_the_same_pages_records_and_then_what_is_new(settings, names):
    now = clock_ms()
    produce(settings, names.events, [event(n, timestamp=now + n) for n in range(100)])
    place, found = "0:0", []
    while page := browse(settings, names, "events", after=place, limit=9):
        if not page.records:
            break
        found += [one.id for one in reversed(page.records)]
        place = page.newer
    assert found == [f"e{n}" for n in range(100)]
    newest = browse(settings, names, "events", limit=5)
    assert browse(settings, names, "events", after=newest.newer).records == ()
    produce(settings, names.events, [event(100)])
    assert [one.id for one in browse(settings, names, "events", after=newest.newer).records] == ["e100"]


def test_a_page_goes_back_from_where_one_went_forwards(settings, names):
    now = clock_ms()
    produce(settings, names.events, [event(n, timestamp=now + n) for n in range(60)])
    middle = browse(settings, names, "events", after="0:10,1:10,2:10", limit=6)
    assert [one.id for one in middle.records] == [f"e{n}" for n in range(35, 29, -1)]
    assert [one.id for one in browse(settings, names, "events", before=middle.older, limit=2).records] == ["e29", "e28"]
    assert [one.id for one in browse(settings, names, "events", after=middle.newer, limit=2).records] == ["e37", "e36"]


def test_a_page_begins_at_a_time(settings, names):
    now = clock_ms()
    produce(settings, names.events, [event(n, timestamp=now + n * 1_000) for n in range(60)])
    found = browse(settings, names, "events", written_from=now + 40_000, limit=3)
    assert [one.id for one in found.records] == ["e42", "e41", "e40"]
    assert found.records[-1].written_at == iso(now + 40_000)
    assert browse(settings, names, "events", written_from=now + 3_600_000).records == ()


def test_one_partition_alone(settings, names):
    produce(settings, names.events, [event(n) for n in range(30)])
    found = pages(lambda place: browse(settings, names, "events", partition=1, before=place, limit=4))
    assert places(found) == [f"flights/1/{offset}" for offset in reversed(range(10))]
    with pytest.raises(BadInput, match="expected 0 to 2, got 3"):
        browse(settings, names, "events", partition=3)


def test_more_partitions_than_are_read_at_once_are_one_order(settings, topic):
    name, now = topic("wide", 20), clock_ms()
    records = [{"value": b"%d" % n, "partition": n * 7 % 20, "timestamp": now + n} for n in range(1_000)]
    produce(settings, name, records)
    with closing(Seeker(settings, name)) as seeker:
        for ascending in (False, True):
            merged = Merged(seeker, seeker.all_bounds(), lambda message: int(message.value()), ascending=ascending)
            assert [item.held for item in merged] == sorted(range(1_000), reverse=not ascending)
            assert merged.read == 1_000


def test_an_empty_topic_is_an_empty_page(settings, names):
    page = browse(settings, names, "labels")
    assert (page.records, page.older, page.looked_at, page.looked_at_to) == ((), None, 0, "")
    assert page.partitions == {0: (0, 0)}


@pytest.mark.parametrize("place", ["here", "0", "0:", "7:1", "0:1;1:2", "0:-1"])
def test_a_place_that_cannot_be_says_how_to_write_one(settings, names, place):
    with pytest.raises(BadInput, match="expected partition:offset, as 0:4711"):
        browse(settings, names, "events", before=place)


def test_only_the_pipelines_own_topics_are_shown(settings, names, topic):
    other = topic("secrets")
    produce(settings, other, [{"value": b"secret"}])
    for wanted in (other, "secrets", "headrace.registry", "../flights", ""):
        with pytest.raises(BadInput, match="expected one of delay's"):
            browse(settings, names, wanted)
        with pytest.raises(BadInput, match="expected one of delay's"):
            record(settings, names, wanted, 0, 0)


def test_a_topic_goes_by_its_name_with_the_prefix_or_without_and_by_what_it_is(settings, names):
    wanted = {
        "flights": "events",
        "arrivals": "labels",
        "departures": "side",
        "delay.predictions": "predictions",
        "delay.dead-letters": "dead-letters",
    }
    for name, kind in wanted.items():
        for called in (name, settings.prefix + name, *([] if kind == "side" else [kind])):
            page = browse(settings, names, called)
            assert (page.topic, page.kind) == (name, kind)


# ── what a record says ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_tells_its_place_times_id_key_headers_and_size(settings, names):
    now, headers = clock_ms(), [("traceparent", b"00-af"), ("bytes", b"\xff"), ("none", None)]
    produce(settings, names.events, [event(4, timestamp=now, headers=headers)])
    (one,) = browse(settings, names, "flights").records
    value = '{"id":"e4","at":1372935604000,"distance":4}'
    assert (one.topic, one.partition, one.offset, one.place) == ("flights", 1, 0, "flights/1/0")
    assert (one.written_at, one.event_time) == (iso(now), "2013-07-04T11:00:04Z")
    assert (one.id, one.key, one.value, one.size, one.is_cut) == ("e4", "k4", value, len(value), False)
    assert one.headers == (("traceparent", "00-af"), ("bytes", "0xff"), ("none", None))


def test_messagepack_is_shown_as_json_and_has_ids_and_times(settings, names):
    label = msgspec.msgpack.encode({"id": "é1", "at": iso(AT), "late": True})
    row = msgspec.msgpack.encode({"at": AT, "carrier": "UA", "wait": 5.5, "raw": bytes(100)})
    endless = msgspec.msgpack.encode({"at": float("inf"), "carrier": "UA"})
    produce(settings, names.labels, [{"value": label}])
    produce(settings, names.of("departures"), [{"value": row}, {"value": endless}])
    (one,) = browse(settings, names, "labels", search="é1").records
    assert json.loads(one.value) == {"id": "é1", "at": iso(AT), "late": True}
    assert (one.id, one.event_time) == ("é1", iso(AT))
    newer, older = browse(settings, names, "departures").records
    assert json.loads(older.value)["raw"] == "<100 bytes>"
    assert (older.id, older.event_time, newer.event_time) == ("", iso(AT), "")


def test_any_bytes_are_shown_and_large_ones_are_cut(settings, names):
    large = b'{"id":"large","at":"2013-07-04T11:00:00Z","more":"' + b"x" * 900_000 + b'"}'
    values = [b"", None, b"\xff\xfe", b"{", large, b"\x1b[2J", b"[" * 100_000, b'{"id":1.5,"at":true}', b'{"id":7}']
    produce(settings, names.events, [{"value": v, "key": b"\xff", "partition": 0} for v in values])
    found = {one.offset: one for one in browse(settings, names, "events", width=100).records}
    assert [found[n].value for n in range(4)] == ["", None, "0xfffe", "{"]
    assert [found[n].id for n in range(9)] == ["", "", "", "", "large", "", "", "", "7"]
    assert (found[4].size, found[4].is_cut, len(found[4].value)) == (len(large), True, 101)
    assert found[4].event_time == "2013-07-04T11:00:00Z"
    assert {one.key for one in found.values()} == {"0xff"}
    whole = record(settings, names, "flights", 0, 4)
    assert (whole.value, whole.key, whole.record.value) == (large, b"\xff", large.decode())
    assert record(settings, names, "flights", 0, 1).value is None


def test_many_large_records_are_pages_too(settings, names):
    produce(settings, names.events, [event(n, value=b"%d" % n + b"x" * 900_000) for n in range(40)])
    found = pages(lambda place: browse(settings, names, "events", before=place, limit=10, width=10))
    assert len(set(places(found))) == 40
    assert max(len(one.value) for page in found for one in page.records) == 11


def test_a_dead_letter_is_read_by_the_format_of_its_source(settings, names):
    letter = {"value": msgspec.msgpack.encode({"id": "i9", "at": AT}), "headers": [("headrace-reason", b"future: no")]}
    source = [("headrace-source", f"{names.labels}/0/3".encode())]
    plain = {"value": b'{"id":"e9"}', "headers": [("headrace-source", f"{names.events}/0/3".encode())]}
    letters = [letter | {"headers": letter["headers"] + source}, plain, {"value": b"no headers"}]
    produce(settings, names.topics.dead_letters, [one | {"partition": 0} for one in letters])
    bare, of_event, of_label = browse(settings, names, "dead-letters").records
    assert (of_label.id, json.loads(of_label.value)) == ("i9", {"id": "i9", "at": AT})
    assert (of_event.id, bare.id, bare.value) == ("e9", "", "no headers")
    assert [one.place for one in browse(settings, names, "dead-letters", search="i9").records] == [of_label.place]


def test_a_record_that_is_not_there_says_what_is(settings, names):
    with pytest.raises(BadInput, match="flights/0/0: expected an offset that is still there, none: the partition is"):
        record(settings, names, "flights", 0, 0)
    produce(settings, names.events, [event(0), event(3)])
    with pytest.raises(BadInput, match="from 0 to 1"):
        record(settings, names, "flights", 0, 2)
    with pytest.raises(BadInput, match="expected 0 to 2, got 9"):
        record(settings, names, "flights", 9, 0)


# ── transactions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_aborted_records_and_markers_are_not_shown_and_make_no_gap(settings, names):
    for round_ in range(6):
        committed(settings, names.events, [event(n) for n in range(20 * round_, 20 * round_ + 10)])
        aborted(settings, names.events, [event(n) for n in range(20 * round_ + 10, 20 * round_ + 20)])
    wanted = {f"e{n}" for n in range(120) if n % 20 < 10}
    found = pages(lambda place: browse(settings, names, "events", before=place, limit=7))
    ids = [one.id for page in found for one in page.records]
    assert (len(ids), set(ids)) == (60, wanted)
    assert browse(settings, names, "events", search="e115").records == ()
    shown = {(one.partition, one.offset) for page in found for one in page.records}
    end = found[0].partitions[0][1]
    hidden = next(offset for offset in range(end) if (0, offset) not in shown)
    with pytest.raises(BadInput, match="no record is at this offset"):
        record(settings, names, "flights", 0, hidden)


def test_a_long_stretch_of_aborted_records_is_passed_over(settings, names):
    committed(settings, names.events, [event(n) for n in range(3)])
    aborted(settings, names.events, [event(n) for n in range(30_000)])
    page = browse(settings, names, "events", limit=3)
    assert [one.id for one in sorted(page.records, key=lambda one: one.partition)] == ["e0", "e1", "e2"]
    assert page.read == 3
    onwards = browse(settings, names, "events", after="0:0,1:0,2:0", limit=3)
    assert {one.id for one in onwards.records} == {"e0", "e1", "e2"}


def test_a_gap_with_many_records_behind_it_holds_only_so_many_and_loses_none(settings, names):
    """The pieces that are read grow in a gap; what is then too much for one piece is read again."""
    committed(settings, names.events, [event(3 * n) for n in range(9_000)])
    aborted(settings, names.events, [event(3 * n) for n in range(9_000)])
    committed(settings, names.events, [event(3 * n) for n in range(9_000, 18_000)])
    with closing(Seeker(settings, names.events)) as seeker:
        bounds = seeker.all_bounds()
        for ascending in (False, True):
            merged = Merged(seeker, bounds, lambda message: message.key(), ascending=ascending, most=500)
            found = [int(item.held[1:]) for item in merged]
            assert found == sorted((3 * n for n in range(18_000)), reverse=not ascending)


# ── search, and what it reads ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_search_looks_at_keys_values_and_ids(settings, names):
    escaped = {"value": b'{"id":"caf\\u00e9","at":1}', "key": "other", "partition": 0}
    produce(settings, names.events, [*[event(n) for n in range(50)], escaped])

    def found(wanted):
        return [one.id for one in browse(settings, names, "events", search=wanted).records]

    assert found("k41") == found("e41") == found('"distance":41') == ["e41"]
    assert found("café") == ["café"]
    assert found("nothing of the kind") == []
    assert len(found("distance")) == 50


def test_a_search_says_how_far_it_looked_and_goes_on_from_there(settings, names):
    now = clock_ms()
    produce(settings, names.events, [event(n, timestamp=now + n) for n in range(3_000)])
    first = browse(settings, names, "events", search="e100", look_back=1_000)
    assert (first.records, first.looked_at, first.looked_at_to) == ((), 1_000, iso(now + 2_000))
    found = pages(lambda place: browse(settings, names, "events", search="e100", before=place, look_back=1_000), "")
    assert [one.id for page in found for one in page.records] == [*[f"e{n}" for n in range(1_009, 999, -1)], "e100"]
    assert [page.looked_at for page in found] == [1_000, 1_000, 1_000]


def test_of_a_long_topic_only_the_tail_is_read(settings, names):
    produce(settings, names.events, [event(n) for n in range(200_000)])
    page = browse(settings, names, "events", limit=50)
    assert len(page.records) == page.looked_at == 50
    assert page.read <= 200
    assert sum(end - first for first, end in page.partitions.values()) == 200_000
    searched = browse(settings, names, "events", search="no such thing", look_back=5_000)
    assert (searched.looked_at, searched.records) == (5_000, ())
    assert searched.read <= 20_000


# ── served rows ───────────────────────────────────────────────────────────────────────────────────────────────────────


COLUMNS = (
    Column("distance", "number"),
    Column("carrier", "category", nullable=True),
    Column("image", "tensor", shape=(2, 2)),
)


def batch(first, end, *, version=1, columns=COLUMNS, partition=0):
    """One record of the served topic: events `first` to before `end`, whose offset is their number."""
    numbers = np.arange(first, end)
    given = {
        "distance": numbers.astype(np.float64),
        "carrier": np.array([None if n % 10 == 0 else ["UA", "AA"][n % 2] for n in numbers], object),
        "image": np.stack([np.full((2, 2), n, np.float32) for n in numbers]),
    }
    rows = served_batch(
        served_schema(columns),
        ids=[f"e{n}" for n in numbers],
        times=AT + 1_000 * numbers,
        partition=partition,
        offsets=numbers,
        version=version,
        scores=numbers / 10_000,
        columns={column.name: given[column.name] for column in columns},
    )
    ((value, low, high),) = encode_served(rows)
    headers = [(FIRST_OFFSET_HEADER, str(low).encode()), (LAST_OFFSET_HEADER, str(high).encode())]
    return {"value": value, "headers": headers, "partition": partition}


@pytest.fixture
def served(settings, names):
    """Events 0 to 899 in batches of 30 over three partitions, by version 1 and from 600 on 2; the first 300 without a
    carrier and an image."""
    now = clock_ms()
    records = [
        batch(n, n + 30, version=1 + (n >= 600), columns=COLUMNS if n >= 300 else COLUMNS[:1], partition=n // 30 % 3)
        | {"timestamp": now + n}
        for n in range(0, 900, 30)
    ]
    produce(settings, names.topics.served, [*records, {"value": b"not ours", "partition": 0, "timestamp": now + 901}])
    return names


def ids(found):
    return [one.id for page in found for one in page.rows]


@pytest.mark.parametrize("limit", [7, 30, 1_000])
def test_served_rows_come_newest_first_in_pages_without_gaps(settings, served, limit):
    found = pages(lambda place: served_rows(settings, served, limit=limit, before=place))
    assert ids(found) == [f"e{n}" for n in reversed(range(900))]
    assert sum(page.looked_at for page in found) == 900


def test_a_served_row_has_its_event_and_its_features(settings, served):
    (newest,) = served_rows(settings, served, limit=1).rows
    assert (newest.id, newest.source, newest.version, newest.score) == ("e899", "flights/2/899", 2, 0.0899)
    assert (newest.place, newest.row, newest.event_time) == ("delay.served/2/9", 29, iso(AT + 899_000))
    assert (newest.features["distance"], newest.features["carrier"]) == (899.0, "AA")
    tensor = newest.features["image"]
    assert (tensor.numbers, tensor.min, tensor.mean, tensor.max) == (4, 899, 899, 899)
    oldest = served_rows(settings, served, event_id="e0").rows[0]
    assert oldest.features == {"distance": 0.0}


def test_served_rows_are_found_by_version_id_and_event_time(settings, served):
    assert ids([served_rows(settings, served, version=1, limit=3)]) == ["e599", "e598", "e597"]
    assert ids([served_rows(settings, served, event_id="e450")]) == ["e450"]
    assert ids([served_rows(settings, served, event_id="nobody")]) == []
    since, until = AT + 100_000, AT + 110_000
    found = pages(lambda place: served_rows(settings, served, since=since, until=until, limit=4, before=place))
    assert ids(found) == [f"e{n}" for n in range(109, 99, -1)]
    bounded = pages(lambda place: served_rows(settings, served, event_id="e5", before=place, look_back=90))
    assert ids(bounded) == ["e5"]
    assert {page.looked_at for page in bounded[:-1]} == {90}


def test_rows_of_a_range_that_was_written_long_after_are_not_looked_for_before_it(settings, names):
    now = clock_ms()
    records = [batch(n, n + 10) | {"timestamp": now - (20 - n // 10) * 3_600_000} for n in range(0, 200, 10)]
    produce(settings, names.topics.served, records)
    page = served_rows(settings, names, since=now - 3 * 3_600_000)
    assert (page.rows, page.older) == ((), None)
    assert page.looked_at < 100


# ── profile ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def published(settings, names, trained=600):
    """A version whose training rows were like events 0 to `trained`, all with a carrier of their own."""
    numbers = np.arange(trained)
    rows = {
        "distance": numbers.astype(np.float64),
        "carrier": np.array(["DL"] * trained, object),
        "image": None,
        PIPELINE.columns[-1].name: np.full(trained, np.nan),
    }
    reference = reference_of(PIPELINE.schema, rows, numbers / 10_000)
    publisher = Publisher(settings, PIPELINE)
    publisher.publish(linear([1.0, 1.0]), change=lambda one: msgspec.structs.replace(one, reference=reference))
    return publisher


def test_a_profile_is_of_the_newest_rows_beside_the_champions_training(settings, served):
    publisher = published(settings, served)
    found = column_profile(settings, served)
    assert (found.rows, found.in_range, found.looked_at, found.whole_range) == (900, 900, 900, True)
    assert (found.against, found.no_reference, found.versions) == (1, "", {1: 600, 2: 300})
    assert found.event_times == (iso(AT), iso(AT + 899_000))
    columns = {one.name: one for one in found.columns}
    aggregate = PIPELINE.columns[-1].name
    assert list(columns) == ["distance", "carrier", "image", aggregate, "score"]
    assert columns["distance"].number.mean == pytest.approx(449.5)
    assert columns["distance"].against.unseen_rows == 300
    assert columns["distance"].against.significant
    carrier = columns["carrier"]
    assert (carrier.rows, carrier.lacking, carrier.missing) == (600, 300, 60)
    assert [one.value for one in carrier.against.unseen] == ["AA", "UA"]
    assert (columns["image"].tensor.shape, columns["image"].tensor.max) == ((2, 2), 899)
    assert (columns[aggregate].rows, columns[aggregate].lacking) == (0, 900)
    publisher.publish(linear([1.0, 1.0]))
    assert "version 2 has no reference" in column_profile(settings, served).no_reference
    assert column_profile(settings, served, against="1").columns == found.columns


def test_a_profile_is_of_a_range_a_version_or_so_many_rows(settings, served):
    def distances(**which):
        found = column_profile(settings, served, **which)
        number = found.columns[0].number
        return found.rows, number.min, number.max, found.whole_range

    assert distances(since=AT + 100_000, until=AT + 200_000) == (100, 100, 199, True)
    assert distances(version=2) == (300, 600, 899, True)
    assert distances(rows=50) == (50, 850, 899, False)
    assert distances(rows=50, version=1) == (50, 550, 599, False)
    assert distances(look_back=100) == (120, 780, 899, False)


def test_without_rows_and_without_a_version_a_profile_is_empty_and_says_why(settings, names):
    found = column_profile(settings, names)
    assert (found.rows, found.whole_range, found.event_times, found.versions) == (0, True, None, {})
    assert (found.against, "the declaration's rule" in found.no_reference) == (0, True)
    assert [one.name for one in found.columns] == [*[column.name for column in PIPELINE.columns], "score"]
    with pytest.raises(BadInput, match="version: expected one of 0"):
        column_profile(settings, names, against="7")


def test_an_event_that_was_served_twice_counts_once_in_a_profile(settings, names):
    produce(settings, names.topics.served, [batch(0, 30), batch(10, 40)])
    found = column_profile(settings, names)
    assert (found.rows, found.columns[0].number.mean) == (40, pytest.approx(19.5))


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_shows_records_served_rows_and_their_profile(settings, served, tmp_path):
    (tmp_path / "flights.py").write_text(FILE)
    cli = Cli(settings, tmp_path)
    produce(settings, served.events, [*[event(n) for n in range(30)], event(30, value=b"\x1b[2J poison")])
    published(settings, served)

    page = cli("data", "show", "flights.py", "--limit", "4", "--output", "json").json
    assert len(page["records"]) == 4
    older = cli("data", "show", "flights.py", "flights", "--before", page["older"], "--output", "json").json
    assert not {one["place"] for one in older["records"]} & {one["place"] for one in page["records"]}
    text = cli("data", "show", "flights.py", "--search", "e17")
    assert "flights/2/5" in text.out
    assert "looked at 31 records" in text.err
    poison = cli("data", "show", "flights.py", "flights/0/10", "--hex")
    assert "\x1b" not in poison.out
    assert "\\x1b[2J poison" in poison.out
    assert "|.[2J poison|" in poison.out
    assert "none" not in cli("data", "show", "flights.py", "events", "--partition", "0", "--from", "0").out
    assert "expected one of delay's" in cli.refused("data", "show", "flights.py", "headrace.registry")

    rows = cli("data", "served", "flights.py", "--version", "1", "--limit", "2", "--output", "json").json
    assert [one["id"] for one in rows["rows"]] == ["e599", "e598"]
    assert "flights/1/599" in cli("data", "served", "flights.py", "--before", "0:0,1:7,2:0").out

    told = cli("data", "profile", "flights.py", "--output", "json").json
    assert (told["rows"], told["against"], told["columns"][0]["name"]) == (900, 1, "distance")
    text = cli("data", "profile", "flights.py", "--until", iso(AT + 300_000))
    assert "300 of 300 in range" in text.out
    assert "carrier: 300 rows lack it" in text.err
    assert "no served rows" in cli("data", "profile", "flights.py", "--since", "2030-01-01T00:00:00Z").err
