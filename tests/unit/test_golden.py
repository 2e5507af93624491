"""Rows of the holdout with their scores: written small, read strictly, compared with what is answered elsewhere."""

import msgspec
import numpy as np
import pytest

from headrace.models.errors import RegistryRefused
from headrace.models.features import Column
from headrace.models.golden import ROWS, check_golden, golden, golden_columns
from headrace.models.manifest import Golden
from headrace.models.schema import Schema

IMAGE = Column("image", "tensor", shape=(2, 3))
SCHEMA = Schema((Column("distance", "number", nullable=True), Column("carrier", "category", nullable=True), IMAGE))


def rows(count):
    return {
        "distance": np.where(np.arange(count) % 3 == 0, np.nan, np.arange(count) / 7),
        "carrier": np.array([None if n % 2 else f"é{n}" for n in range(count)], object),
        "image": np.random.default_rng(0).normal(size=(count, 2, 3)).astype(np.float32),
        "not of the schema": np.zeros(count),
    }


def travelled(found):
    return msgspec.json.decode(msgspec.json.encode(found), type=Golden)


def test_golden_rows_come_back_bit_by_bit():
    columns, scores = rows(50), np.linspace(0, 1, 50) / 3
    found = travelled(golden(columns, scores, SCHEMA))
    back, count = golden_columns(found, SCHEMA)
    assert count == ROWS
    assert back.keys() == {"distance", "carrier", "image"}
    for name, values in back.items():
        assert values.dtype == columns[name].dtype
        assert values.shape == columns[name][:ROWS].shape
        np.testing.assert_array_equal(values, columns[name][:ROWS])
    check_golden(found, scores[:ROWS])
    check_golden(found, np.append(scores[:ROWS], np.nan))  # what follows are rows that are served


def test_rows_with_an_infinity_are_passed_over():
    columns = rows(5) | {"distance": np.array([np.inf, 1.0, -np.inf, np.nan, 2.0])}
    found = golden(columns, np.arange(5.0), SCHEMA)
    assert found.scores == (1.0, 3.0, 4.0)


def test_of_large_rows_fewer_are_kept_and_of_larger_ones_none():
    for size, kept in ((300, 4), (2_000, 1), (10_000, None)):
        schema = Schema((Column("image", "tensor", shape=(size,)),))
        columns = {"image": np.random.default_rng(0).normal(size=(30, size)).astype(np.float32)}
        found = golden(columns, np.zeros(30), schema)
        assert (None if found is None else len(found.scores)) == kept, size


def test_no_rows_make_no_golden_ones():
    assert golden({name: values[:0] for name, values in rows(1).items()}, np.zeros(0), SCHEMA) is None


@pytest.mark.parametrize("score", [0.502, 0.498, np.nan, np.inf])
def test_a_score_that_differs_is_refused_with_both(score):
    found = golden(rows(3), np.array([0.1, 0.5, 0.9]), SCHEMA)
    check_golden(found, np.array([0.1, 0.5004, 0.9]))
    with pytest.raises(RegistryRefused, match=r"row 1: .* here, 0.5 where"):
        check_golden(found, np.array([0.1, score, 0.9]))


def test_a_large_score_may_differ_by_its_share():
    found = golden(rows(1), np.array([50_000.0]), SCHEMA)
    check_golden(found, np.array([50_049.0]))
    with pytest.raises(RegistryRefused, match="golden"):
        check_golden(found, np.array([50_051.0]))
