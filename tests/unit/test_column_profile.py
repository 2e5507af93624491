"""What columns of served rows are like, on tables made by hand, and how far they are from a reference."""

import math
from itertools import pairwise

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.services.data.profiled import Collected
from headrace.models.column_stats import QUANTILES, category_facts, number_facts
from headrace.models.drift import SCORE, distances, reference_of
from headrace.models.features import Column
from headrace.models.schema import Schema

RANDOM = np.random.default_rng(11)
NUMBER, CATEGORY = Column("distance", "number"), Column("carrier", "category")
USUAL = st.floats(-1e6, 1e6, allow_subnormal=False)
ANY = st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 5e-324, 0.0, -0.0]))


def table(rows, **columns):
    there = {"id": [f"e{n}" for n in range(rows)], SCORE: RANDOM.random(rows)} | columns
    return pa.RecordBatch.from_pydict(there)


def profiles(*batches, declared=(), reference=None):
    collected = Collected(declared)
    for batch in batches:
        collected.add(batch)
    return {one.name: one for one in collected.profiles(reference)}


@given(st.lists(USUAL, min_size=1, max_size=300))
def test_a_numbers_figures_are_numpys(values):
    given_, found = np.array(values), number_facts(np.array(values))
    close = pytest.approx
    assert found.mean == close(given_.mean(), rel=1e-9, abs=1e-9)
    assert found.std == close(given_.std(), rel=1e-6, abs=1e-6)
    assert (found.min, found.max) == (given_.min(), given_.max())
    quantiles = np.quantile(given_, list(QUANTILES.values()))
    assert list(found.quantiles.values()) == close(quantiles.tolist(), rel=1e-12, abs=1e-9)


@given(st.lists(ANY, max_size=60))
def test_no_number_whatever_makes_a_profile_fail_or_say_nan(values):
    given_ = np.array(values, np.float64)
    found = number_facts(given_)
    assert found.infinite == np.isinf(given_).sum()
    there = given_[np.isfinite(given_)]
    assert sum(found.histogram.counts) == len(there)
    told = [found.mean, found.std, found.min, found.max, *found.quantiles.values(), *found.histogram.edges]
    if len(there):
        assert all(math.isfinite(one) for one in told)
        assert found.min <= found.quantiles["p1"] <= found.quantiles["p50"] <= found.quantiles["p99"] <= found.max
        assert found.min <= found.mean <= found.max
        assert len(found.histogram.edges) == len(found.histogram.counts) + 1
    else:
        assert set(told) == {None}


@given(st.lists(USUAL, min_size=2, max_size=300, unique=True))
def test_a_histogram_counts_every_value_between_its_edges(values):
    found = number_facts(np.array(values)).histogram
    given_, (*lower, last) = np.array(values), found.edges
    expected = [((low <= given_) & (given_ < high)).sum() for low, high in pairwise([*lower, np.inf])]
    assert (lower[0], last) == (given_.min(), given_.max())
    assert list(found.counts) == expected


def test_equal_values_are_one_bin_and_none_is_no_bin():
    constant, nothing = number_facts(np.full(9, 0.1)), number_facts(np.array([np.nan, np.nan]))
    assert (constant.std, constant.mean, constant.histogram.counts) == (0.0, pytest.approx(0.1), (9,))
    assert constant.histogram.edges == (0.1, 0.1)
    assert (nothing.mean, nothing.quantiles, nothing.histogram.counts) == (None, {}, ())


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(1, 9)), unique_by=lambda one: one[0]))
def test_a_categorys_values_are_ranked_and_the_rest_is_counted(counts):
    found = category_facts(counts)
    rows = sum(count for _, count in counts)
    assert found.distinct == len(counts)
    assert sum(one.rows for one in found.top) + found.others == rows
    assert [one.rows for one in found.top] == sorted((count for _, count in counts), reverse=True)[:20]
    assert all(one.share == pytest.approx(one.rows / rows) for one in found.top)


