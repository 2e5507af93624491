"""Law 9: any bytes on an event, label or side topic end as a dead letter with a reason, and hurt nobody beside them."""

import os
import subprocess
import sys
from collections import Counter

import msgspec
import pytest
from kit import Facts, produce, read_all, wait_for
from test_source import worker_of

from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.topics import apply
from headrace.models.durations import iso
from headrace.models.facts import DeadLettered, Predicted, SideRowsApplied
from headrace.models.features import Aggregate, Category, Number, Tensor, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.streams.codec import clock_ms

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[
        Number("distance"),
        Category("carrier", nullable=True),
        Tensor("position", shape=[2]),
        Aggregate(Topic("departures", time="at"), "delay", "mean", over="2h", by="carrier"),
    ],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)
NOW, SOON = "2013-07-04T11:00:00Z", iso(clock_ms() + 3_600_000)
EVENT = {"id": "e1", "at": NOW, "distance": 700, "carrier": "UA", "position": [1, 2]}
ROW = {"at": NOW, "carrier": "UA", "delay": 5}
LABEL = {"id": "e1", "at": NOW, "late": True}


def text(good, **changed):
    """The good record with some fields replaced by what they are in JSON; None takes one away."""
    fields = {name: msgspec.json.encode(value).decode() for name, value in good.items()} | changed
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items() if value is not None) + "}").encode()


def bad_bytes(good, required):
    """What is bad on every topic, with the reason's first words."""
    return [
        (None, "tombstone"),
        (b"", "empty"),
        (b"flight 1545 is late", "not_json"),
        (msgspec.json.encode(good)[:-3], "not_json"),
        (b"[1,2]", "wrong_shape"),
        (b'"text"', "wrong_shape"),
        (b"null", "wrong_shape"),
        (b"\xff\xfe\x00", "not_"),
        (b"\x00" * 900_000, "not_json"),
        (os.urandom(900_000), ""),  # one that begins with a digit begins with JSON
        (text(good, more="[" * 100_000), "not_json"),
        (text(good, at=None), ""),
        (text(good, at="null"), ""),
        (text(good, at='"yesterday"'), ""),
        (text(good, at='"2013-07-04T11:00:00"'), ""),
        (text(good, at="-1"), ""),
        (text(good, at="1e400"), ""),
        (text(good, at=f'"{SOON}"'), "future"),
        (text(good, at='"9999-12-31T23:59:59Z"'), "future"),
        (text(good, **{required: "NaN"}), "not_json"),
        (text(good, **{required: "1e400"}), "wrong_shape"),
        (text(good, **{required: '"five"'}), "wrong_shape"),
        (text(good, **{required: '"\xff"'}).replace("ÿ".encode(), b"\xff"), ""),
        (text(good, **{required: "[" * 100_000}), ""),
    ]


BAD_EVENTS = [
    *bad_bytes(EVENT, "distance"),
    (text(EVENT, distance=None), "wrong_shape"),
    (text(EVENT, distance="null"), "wrong_shape"),
    (text(EVENT, distance="9" * 5_000), "wrong_shape"),
    (text(EVENT, carrier="9" * 5_000), "wrong_shape"),
    (text(EVENT, carrier='"\\ud800"'), "not_json"),
    (text(EVENT, id='""'), "wrong_shape"),
    (text(EVENT, id="1.5"), "wrong_shape"),
    (text(EVENT, id=None), "wrong_shape"),
    (text(EVENT, position="[1]"), ""),
    (text(EVENT, position="[1,1e39]"), ""),
    (text(EVENT, position='["1","2"]'), ""),
    (text(EVENT, position="[[1],[2,3]]"), ""),
]
BAD_ROWS = bad_bytes(ROW, "delay")
BAD_LABELS = [
    *bad_bytes(LABEL, "late"),
    (text(LABEL, late=None), "wrong_shape"),
    (text(LABEL, late="null"), "wrong_shape"),
    (text(LABEL, late="0.5"), "wrong_shape"),
]
HEADERS = [("traceparent", b"00-af"), ("bytes", b"\xff\x00"), ("none", None)]


def parked(settings, names, topic):
    return [m for m in read_all(settings, names.topics.dead_letters) if _source(m).startswith(f"{topic}/")]


def _source(message):
    return dict(message.headers())["headrace-source"].decode()


def send_among_good(settings, topic, bad, good):
    """Each bad record between two good ones, all under a key that is not UTF-8."""
    records = []
    for value, _ in bad:
        records += [{"value": good}, {"value": value, "key": b"\xff\xfe", "headers": HEADERS}]
    produce(settings, topic, records)


def check_parked(settings, names, topic, bad):
    letters = wait_for(
        f"{len(bad)} dead letters", lambda: len(found := parked(settings, names, topic)) >= len(bad) and found
    )
    sent = {f"{topic}/{m.partition()}/{m.offset()}": m for m in read_all(settings, topic)}
    assert Counter(_source(letter) for letter in letters).most_common(1)[0][1] == 1  # each once
    reasons = {}
    for letter in letters:
        given, headers = sent[_source(letter)], letter.headers()
        assert (letter.value(), letter.key(), headers[:-2]) == (given.value(), given.key(), HEADERS)
        assert [name for name, _ in headers[-2:]] == ["headrace-reason", "headrace-source"]
        reasons[letter.value()] = dict(headers)["headrace-reason"].decode()
    assert reasons.keys() == {value for value, _ in bad}
    for value, expected in bad:
        assert reasons[value].startswith(expected), (value and value[:80], reasons[value])
        assert len(reasons[value]) > 10  # it says something


