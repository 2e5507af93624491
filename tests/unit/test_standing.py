"""Where one value lies among the rows that a version was trained on."""

import numpy as np
import pytest

from headrace.models.drift import reference_of
from headrace.models.features import Category, Number
from headrace.models.manifest import ColumnReference
from headrace.models.schema import Schema
from headrace.models.standing import standing


def reference(feature, values):
    (column,) = feature.columns
    given = np.array(values, np.float64 if column.kind == "number" else object)
    return reference_of(Schema((column,)), {column.name: given}, np.zeros(1)).columns[column.name]


def test_a_number_lies_between_two_shares_of_the_training_rows():
    hundred = reference(Number("x"), range(100))
    found = standing(hundred, 42.0)
    assert (found.kind, found.unseen) == ("among", False)
    assert found.low <= 0.42 <= found.high
    assert found.high - found.low == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("value", "kind"), [(-0.1, "below"), (99.5, "above"), (np.inf, "above"), (-np.inf, "below")])
def test_what_lies_beyond_all_training_rows_is_unseen(value, kind):
    found = standing(reference(Number("x"), range(100)), value)
    assert (found.kind, found.unseen) == (kind, True)


@pytest.mark.parametrize("value", [0.0, 99.0])
def test_the_least_and_the_largest_training_value_are_seen(value):
    assert not standing(reference(Number("x"), range(100)), value).unseen


def test_a_category_has_its_share_and_one_of_nobody_is_unseen():
    carriers = reference(Category("c"), ["UA"] * 3 + ["DL"])
    assert (standing(carriers, "UA").kind, standing(carriers, "UA").low) == ("value", 0.75)
    assert (standing(carriers, "XX").kind, standing(carriers, "XX").unseen) == ("others", True)


def test_a_value_that_is_none_of_the_frequent_ones_may_have_been_seen():
    many = reference(Category("c"), [f"c{n // 2}" for n in range(60)] + ["rare"])
    found = standing(many, "rare")
    assert (found.kind, found.unseen) == ("others", False)
    assert found.low == pytest.approx(21 / 61)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_value_has_the_share_of_rows_that_missed_it_and_is_unseen_where_none_did(missing):
    some, none = reference(Number("x", nullable=True), [1, 2, np.nan, np.nan]), reference(Number("x"), [1, 2])
    assert (standing(some, missing).low, standing(some, missing).unseen) == (0.5, False)
    assert standing(none, missing).unseen


def test_a_reference_without_rows_or_of_another_kind_says_nothing():
    assert standing(ColumnReference(kind="number", counts=(0, 0)), 1.0) is None
    assert standing(ColumnReference(kind="number", counts=(0, 0)), None) is None
    assert standing(reference(Number("x"), range(10)), "UA") is None
    assert standing(reference(Category("c"), ["UA"]), 1.0) is None