def test_missing_rows_and_rows_that_lack_a_column_are_told_apart():
    newer = table(4, distance=[1.0, None, math.nan, math.inf], carrier=["UA", None, "UA", "AA"])
    found = profiles(newer, table(6), declared=[NUMBER, CATEGORY])
    distance, carrier = found["distance"], found["carrier"]
    assert (distance.rows, distance.lacking, distance.missing, distance.number.infinite) == (4, 6, 2, 1)
    assert distance.missing_share == 0.5
    assert (distance.number.min, distance.number.max) == (1.0, 1.0)
    assert (carrier.rows, carrier.lacking, carrier.missing) == (4, 6, 1)
    assert [(one.value, one.rows) for one in carrier.category.top] == [("UA", 2), ("AA", 1)]
    assert (found[SCORE].rows, found[SCORE].lacking) == (10, 0)


def test_no_rows_at_all_are_a_profile_of_the_declared_columns():
    reference = reference_of(Schema((NUMBER, CATEGORY)), _trained(100), RANDOM.random(100))
    for against in (None, reference):
        found = profiles(declared=[NUMBER, CATEGORY, Column("image", "tensor", shape=(2, 2))], reference=against)
        assert list(found) == ["distance", "carrier", "image", SCORE]
        assert {one.rows for one in found.values()} == {0}
        assert {one.missing_share for one in found.values()} == {None}
    assert found["distance"].against.psi is None
    assert not found["distance"].against.significant
    assert sum(one.trained for one in found["distance"].against.bins) == 100
    msgspec.json.encode(list(found.values()))


def test_a_column_that_is_always_missing_has_no_figures():
    found = profiles(table(3, distance=pa.array([None] * 3, pa.float64()), carrier=pa.array([None] * 3, pa.string())))
    assert found["distance"].missing_share == found["carrier"].missing_share == 1.0
    assert found["distance"].number.mean is None
    assert (found["carrier"].category.distinct, found["carrier"].category.top) == (0, ())


def test_of_a_tensor_there_are_shape_missing_share_and_figures_over_all_its_numbers():
    kind = pa.list_(pa.float32(), 4)
    first = table(3, image=pa.array([[1, 2, 3, 4], None, [5, math.nan, math.inf, 8]], kind))
    second = table(1, image=pa.array([[-1, 0, 0, 0]], kind))
    (found,) = [profiles(first, second, declared=[Column("image", "tensor", shape=(2, 2))])["image"]]
    assert (found.rows, found.missing, found.tensor.not_finite, found.tensor.shape) == (4, 1, 2, (2, 2))
    assert (found.tensor.min, found.tensor.max) == (-1, 8)
    assert found.tensor.mean == pytest.approx(np.mean([1, 2, 3, 4, 5, 8, -1, 0, 0, 0]))
    assert found.against is None


def test_a_column_of_another_kind_than_declared_is_lacking():
    found = profiles(table(2, distance=["far", "near"]), table(1, distance=[3.0]), declared=[NUMBER])["distance"]
    assert (found.kind, found.rows, found.lacking) == ("number", 1, 2)


def test_an_undeclared_column_is_what_the_newest_rows_say():
    found = profiles(table(2, old=["a", "b"]), table(1, old=[3.0]))
    assert (found["old"].kind, found["old"].rows, found["old"].lacking) == ("category", 2, 1)


def test_many_small_batches_are_the_same_as_one_large_one():
    columns = {"distance": RANDOM.normal(size=700), "carrier": RANDOM.choice(["UA", "AA"], 700)}
    whole = table(700, **columns)
    parts = [whole.slice(row, 1) for row in range(700)]
    one, many = profiles(whole)["distance"], profiles(*parts)["distance"]
    assert one == many


def _trained(rows):
    return {
        "distance": RANDOM.normal(size=rows),
        "carrier": np.array(RANDOM.choice(["UA", "AA", "DL"], rows).tolist(), object),
    }


