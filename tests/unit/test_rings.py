"""Which rings a pipeline needs, and under which key an entity's rows lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.errors import DeclarationError
from headrace.models.features import Aggregate, Lookup, Topic
from headrace.streams.rings import entity_text, ring_keys, rings_of

HOUR, DAY = 3_600_000, 86_400_000  # ms
DEPARTURES = Topic("departures", time="departed_at")
BY_BOTH = Aggregate(DEPARTURES, "delay", "mean", over="2h", by=["origin", "carrier"])


def test_aggregates_of_one_field_by_one_entity_share_a_ring_that_keeps_the_longest_window_and_lateness():
    shared = [
        Aggregate(DEPARTURES, "delay", "mean", over="2h", by="origin"),
        Aggregate(DEPARTURES, "delay", "max", over="12h", by="origin"),
        Aggregate(DEPARTURES, "delay", "sum", over="3h", by="origin", lateness="1d"),
    ]
    ((ring, readers),) = rings_of(shared).items()
    assert readers == tuple(shared)
    assert (ring.keep_ms, ring.keep_last, ring.width) == (12 * HOUR + 2 * DAY, False, 16)


def test_another_field_entity_topic_or_kind_is_another_ring():
    weather = Topic("weather", time="departed_at")
    features = [
        Aggregate(DEPARTURES, "delay", "mean", over="2h", by="origin"),
        Aggregate(DEPARTURES, "taxi", "mean", over="2h", by="origin"),
        Aggregate(DEPARTURES, "delay", "mean", over="2h", by="carrier"),
        Aggregate(weather, "delay", "mean", over="2h", by="origin"),
        Lookup(DEPARTURES, by="origin", fields=["delay"]),
    ]
    assert len({ring.id for ring in rings_of(features)}) == len(features)


def test_a_lookup_without_max_age_keeps_the_newest_row_and_one_with_it_need_not():
    ((ring, _),) = rings_of([Lookup(DEPARTURES, by="origin", fields=["delay"])]).items()
    assert (ring.keep_ms, ring.keep_last) == (2 * DAY, True)
    ((ring, _),) = rings_of([Lookup(DEPARTURES, by="origin", fields=["delay"], max_age="3h")]).items()
    assert (ring.keep_ms, ring.keep_last) == (2 * DAY + 3 * HOUR, False)


def test_the_order_of_by_and_of_fields_makes_no_other_ring():
    one = Lookup(DEPARTURES, by=["origin", "carrier"], fields=["delay", "taxi"])
    other = Lookup(DEPARTURES, by=["carrier", "origin"], fields=["taxi", "delay"], max_age="1h")
    assert len(rings_of([one, other])) == 1


def test_a_longer_window_goes_on_with_the_same_ring():
    ids = [rings_of([Aggregate(DEPARTURES, "delay", "mean", over=over, by="origin")]) for over in ("2h", "9h")]
    assert [ring.id for rings in ids for ring in rings] == ["a8185e1436c"] * 2  # fixed: it is what lies in users' Redis


def test_a_topics_own_time_identifies_no_entity():
    with pytest.raises(DeclarationError, match="identifies no entity"):
        rings_of([Lookup(DEPARTURES, by="departed_at", fields=["delay"])])


texts = st.text(st.characters(codec="utf-8") | st.sampled_from(":0123456789\ud800"), max_size=6)


@given(st.lists(st.tuples(texts, texts), unique=True, min_size=2, max_size=20))
def test_no_two_entities_share_a_key(entities):
    ((ring, _),) = rings_of([BY_BOTH]).items()
    assert len({ring.key(entity) for entity in entities}) == len(entities)


def test_numbers_and_booleans_have_one_text_however_their_producer_writes_them():
    assert [entity_text(value) for value in (3, 3.0, "3", -0.0, 2.5, True, False, 10**22, 1e22)] == [
        *("3", "3", "3", "0", "2.5", "true", "false", "10000000000000000000000", "10000000000000000000000")
    ]


def test_a_chunk_reads_each_ring_once_and_an_event_without_an_entity_reads_none():
    ((ring, _),) = rings_of([BY_BOTH]).items()
    keys, index = ring_keys(ring, {"origin": ["EWR", "JFK", "EWR", None, "EWR"], "carrier": [1, "UA", 1.0, "UA", None]})
    assert keys == [ring.key(("1", "EWR")), ring.key(("UA", "JFK"))]
    assert index.tolist() == [0, 1, 0, -1, -1]
