"""Served rows and labels as they come, in any order."""

import numpy as np
import pytest

from headrace.models.features import Topic
from headrace.models.labels import Binary, Regression
from headrace.streams.codec import LabelRow
from headrace.streams.live_join import LiveJoin
from headrace.streams.served import served_batch, served_schema

HOUR = 3_600_000  # ms, the horizon
T = 1_372_939_200_000  # Unix ms
LABELS = Topic("labels", id="id", time="at")
DROP = Binary(LABELS, "y", within="1h", if_absent="drop")
SILENCE_IS_0 = Binary(LABELS, "y", within="1h", if_absent=0)
SCHEMA = served_schema(())


def served(*rows, version=1, partition=2):
    """Rows as (id, time, offset)."""
    ids, times, offsets = zip(*rows, strict=True)
    return served_batch(
        SCHEMA,
        ids=ids,
        times=np.array(times),
        partition=partition,
        offsets=offsets,
        version=version,
        scores=np.array(offsets) / 10,
        columns={},
    )


def label(row_id, after=0, value=1.0):
    return LabelRow(row_id, T + after, value)


def said(joined):
    return [(row.id, row.label, row.source) for row in joined]


def test_a_label_after_its_row_joins_with_all_that_a_metric_needs():
    join = LiveJoin(DROP)
    assert join.served(served(("a", T, 5))) == []
    (row,) = join.labels([label("a", after=7)])
    assert (row.id, row.time, row.label_time, row.score, row.label) == ("a", T, T + 7, 0.5, 1.0)
    assert (row.version, row.source) == (1, (2, 5))
    assert (join.joined, join.open, join.unknown) == (1, 0, 0)


def test_a_label_before_its_row_waits_for_it():
    join = LiveJoin(DROP)
    assert join.labels([label("a", after=7)]) == []
    assert join.unknown == 1
    assert said(join.served(served(("a", T, 5)))) == [("a", 1.0, (2, 5))]
    assert join.unknown == 0


def test_the_first_label_wins_and_later_ones_are_counted():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5)))
    assert said(join.labels([label("a", after=1, value=0.0), label("a", after=2)])) == [("a", 0.0, (2, 5))]
    assert join.labels([label("a", after=3)]) == []
    assert (join.joined, join.repeated) == (1, 2)


def test_of_labels_that_were_there_before_their_row_the_earliest_wins():
    join = LiveJoin(DROP)
    join.labels([label("a", after=2, value=0.0), label("a", after=1)])
    assert said(join.served(served(("a", T, 5)))) == [("a", 1.0, (2, 5))]


def test_a_source_that_was_served_twice_counts_once():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5)))
    join.served(served(("a", T, 5), version=2))
    assert join.open == 1
    assert said(join.labels([label("a")])) == [("a", 1.0, (2, 5))]


def test_one_id_of_two_sources_is_two_rows():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5), ("a", T + 1, 6)))
    assert said(join.labels([label("a", after=1)])) == [("a", 1.0, (2, 5)), ("a", 1.0, (2, 6))]


@pytest.mark.parametrize("after", [0, HOUR])
def test_both_ends_of_the_horizon_belong_to_it(after):
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5)))
    assert len(join.labels([label("a", after=after)])) == 1


def test_a_label_from_before_its_event_is_not_used():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5)))
    assert join.labels([label("a", after=-1)]) == []
    assert join.open == 1


def test_a_label_after_the_horizon_is_late():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5)))
    assert join.labels([label("a", after=HOUR + 1)]) == []
    assert (join.late, join.never_came, join.open) == (1, 1, 0)


def test_where_silence_says_nothing_a_closed_horizon_drops_the_row():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5), ("b", T + 9, 6)))
    assert join.labels([label("other", after=HOUR + 1)]) == []
    assert (join.never_came, join.open) == (1, 1)


def test_where_silence_is_a_value_a_closed_horizon_is_that_label():
    join = LiveJoin(SILENCE_IS_0)
    join.served(served(("a", T, 5), ("b", T, 6), ("c", T + 9, 7)))
    found = join.labels([label("b", after=3), label("other", after=HOUR + 1)])
    assert said(found) == [("b", 1.0, (2, 6)), ("a", 0.0, (2, 5))]
    assert found[1].label_time == T + HOUR
    assert (join.joined, join.never_came, join.open) == (2, 0, 1)