def test_the_same_distances_as_the_drift_trigger_sees_stand_beside_each_column():
    schema = Schema((NUMBER, CATEGORY, Column("wind", "number")))
    trained = _trained(5_000) | {"wind": RANDOM.normal(size=5_000)}
    reference = reference_of(schema, trained, RANDOM.random(5_000))
    carriers = np.where(RANDOM.random(2_000) < 0.3, "NEW", "UA")
    later = table(2_000, distance=RANDOM.normal(3, size=2_000), carrier=carriers, wind=RANDOM.normal(size=2_000))
    found = profiles(later, declared=schema.columns, reference=reference)
    counts = {name: np.array([one.found for one in column.against.bins]) for name, column in found.items()}
    sure = {one.column: one for one in distances(reference, counts)}
    assert set(sure) == {name for name, one in found.items() if one.against.significant} == {"distance", "carrier"}
    for name, one in sure.items():
        told = found[name].against
        assert (told.psi, told.ks, told.p) == (one.psi, one.ks, one.p)
    assert 0 <= found["wind"].against.psi < 0.05
    assert found["wind"].against.p > 0.01


def test_the_bins_of_training_stand_beside_those_found_and_shares_add_up_to_one():
    reference = reference_of(Schema((NUMBER, CATEGORY)), _trained(1_000), RANDOM.random(1_000))
    later = table(3, distance=[-99.0, 0.0, None], carrier=["UA", "ZZ", None])
    found = profiles(later, declared=[NUMBER, CATEGORY], reference=reference)
    bins = found["distance"].against.bins
    assert (bins[0].low, bins[-2].high, bins[-1].kind) == (None, None, "missing")
    assert [one.high for one in bins[:-2]] == [one.low for one in bins[1:-1]]
    assert (bins[0].found, bins[-1].found) == (1, 1)
    for column in found.values():
        assert sum(one.trained_share for one in column.against.bins) == pytest.approx(1)
        assert sum(one.found_share for one in column.against.bins) == pytest.approx(1)
    assert [one.kind for one in found["carrier"].against.bins[-2:]] == ["others", "missing"]


def test_values_and_ranges_that_training_never_saw_are_named():
    reference = reference_of(Schema((NUMBER, CATEGORY)), _trained(1_000), RANDOM.random(1_000))
    later = table(5, distance=[-99.0, 99.0, 0.0, 0.0, None], carrier=["ZZ", "ZZ", "YY", "UA", None])
    found = profiles(later, declared=[NUMBER, CATEGORY], reference=reference)
    assert found["distance"].against.unseen_rows == 2
    carrier = found["carrier"].against
    assert [(one.value, one.rows) for one in carrier.unseen] == [("ZZ", 2), ("YY", 1)]
    assert (carrier.unseen_rows, carrier.unseen_for_sure) == (3, True)


def test_a_value_may_have_been_seen_where_training_had_more_than_its_reference_names():
    trained = _trained(1_000) | {"carrier": np.array([f"c{n % 50}" for n in range(1_000)], object)}
    reference = reference_of(Schema((NUMBER, CATEGORY)), trained, RANDOM.random(1_000))
    rare = next(f"c{n}" for n in range(50) if f"c{n}" not in reference.columns["carrier"].values)
    found = profiles(table(1, carrier=[rare]), declared=[CATEGORY], reference=reference)["carrier"].against
    assert (found.unseen_rows, found.unseen_for_sure) == (1, False)


def test_a_column_that_was_another_kind_in_training_is_not_compared():
    reference = reference_of(
        Schema((Column("distance", "category"),)), {"distance": np.array(["a"], object)}, np.ones(1)
    )
    found = profiles(table(1, distance=[1.0]), declared=[NUMBER], reference=reference)
    assert found["distance"].against is None
    assert found["distance"].number.mean == 1.0
