"""Dead letters are counted exactly, and none twice, however the topic grows and shrinks."""

from collections import Counter
from time import monotonic

import pytest
from confluent_kafka import TopicPartition
from kit import produce, transaction
from test_redrive import EVENTS, WHO, park

from headrace.infra.kafka import admin
from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letter_counts import Counted, LetterCounts
from headrace.infra.services.dead_letters.letters import letters
from headrace.infra.services.dead_letters.redrive import redrive, redrive_all
from headrace.infra.services.watch.letter_rates import LetterRates
from headrace.infra.topic_reader import ends_of
from headrace.infra.topics import apply
from headrace.models.records import REASON_HEADER, REDRIVEN_HEADER, SOURCE_HEADER


@pytest.fixture
def names(settings):
    apply(settings, EVENTS, 2)
    return Names(settings.prefix, EVENTS)


def counted(counts):
    return {one.reason: (one.count, one.open) for one in counts.reasons()}


def one_by_one(settings, names):
    """The same, from the letters themselves."""
    found = list(letters(settings, names))
    count, unmarked = Counter(one.reason for one in found), Counter(one.reason for one in found if not one.redriven_at)
    return {reason: (count[reason], unmarked[reason]) for reason in count}


def test_what_comes_is_counted_from_where_it_was_read_to(settings, names):
    counts = LetterCounts(settings, names)
    assert counted(counts) == {}
    sources = park(settings, names, [{"value": b"%d" % n, "key": b"k%d" % n} for n in range(300)])
    assert counted(counts) == {"future": (300, 300)}
    with transaction(settings) as producer:  # its mark is no letter
        for n in range(20):
            headers = [(REASON_HEADER, b"no_time: none"), (SOURCE_HEADER, b"%s/1/%d" % (names.events.encode(), n))]
            producer.produce(names.topics.dead_letters, b"x", b"k%d" % n, headers=headers)
    redrive(settings, names, sources[:7], **WHO)  # nor are these
    assert counted(counts) == {"future": (300, 293), "no_time": (20, 20)} == one_by_one(settings, names)
    redrive_all(settings, names, **WHO)
    assert counted(counts) == {"future": (300, 0), "no_time": (20, 0)} == one_by_one(settings, names)
    assert counts.counted == Counted(letters=320, open=0, parked=320)  # none was read again
    assert [one.newest.rpartition("/")[0] for one in counts.reasons()] == [f"{names.events}/{n}" for n in (0, 1)]


def test_what_retention_took_is_counted_no_longer(settings, names):
    counts = LetterCounts(settings, names)
    park(settings, names, [{"value": b"%d" % n, "key": b"k%d" % n} for n in range(100)], reason="no_time: none")
    park(settings, names, [{"value": b"other %d" % n, "key": b"k%d" % n} for n in range(60)])
    redrive_all(settings, names, reason="no_time", **WHO)
    assert counted(counts) == {"no_time": (100, 0), "future": (60, 60)}
    topic, client = names.topics.dead_letters, admin(settings)
    ends = ends_of(settings, [topic])
    first = min(one.place.rpartition("/")[2] for one in letters(settings, names) if one.reason == "future")
    for result in client.delete_records([TopicPartition(topic, 0, int(first))]).values():
        result.result(30)
    assert counted(counts) == one_by_one(settings, names)
    for result in client.delete_records([TopicPartition(*place, end) for place, end in ends.items()]).values():
        result.result(30)
    assert counted(counts) == {}
    assert counts.counted == Counted(letters=0, open=0, parked=160)


def test_a_topic_that_was_made_anew_is_counted_anew(settings, names):
    counts = LetterCounts(settings, names)
    park(settings, names, [{"value": b"%d" % n} for n in range(50)])
    assert counted(counts) == {"future": (50, 50)}
    client = admin(settings)
    for result in client.delete_topics([names.topics.dead_letters]).values():
        result.result(30)
    apply(settings, names.pipeline, 2)
    park(settings, names, [{"value": b"x"}], reason="no_time: none")
    assert counted(counts) == {"no_time": (1, 1)}


@pytest.mark.parametrize(
    "place", ["", "x", "{topic}", "{topic}/0", "{topic}/-1/0", "{topic}/9/0", "other/0/0", "{topic}/0/zero"]
)
def test_a_mark_that_nobody_of_ours_wrote_changes_nothing(settings, names, place):
    park(settings, names, [{"value": b"x"}])
    said = place.format(topic=names.topics.dead_letters)
    produce(settings, names.topics.dead_letters, [{"value": None, "headers": [(REDRIVEN_HEADER, said.encode())]}])
    assert counted(LetterCounts(settings, names)) == {"future": (1, 1)}


def test_a_look_that_has_no_time_left_goes_on_at_the_next_one(settings, names):
    rates = LetterRates(settings, [names], 0.0)
    park(settings, names, [{"value": b"x"}])
    ends = {names.topics.dead_letters: 1}
    rates.look(0.0, ends)
    assert rates.of("delay").counted is None
    rates.of("delay").follow(1, monotonic() + 30)
    assert rates.of("delay").counted == Counted(letters=1, open=1, parked=1)


def test_a_rate_is_of_letters_alone(settings, names):
    rates = LetterRates(settings, [names], 30.0)

    def look(at):
        ends = ends_of(settings, [names.topics.dead_letters])
        rates.look(at, {names.topics.dead_letters: sum(ends.values())})
        return rates.rate("delay")

    assert look(0.0) is None
    park(settings, names, [{"value": b"%d" % n} for n in range(40)])
    assert look(4.0) == 10.0
    redrive_all(settings, names, **WHO)
    assert look(8.0) == 5.0  # of the last twelve seconds; the marks are none