def test_bad_events_are_parked_with_their_bytes_and_a_reason_and_good_ones_beside_them_predicted(settings):
    apply(settings, PIPELINE, 2)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    with worker_of(settings, PIPELINE, facts):
        send_among_good(settings, names.events, BAD_EVENTS, text(EVENT))
        check_parked(settings, names, names.events, BAD_EVENTS)
        wait_for("the good ones", lambda: sum(fact.rows for fact in facts.of(Predicted)) == len(BAD_EVENTS))
        produce(settings, names.events, [{"value": text(EVENT, id='"later"')}])
        wait_for("one more", lambda: sum(fact.rows for fact in facts.of(Predicted)) == len(BAD_EVENTS) + 1)
    counted = Counter()
    for fact in facts.of(DeadLettered):
        counted.update(fact.reasons)
    assert sum(counted.values()) == len(BAD_EVENTS)
    assert len(read_all(settings, names.topics.predictions)) == len(BAD_EVENTS) + 1


def test_bad_side_rows_are_parked_and_touch_neither_rings_nor_watermark(settings):
    apply(settings, PIPELINE)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    departures = names.of("departures")
    with worker_of(settings, PIPELINE, facts):
        send_among_good(settings, departures, BAD_ROWS, text(ROW))
        check_parked(settings, names, departures, BAD_ROWS)
        wait_for("the good ones", lambda: sum(fact.rows for fact in facts.of(SideRowsApplied)) >= len(BAD_ROWS))
        late = text(EVENT, at='"2013-07-04T12:00:00Z"')
        produce(settings, names.events, [{"value": late}])
        wait_for("the event", lambda: facts.of(Predicted))
    assert sum(fact.rows for fact in facts.of(SideRowsApplied)) == len(BAD_ROWS)


def test_bad_labels_are_parked_once_also_by_the_next_leader(settings):
    apply(settings, PIPELINE)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    produce(settings, names.labels, [{"value": b"before anybody led", "headers": HEADERS, "key": b"\xff\xfe"}])
    labels = LiveLabels(settings, names, facts)
    send_among_good(settings, names.labels, BAD_LABELS, text(LABEL))
    labels.now()
    labels.close()
    produce(settings, names.labels, [{"value": b"between two leaders", "headers": HEADERS, "key": b"\xff\xfe"}])
    following = LiveLabels(settings, names, facts)
    following.now()
    following.close()
    bad = [*BAD_LABELS, (b"before anybody led", "not_json"), (b"between two leaders", "not_json")]
    check_parked(settings, names, names.labels, bad)


def test_a_label_that_came_while_nobody_led_for_longer_than_the_horizon_is_looked_at(settings):
    apply(settings, PIPELINE)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    LiveLabels(settings, names, facts).close()
    old = clock_ms() - 7 * 86_400_000  # the horizon is an hour; the broker keeps a week and more
    produce(settings, names.labels, [{"value": b"late", "headers": HEADERS, "timestamp": old + 3_600_000}])
    labels = LiveLabels(settings, names, facts)
    labels.now()
    labels.close()
    check_parked(settings, names, names.labels, [(b"late", "not_json")])


@pytest.mark.parametrize("megabytes", [1, 3])
def test_events_as_large_as_their_topic_allows_are_predicted_and_parked(settings, topic, megabytes):
    limit = megabytes * 1_048_588
    topic("flights", 1, max_message_bytes=str(limit))
    apply(settings, PIPELINE)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    full = os.urandom(limit - 110 - len(text(EVENT)))  # 110: its batch's and its own framing
    records = [{"value": text(EVENT), "headers": [("full", full)]}, {"value": full}, {"value": text(EVENT)}]
    produce(settings, names.events, records, message_max_bytes=2 * limit, compression_type="none")
    with worker_of(settings, PIPELINE, facts):
        wait_for("two predictions", lambda: sum(fact.rows for fact in facts.of(Predicted)) == 2)
    assert len(read_all(settings, names.topics.predictions)) == 2
    (letter,) = parked(settings, names, names.events)
    assert letter.value() == full


# aiokafka without its C extensions leaves the name's encoding to the name
SEND_BAD_HEADER = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class NotText(str):
    def encode(self, *_):
        return b"\\xff\\xfe"

async def send(servers, topic, value):
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(topic, value.encode(), headers=[(NotText("xy"), b"1")])

asyncio.run(send(*sys.argv[1:]))
"""


def test_a_header_whose_name_is_not_text_does_not_end_the_worker(settings):
    apply(settings, PIPELINE)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    subprocess.run(
        [sys.executable, "-c", SEND_BAD_HEADER, settings.bootstrap_servers, names.events, text(EVENT).decode()],
        env=os.environ | {"AIOKAFKA_NO_EXTENSIONS": "1"},
        check=True,
    )
    produce(settings, names.events, [{"value": text(EVENT)}])
    with worker_of(settings, PIPELINE, facts):
        wait_for("the good one", lambda: facts.of(Predicted))
    (letter,) = parked(settings, names, names.events)
    assert letter.value() == text(EVENT)
    assert dict(letter.headers())["headrace-reason"].startswith(b"bad_header")
    assert len(read_all(settings, names.topics.predictions)) == 1
