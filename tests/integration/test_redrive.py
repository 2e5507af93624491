"""Dead letters go back on the topics that they came from, each once, whoever else tries."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from kit import Ends, Facts, produce, read_all, transaction, wait_for
from test_dead_letters import BAD_EVENTS, EVENT, HEADERS, LABEL, PIPELINE, ROW, parked, send_among_good, text
from test_source import worker_of

from headrace.infra.kafka import consumer_config
from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letter_counts import LetterCounts
from headrace.infra.services.dead_letters.letters import letter, letters
from headrace.infra.services.dead_letters.letters_page import letters_page
from headrace.infra.services.dead_letters.redrive import redrive, redrive_all
from headrace.infra.services.dead_letters.redrive_writer import RedriveWriter
from headrace.infra.topics import apply
from headrace.models.errors import BadInput
from headrace.models.facts import Lag, Predicted, SideRowsApplied
from headrace.models.records import REASON_HEADER, SOURCE_HEADER, TICK_HEADER
from headrace.streams.dead_letters import is_mark

EVENTS = replace(PIPELINE, features=[feature for feature in PIPELINE.features if not hasattr(feature, "topic")])
WHO = {"by": "tess@desk", "why": "the clock is right"}


@pytest.fixture
def names(settings):
    apply(settings, EVENTS, 2)
    return Names(settings.prefix, EVENTS)


def park(settings, names, records, topic=None, reason="future: it was"):
    """Letters as a worker parks them, of records that are on no topic; their sources."""
    source = topic or names.events
    letters = []
    for number, record in enumerate(records):
        headers = [*record.get("headers", []), (REASON_HEADER, reason.encode())]
        headers += [(SOURCE_HEADER, f"{source}/{record.get('from', 0)}/{number}".encode())]
        letters.append({"value": record["value"], "key": record.get("key"), "headers": headers})
    produce(settings, names.topics.dead_letters, letters, message_max_bytes=8_000_000)
    return [dict(one["headers"])[SOURCE_HEADER].decode() for one in letters]


def records_of(settings, topic):
    return [(m.key(), m.value(), m.headers()) for m in read_all(settings, topic)]


def test_a_record_goes_back_byte_for_byte_into_its_partition_and_its_letter_says_so(settings, names):
    record = {"value": b'{"id": 1}\xff', "key": b"\xff\xfe", "headers": HEADERS, "from": 1}
    other = {"value": b"another", "from": 1}
    source, _ = park(settings, names, [record, other])
    done = redrive(settings, names, [source], **WHO)
    assert (done.redriven, done.topics, done.refused) == (1, {names.events: 1}, {})
    (back,) = read_all(settings, names.events)
    found = letter(settings, names, source)
    assert (back.partition(), back.key(), back.value()) == (1, b"\xff\xfe", record["value"])
    assert back.headers() == [*HEADERS, ("headrace-redriven", found.place.encode())]
    assert (found.redriven_by, found.redriven_why) == ("tess@desk", "the clock is right")
    assert found.redriven_to == f"{names.events}/1/{back.offset()}"
    assert found.redriven_at >= found.at
    (reason,) = LetterCounts(settings, names).reasons()
    assert (reason.count, reason.open) == (2, 1)


def test_a_letter_is_redriven_once(settings, names):
    (source,) = park(settings, names, [{"value": b"one"}])
    redrive(settings, names, [source], **WHO)
    place = letter(settings, names, source).place
    for name in (source, place):
        with pytest.raises(BadInput, match=r"redriven already, 20.* by tess@desk, to .*Nothing was redriven"):
            redrive(settings, names, [name], **WHO)
    done = redrive_all(settings, names, **WHO)
    assert (done.redriven, done.already) == (0, 1)
    assert len(read_all(settings, names.events)) == 1


def test_one_letter_that_cannot_go_keeps_all_that_were_named_with_it(settings, names):
    (source,) = park(settings, names, [{"value": b"one"}])
    with pytest.raises(BadInput, match="no 'flights/7/7'"):
        redrive(settings, names, [source, "flights/7/7"], **WHO)
    assert read_all(settings, names.events) == []
    assert redrive(settings, names, [source], **WHO).redriven == 1


def test_many_go_back_in_batches_and_keep_each_keys_order(settings, names):
    values = [{"value": b"%d" % n, "key": b"k%d" % (n % 5), "from": n % 5 % 2} for n in range(1_200)]
    park(settings, names, values)
    park(settings, names, [{"value": b"of another reason"}], reason="no_time: none")
    heard = []
    done = redrive_all(settings, names, reason="future", said=heard.append, **WHO)
    assert done.redriven == 1_200
    assert len(heard) > 1
    assert heard[-1] == 1_200
    back = records_of(settings, names.events)
    for key in {record["key"] for record in values}:
        assert [v for k, v, _ in back if k == key] == [one["value"] for one in values if one["key"] == key]
    assert {one.reason: one.open for one in LetterCounts(settings, names).reasons()} == {"future": 0, "no_time": 1}


def test_those_who_redrive_at_the_same_time_put_each_record_back_once(settings, names):
    sources = park(settings, names, [{"value": b"%d" % n, "key": b"k%d" % n} for n in range(1_500)])
    together = threading.Barrier(3)

    def one():
        together.wait()
        try:
            return redrive_all(settings, names, **WHO).redriven
        except BadInput as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: one(), range(3)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) < 3
    assert all("somebody else began" in answer for answer in refused)
    back = [value for _, value, _ in records_of(settings, names.events)]
    assert sorted(back, key=int) == [b"%d" % n for n in range(len(sources))]
    assert all(one.redriven_at for one in letters(settings, names))


def test_whoever_is_overtaken_puts_nothing_back_and_says_so(settings, names, monkeypatch):
    (source,) = park(settings, names, [{"value": b"one"}])
    write = RedriveWriter.write
    overtook = []

    def overtaken(self, batch):
        if not overtook:
            overtook.append(True)
            overtook.append(redrive(settings, names, [source], by="quick", why=""))
        write(self, batch)

    monkeypatch.setattr(RedriveWriter, "write", overtaken)
    with pytest.raises(BadInput, match="somebody else began to redrive dead letters of delay"):
        redrive(settings, names, [source], **WHO)
    assert len(read_all(settings, names.events)) == 1
    assert letter(settings, names, source).redriven_by == "quick"


def test_a_mark_behind_a_workers_open_transaction_counts(settings, names):
    (source,) = park(settings, names, [{"value": b"one"}])
    place = letter(settings, names, source).place
    topic, partition, _ = place.rsplit("/", 2)
    seen = Ends(settings, topic)
    with transaction(settings) as worker, ThreadPoolExecutor(1) as pool:
        worker.produce(topic, b"of a worker", partition=int(partition), headers=[(REASON_HEADER, b"x: y")])
        worker.flush()
        mark = {"value": None, "partition": int(partition), "headers": [("headrace-redriven", place.encode())]}
        produce(settings, topic, [mark])
        assert seen() == 1  # committed readers stand before the open transaction
        started = pool.submit(redrive, settings, names, [source], **WHO)
        worker.commit_transaction(60)
        with pytest.raises(BadInput, match="redriven already"):
            started.result(60)
        worker.begin_transaction()
    assert read_all(settings, names.events) == []


def test_a_record_with_two_letters_goes_back_once_and_both_are_marked(settings, names):
    record = {"value": b"twice", "key": b"k"}
    park(settings, names, [record])
    park(settings, names, [record])
    park(settings, names, [record | {"value": b"of a topic that was made anew"}])
    done = redrive_all(settings, names, **WHO)
    assert (done.redriven, done.twins) == (2, 1)
    assert len(read_all(settings, names.events)) == 2
    assert all(one.redriven_at for one in letters(settings, names))


def test_what_cannot_go_back_is_refused_by_why_and_the_rest_goes(settings, names):
    park(settings, names, [{"value": b"good"}])
    (foreign,) = park(settings, names, [{"value": b"a row"}], topic="elsewhere")
    (tombstone,) = park(settings, names, [{"value": None, "key": b"k"}], topic=names.labels, reason="tombstone: none")
    row = [(REASON_HEADER, b"no_time: none"), (SOURCE_HEADER, b"s3://rows/0/7"), (TICK_HEADER, b"2013-07-04T11:00:00Z")]
    produce(settings, names.topics.dead_letters, [{"value": b"a row", "headers": row}])
    for source, why in [(foreign, "from 'elsewhere'"), (tombstone, "without a value"), ("s3://rows/0/7", "next tick")]:
        with pytest.raises(BadInput, match=f"{why}.*Nothing was redriven"):
            redrive(settings, names, [source], **WHO)
    done = redrive_all(settings, names, **WHO)
    assert (done.redriven, sum(done.refused.values()), len(done.refused)) == (1, 3, 3)
    (scored,) = [one for one in letters(settings, names) if one.tick]
    assert (scored.headers, scored.reason) == ((), "no_time")


def test_a_record_that_its_topic_no_longer_takes_is_told_apart_from_those_beside_it(settings, topic):
    topic("flights", 1, max_message_bytes="3000000")
    apply(settings, EVENTS)
    names = Names(settings.prefix, EVENTS)
    small = [{"value": b"%d" % number} for number in range(7)]
    large = {"value": os.urandom(2_900_000)}  # as large as a letter can be, and taken
    beyond = {"value": os.urandom(2_999_920)}
    text = {"value": b"ab" * 2_000_000}  # compressed it is small
    park(settings, names, [*small[:3], beyond, large, *small[3:]])
    park(settings, names, [text])
    done = redrive_all(settings, names, **WHO)
    assert done.redriven == 9
    ((why, count),) = done.refused.items()
    assert (count, "max.message.bytes" in why) == (1, True)
    assert {value for _, value, _ in records_of(settings, names.events)} == {
        one["value"] for one in [*small, large, text]
    }
    (left,) = [one for one in letters(settings, names) if not one.redriven_at]
    assert left.value == beyond["value"]
    with pytest.raises(BadInput, match=r"1 not redriven.*max\.message\.bytes"):
        redrive(settings, names, [left.source], **WHO)


def test_small_records_go_back_to_a_topic_that_takes_only_small_batches(settings, topic):
    topic("flights", 1, max_message_bytes="2000")
    apply(settings, EVENTS)
    names = Names(settings.prefix, EVENTS)
    park(settings, names, [{"value": os.urandom(1_000)} for _ in range(50)])
    assert redrive_all(settings, names, **WHO).redriven == 50


def test_mended_events_are_predicted_and_what_is_still_bad_is_parked_anew(settings, names):
    facts = Facts()
    strict = replace(EVENTS, max_future="1s")
    soon = {"id": "soon", "at": "2999-07-04T11:00:00Z"} | {k: v for k, v in EVENT.items() if k not in {"id", "at"}}
    with worker_of(settings, strict, facts):
        produce(settings, names.events, [{"value": msgspec.json.encode(soon), "key": b"a", "headers": HEADERS}])
        produce(settings, names.events, [{"value": b"rubbish", "key": b"b"}])
        wait_for("two letters", lambda: len(read_all(settings, names.topics.dead_letters)) == 2)
    lenient = replace(EVENTS, max_future="999999d")
    with worker_of(settings, lenient, facts):
        assert redrive_all(settings, names, **WHO).redriven == 2
        wait_for("the prediction", lambda: sum(fact.rows for fact in facts.of(Predicted)) == 1)
        wait_for("a new letter", lambda: len(parked_letters(settings, names)) == 3)
    (prediction,) = read_all(settings, names.topics.predictions)
    assert prediction.key() == b"a"
    assert prediction.headers()[: len(HEADERS)] == HEADERS
    (anew,) = [one for one in letters(settings, names) if not one.redriven_at]
    (before,) = [one for one in letters(settings, names) if one.redriven_to == anew.source]
    assert (anew.value, anew.headers) == (b"rubbish", (("headrace-redriven", before.place.encode()),))


def parked_letters(settings, names):
    return [message for message in read_all(settings, names.topics.dead_letters) if not is_mark(message)]


def test_a_redriven_event_at_its_topics_end_leaves_no_lag(settings, names):
    """Behind it is the mark of its transaction, which no reader is shown."""
    (source,) = park(settings, names, [{"value": text(EVENT), "key": b"k"}])
    facts = Facts()
    with worker_of(settings, EVENTS, facts):
        redrive(settings, names, [source], **WHO)
        wait_for("the prediction", lambda: facts.of(Predicted))
        facts.wait(Lag, lambda fact: fact.topic == names.events and fact.partition == 0)
        facts.all.clear()
        assert facts.wait(Lag, lambda fact: fact.partition == 0).records == 0
    asker = Consumer(consumer_config(settings, "asker"))
    assert asker.get_watermark_offsets(TopicPartition(names.events, 0), timeout=60)[1] == 2
    asker.close()


def test_labels_and_side_rows_go_back_onto_their_own_topics(settings):
    apply(settings, PIPELINE)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    departures = names.of("departures")
    sources = park(settings, names, [{"value": text(LABEL)}], topic=names.labels)
    sources += park(settings, names, [{"value": text(ROW)}], topic=departures)
    with worker_of(settings, PIPELINE, facts):
        done = redrive(settings, names, sources, **WHO)
        assert done.topics == {names.labels: 1, departures: 1}
        wait_for("the row", lambda: sum(fact.rows for fact in facts.of(SideRowsApplied)) == 1)
    assert [value for _, value, _ in records_of(settings, names.labels)] == [text(LABEL)]


def test_every_kind_of_poison_with_a_value_can_be_redriven_as_it_was(settings, names):
    facts = Facts()
    with worker_of(settings, EVENTS, facts):
        send_among_good(settings, names.events, BAD_EVENTS, text(EVENT))
        wait_for("the letters", lambda: len(parked(settings, names, names.events)) == len(BAD_EVENTS))
    sent = read_all(settings, names.events)
    done = redrive_all(settings, names, **WHO)
    assert (done.redriven, list(done.refused.values())) == (len(BAD_EVENTS) - 1, [1])
    back = read_all(settings, names.events)
    values = [m.value() for m in back if dict(m.headers() or []).get("headrace-redriven")]
    assert sorted(values) == sorted(m.value() for m in sent if m.headers() and m.value() is not None)


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_have_every_letter_once_newest_first_with_what_was_redriven(settings, names):
    base = 1_700_000_000_000
    topic = names.topics.dead_letters
    records = [
        {
            "value": b"n%d" % number,
            "key": b"k%d" % number,
            "timestamp": base + number,
            "headers": [(REASON_HEADER, b"future: x"), (SOURCE_HEADER, f"{names.events}/0/{number}".encode())],
        }
        for number in range(300)
    ]
    produce(settings, topic, records)
    redrive(settings, names, [f"{names.events}/0/{number}" for number in (0, 150, 299)], **WHO)
    found, before = [], ""
    while not found or before:
        page = letters_page(settings, names, limit=70, before=before)
        assert page.looked_at <= 1_000
        found += page.letters
        before = page.before
    assert [one.value for one in found] == [b"n%d" % number for number in reversed(range(300))]
    assert [one.value for one in found if one.redriven_at] == [b"n299", b"n150", b"n0"]


def test_a_page_finds_text_in_keys_values_and_sources_and_says_how_much_it_looked_at(settings, names):
    park(settings, names, [{"value": b'{"id":"e%d"}' % n, "key": b"key-%d" % n, "from": n % 2} for n in range(500)])
    park(settings, names, [{"value": b"x", "key": b"e7"}], reason="no_time: none")
    seek = lambda **how: [one.source for one in letters_page(settings, names, limit=10, **how).letters]  # noqa: E731
    assert seek(search='"e7"') == [f"{names.events}/1/7"]
    assert seek(search="key-499") == [f"{names.events}/1/499"]
    assert seek(search="/0/498") == [f"{names.events}/0/498"]
    assert seek(reason="no_time") == [f"{names.events}/0/0"]
    assert seek(search="nowhere") == []
    assert letters_page(settings, names, limit=10, search="nowhere").looked_at == 501
    little = letters_page(settings, names, limit=10, search='"e7"', look_at=100)
    assert little.looked_at < 501
    assert little.before
    with pytest.raises(BadInput, match="cursor of a former page"):
        letters_page(settings, names, limit=10, before="7:x")
