"""What a feature sees: [t - reach, t) of its entity's rows, and nothing that depends on how they got there."""

import math
import random
from struct import pack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.features import Aggregate, Lookup, Topic
from headrace.streams.asof import columns_as_of
from headrace.streams.rings import rings_of

DEPARTURES = Topic("departures", time="departed_at")
OVER = [5_000, 20_000]
STATISTICS = ["mean", "sum", "count", "min", "max"]
AGGREGATES = [
    Aggregate(DEPARTURES, "delay", statistic, over=f"{over // 1000}s", by="origin")
    for over in OVER
    for statistic in STATISTICS
]
RECENT = [Lookup(DEPARTURES, by="origin", fields=["delay", "crew"], max_age="20s")]
LATEST = [Lookup(DEPARTURES, by="origin", fields=["delay", "crew"])]

EPOCH = 1_372_939_200_000  # Unix ms
times = st.integers(0, 60).map(lambda second: EPOCH + 1_000 * second)  # few of them: rows and events often meet
exact = st.integers(-512, 512).map(lambda number: number / 8)  # sums of these have no rounding, in whatever order
doubles = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 0.1, 1e16, -1e16])
events = st.lists(st.tuples(st.integers(-1, 2), times), min_size=1, max_size=30)

fuzz = settings(deadline=None, max_examples=50)


def rows_of(*values):
    """Rows of three entities, in order of arrival."""
    return st.lists(st.lists(st.tuples(times, *values), max_size=40), min_size=3, max_size=3)


def packed(rows):
    return b"".join(pack(f"<q{len(row) - 1}d", *row) for row in rows) or None


def read(features, rows, asked):
    ((ring, readers),) = rings_of(features).items()
    entity = np.array([place for place, _ in asked], np.intp)
    at = np.array([time for _, time in asked], np.int64)
    return columns_as_of(ring, readers, [packed(of_entity) for of_entity in rows], entity, at)


def bits(columns):
    return {name: column.tobytes() for name, column in columns.items()}


def window(rows, entity, start, end):
    return sorted(row for row in rows[entity] if start <= row[0] < end) if entity >= 0 else []


def statistic_of(name, values):
    if name == "count":
        return float(len(values))
    if name == "sum":
        return sum(values, 0.0)
    if not values:
        return math.nan
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}[name]


@fuzz
@given(rows_of(exact), events)
def test_an_aggregate_is_the_statistic_of_the_rows_in_its_window_by_the_plainest_code(rows, asked):
    columns = read(AGGREGATES, rows, asked)
    for over in OVER:
        windows = [[value for _, value in window(rows, entity, at - over, at)] for entity, at in asked]
        for statistic in STATISTICS:
            expected = np.array([statistic_of(statistic, values) + 0.0 for values in windows])
            np.testing.assert_array_equal(columns[f"departures_delay_{statistic}_{over // 1000}s_by_origin"], expected)


@fuzz
@given(rows_of(doubles), events)
def test_a_sum_of_any_doubles_is_the_true_one_up_to_rounding(rows, asked):
    rows = [[(time, value) for time, value in of_entity if abs(value) < 1e300] for of_entity in rows]
    columns = read(AGGREGATES, rows, asked)
    for row, (entity, at) in enumerate(asked):
        values = [value for _, value in window(rows, entity, at - OVER[0], at)]
        error = 1e-14 * math.fsum(map(abs, values))
        assert columns["departures_delay_sum_5s_by_origin"][row] == pytest.approx(math.fsum(values), rel=0, abs=error)


@fuzz
@given(rows_of(exact, exact | st.just(math.nan)), events, st.sampled_from([RECENT, LATEST]))
def test_a_lookup_is_the_newest_row_before_the_event_that_is_not_too_old(rows, asked, features):
    columns = read(features, rows, asked)
    reach = features[0].max_age_ms or 10**15
    for row, (entity, at) in enumerate(asked):
        seen = [row for row in rows[entity] if at - reach <= row[0] < at] if entity >= 0 else []
        # rings hold fields by name: crew, delay; of rows with one time the greatest counts, a missing value above all
        newest = max(seen, key=lambda r: (r[0], *((math.isnan(v), v) for v in r[1:])), default=(0, math.nan, math.nan))
        found = [columns[f"departures_{field}_by_origin"][row] for field in ("crew", "delay")]
        np.testing.assert_array_equal(found, newest[1:])


@fuzz
@given(rows_of(doubles), events, st.randoms(use_true_random=False))
def test_aggregates_have_the_same_bits_in_whatever_order_the_rows_arrived(rows, asked, chance):
    shuffled = [chance.sample(of_entity, len(of_entity)) for of_entity in rows]
    assert bits(read(AGGREGATES, shuffled, asked)) == bits(read(AGGREGATES, rows, asked))


@fuzz
@given(rows_of(doubles, doubles), events, st.randoms(use_true_random=False), st.sampled_from([RECENT, LATEST]))
def test_lookups_have_the_same_bits_in_whatever_order_the_rows_arrived(rows, asked, chance, features):
    shuffled = [chance.sample(of_entity, len(of_entity)) for of_entity in rows]
    assert bits(read(features, shuffled, asked)) == bits(read(features, rows, asked))