def test_the_value_of_silence_may_be_any_number():
    join = LiveJoin(Regression(LABELS, "y", within="1h", if_absent=-2.5))
    join.served(served(("a", T, 5)))
    assert said(join.labels([label("other", after=HOUR + 1)])) == [("a", -2.5, (2, 5))]


def test_a_sample_looks_at_the_same_ids_in_both_topics():
    ids = [f"id-{number}" for number in range(2_000)]
    join = LiveJoin(DROP, sample=0.25)
    join.served(served(*[(row_id, T, place) for place, row_id in enumerate(ids)]))
    joined = join.labels([label(row_id) for row_id in ids])
    assert 400 < len(joined) < 600
    assert (join.open, join.unknown) == (0, 0)


def test_a_label_from_before_the_event_does_not_hide_one_that_matches():
    join = LiveJoin(DROP)
    join.labels([label("a", after=-1, value=0.0), label("a", after=4)])
    assert said(join.served(served(("a", T, 5)))) == [("a", 1.0, (2, 5))]


def test_a_second_row_of_an_id_joins_with_the_label_that_the_first_one_had():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5)))
    join.labels([label("a", after=4)])
    assert said(join.served(served(("a", T + 1, 6)))) == [("a", 1.0, (2, 6))]


def test_labels_that_nobody_was_served_for_are_forgotten_when_their_horizon_has_passed():
    join = LiveJoin(DROP)
    join.labels([label(f"stranger-{number}") for number in range(100)])
    assert join.unknown == 100
    join.served(served(("a", T + HOUR + 1, 5)))
    assert join.unknown == 0


def test_an_event_that_is_asked_for_and_on_the_stream_counts_once_as_the_streams():
    for first, second in ((-1, 2), (2, -1)):
        join = LiveJoin(DROP)
        join.served(served(("a", T, 5), partition=first))
        join.served(served(("a", T, 6), partition=second))
        (row,) = join.labels([label("a")])
        assert row.source[0] == 2
        assert (join.joined, join.open, join.asked_again, join.repeated) == (1, 0, 1, 0)
        assert join.served(served(("a", T, 7), partition=-4)) == []
        assert join.labels([label("b", after=2 * HOUR)]) == []
        assert (join.open, join.never_came) == (0, 0)


def test_one_that_was_joined_before_the_stream_served_it_stays_what_it_was():
    join = LiveJoin(DROP)
    join.served(served(("a", T, 5), partition=-1))
    assert said(join.labels([label("a")])) == [("a", 1.0, (-1, 5))]
    assert join.served(served(("a", T, 6))) == []
    assert (join.joined, join.open, join.asked_again) == (1, 0, 1)


def test_what_is_asked_for_again_counts_as_it_was_first():
    join = LiveJoin(DROP)
    for offset in (5, 6):
        join.served(served(("a", T, offset), partition=-1))
    assert said(join.labels([label("a")])) == [("a", 1.0, (-1, 5))]
    assert (join.joined, join.open, join.asked_again) == (1, 0, 1)


def test_silence_about_one_that_was_asked_for_counts_once():
    join = LiveJoin(SILENCE_IS_0)
    join.served(served(("a", T, 5), partition=-1))
    join.served(served(("a", T, 6)))
    assert said(join.labels([label("b", after=3 * HOUR)])) == [("a", 0.0, (2, 6))]


def test_of_one_that_was_asked_for_at_another_time_the_row_with_the_earlier_event_time_counts():
    for asked, expected in ((T - 1, (-1, 5)), (T + 1, (2, 6))):
        for first in (0, 1):
            join, rows = LiveJoin(DROP), [served(("a", asked, 5), partition=-1), served(("a", T, 6))]
            for batch in (rows[first], rows[1 - first]):
                join.served(batch)
            assert said(join.labels([label("a", after=7)])) == [("a", 1.0, expected)]
            assert (join.open, join.asked_again) == (0, 1)
