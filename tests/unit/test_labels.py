"""What a label is worth, and which declarations of one make no sense."""

import numpy as np
import pytest

from headrace.models.errors import DeclarationError, EventRejected
from headrace.models.features import Topic
from headrace.models.labels import Binary, Regression

ARRIVALS = Topic("arrivals", id="flight_id", time="landed_at")


def binary(**fields):
    return Binary(**{"topic": ARRIVALS, "field": "late", "within": "36h", "if_absent": "drop", **fields})


def regression(**fields):
    return Regression(**{"topic": ARRIVALS, "field": "delay", "within": "36h", "if_absent": "drop", **fields})


@pytest.mark.parametrize(("given", "value"), [(15, 1.0), (14.99, 0.0), (-3, 0.0), (True, 0.0)])
def test_a_threshold_belongs_to_its_upper_side(given, value):
    assert binary(at_least=15).value({"late": given}) == value


@pytest.mark.parametrize(("given", "value"), [(True, 1.0), (False, 0.0), (1, 1.0), (0.0, 0.0)])
def test_without_a_threshold_it_is_true_or_1(given, value):
    assert binary().value({"late": given}) == value


@pytest.mark.parametrize("given", [2, -1, 0.5, float("nan"), "1", None])
def test_what_is_neither_yes_nor_no_is_rejected(given):
    with pytest.raises(EventRejected, match=r"wrong_shape.*'late'"):
        binary().value({"late": given})


def test_a_label_without_its_field_is_rejected():
    with pytest.raises(EventRejected, match="wrong_shape"):
        regression().value({})


def test_a_decision_is_taken_at_the_declared_score_and_a_regression_takes_none():
    assert binary(decide_at=0.3).decisions(np.array([0.29, 0.3])) == [False, True]
    assert regression().decisions(np.array([7.0])) == [None]


def test_the_horizon_is_said_in_milliseconds():
    assert (binary(within="36h").within_ms, regression(within="7d").within_ms) == (129_600_000, 604_800_000)


@pytest.mark.parametrize(
    ("wrong", "field", "expected"),
    [
        ({"topic": "arrivals"}, "topic", "a Topic"),
        ({"topic": Topic("arrivals", time="landed_at")}, "id", "a field"),
        ({"field": ""}, "field", "a field's name"),
        ({"field": None}, "field", "a field's name"),
        ({"within": ""}, "within", "a duration"),
        ({"within": "1.5h"}, "within", "a duration"),
        ({"within": 36}, "within", "a duration"),
        ({"if_absent": None}, "if_absent", "drop"),
        ({"if_absent": "zero"}, "if_absent", "drop"),
    ],
)
@pytest.mark.parametrize("label", [binary, regression])
def test_a_wrong_label_fails_when_it_is_made(label, wrong, field, expected):
    with pytest.raises(DeclarationError, match=rf"{field}.*expected .*{expected}.*got .*\. \w"):
        label(**wrong)


@pytest.mark.parametrize("wrong", [{"decide_at": 1.5}, {"prior": -0.1}, {"prior": 24}, {"if_absent": 0.5}])
def test_a_binary_label_lives_between_0_and_1(wrong):
    with pytest.raises(DeclarationError, match=rf"Binary\.{next(iter(wrong))}: expected"):
        binary(**wrong)


def test_silence_may_be_either_class_or_any_number_of_a_regression():
    assert [binary(if_absent=value).if_absent for value in (0, 1)] == [0, 1]
    assert regression(if_absent=-2.5).if_absent == -2.5