@fuzz
@given(rows_of(doubles), events, st.randoms(use_true_random=False))
def test_aggregates_have_the_same_bits_wherever_the_rings_were_trimmed(rows, asked, chance):
    needed = min(at for _, at in asked) - max(OVER)
    kept = [[row for row in of_entity if row[0] >= needed or chance.random() < 0.5] for of_entity in rows]
    assert bits(read(AGGREGATES, kept, asked)) == bits(read(AGGREGATES, rows, asked))


@fuzz
@given(rows_of(doubles, doubles), events, st.randoms(use_true_random=False))
def test_a_lookup_without_max_age_needs_but_the_newest_of_the_rows_behind_the_cutoff(rows, asked, chance):
    cutoff = min(at for _, at in asked)
    kept = []
    for of_entity in rows:
        last = max((time for time, *_ in of_entity if time < cutoff), default=cutoff)
        kept.append([row for row in of_entity if row[0] >= last or chance.random() < 0.5])
    assert bits(read(LATEST, kept, asked)) == bits(read(LATEST, rows, asked))


@fuzz
@given(rows_of(doubles), events, st.data())
def test_events_get_the_same_bits_however_they_are_chunked(rows, asked, data):
    cut = data.draw(st.integers(0, len(asked)))
    whole = read(AGGREGATES, rows, asked)
    parts = [read(AGGREGATES, rows, part) for part in (asked[:cut], asked[cut:])]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    assert bits(joined) == bits(whole)


@fuzz
@given(rows_of(doubles), events)
def test_an_entity_gets_the_same_bits_whichever_others_share_its_chunk(rows, asked):
    whole = read(AGGREGATES, rows, asked)
    for row, (entity, at) in enumerate(asked):
        alone = read(AGGREGATES, [rows[entity]], [(0, at)]) if entity >= 0 else read(AGGREGATES, [[]], [(-1, at)])
        assert all(alone[name].tobytes() == whole[name][row].tobytes() for name in whole)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_long_windows_have_the_same_bits_too_where_numpy_sums_in_blocks(seed):
    chance = random.Random(seed)
    rows = [[(EPOCH + chance.randrange(60_000), chance.gauss(0, 1e6)) for _ in range(1_000)] for _ in range(3)]
    asked = [(chance.randrange(-1, 3), EPOCH + chance.randrange(60_000)) for _ in range(20)]
    shuffled = [chance.sample(of_entity, len(of_entity)) for of_entity in rows]
    whole = read(AGGREGATES, rows, asked)
    assert bits(read(AGGREGATES, shuffled, asked)) == bits(whole)
    for row in range(len(asked)):
        alone = read(AGGREGATES, shuffled, asked[row : row + 1])
        assert all(alone[name].tobytes() == whole[name][row].tobytes() for name in whole)


def test_a_row_of_the_events_own_time_is_not_seen_and_one_as_old_as_the_window_is():
    rows = [[(EPOCH, 1.0), (EPOCH - 5_000, 2.0), (EPOCH - 5_001, 4.0)]]
    assert read(AGGREGATES, rows, [(0, EPOCH)])["departures_delay_sum_5s_by_origin"] == [2.0]


def test_where_nothing_is_known_counts_and_sums_are_0_and_the_rest_is_missing():
    for rows, entity in (([], -1), ([[]], 0), ([[(EPOCH + 1, 3.0)]], 0), ([[(EPOCH - 9_000, 3.0)]], -1)):
        columns = read(AGGREGATES, rows, [(entity, EPOCH)])
        assert columns["departures_delay_count_5s_by_origin"] == [0.0]
        assert columns["departures_delay_sum_5s_by_origin"] == [0.0]
        for statistic in ("mean", "min", "max"):
            assert np.isnan(columns[f"departures_delay_{statistic}_5s_by_origin"]).all()
        lookups = read(LATEST, [[(*row, 1.0) for row in of_entity] for of_entity in rows], [(entity, EPOCH)])
        assert all(np.isnan(column).all() for column in lookups.values())


def test_a_chunk_without_events_has_empty_columns():
    columns = read(AGGREGATES, [[(EPOCH, 1.0)]], [])
    assert len(columns) == len(AGGREGATES)
    assert all(column.shape == (0,) and column.dtype == np.float64 for column in columns.values())


def test_a_sum_beyond_all_doubles_is_infinite_and_harms_no_neighbour():
    rows = [[(EPOCH, 1.5e308), (EPOCH + 1, 1.5e308)], [(EPOCH, 1.0)]]
    columns = read(AGGREGATES, rows, [(0, EPOCH + 2), (1, EPOCH + 2)])
    assert columns["departures_delay_sum_5s_by_origin"].tolist() == [math.inf, 1.0]


def test_zeros_of_both_signs_are_one_value():
    for order in ([0.0, -0.0], [-0.0, 0.0]):
        columns = read(AGGREGATES, [[(EPOCH, value) for value in order]], [(0, EPOCH + 1)])
        assert not np.signbit([*columns.values()]).any()
        columns = read(LATEST, [[(EPOCH, value, value) for value in order]], [(0, EPOCH + 1)])
        assert not np.signbit([*columns.values()]).any()
