"""A candidate that every worker would refuse is a failed run, and one that passes brings its golden rows."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import hostile
import numpy as np
import pytest
from kit import hanging, linear

from headrace import Last, Number, Pipeline, Regression, Topic, Trained
from headrace.models.errors import RunFailed
from headrace.models.golden import ROWS, check_golden, golden_columns
from headrace.models.session import Session
from headrace.testing import replay, train

START = datetime(2013, 7, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Given:
    """A learner that has learnt before."""

    onnx: bytes

    def train(self, _dataset, _context):
        return Trained(onnx=self.onnx, hyperparameters={})


def pipeline(onnx, **more):
    return Pipeline(
        name="delay",
        events=Topic("flights", id="id", time="at"),
        features=[Number("distance"), Number("wind", nullable=True)],
        label=Regression(Topic("arrivals", id="id", time="at"), "delay", within="1h", if_absent="drop"),
        learner=Given(onnx),
        train_on=Last("30d", holdout="2d", min_rows=20),
        **more,
    )


def trained(made):
    events, labels = [], []
    for number in range(100):
        at = START + timedelta(hours=number)
        events.append({"id": f"e{number}", "at": at, "distance": number / 7, "wind": 0.0})
        labels.append({"id": f"e{number}", "at": at, "delay": number / 9})
    return train(made, replay(made, events, labels=labels))


def test_a_candidate_brings_rows_of_its_holdout_and_its_own_answers_to_them():
    made = pipeline(linear([0.1, 0.0]))
    candidate = trained(made)
    columns, rows = golden_columns(candidate.run.golden, made.schema)
    assert rows == ROWS
    assert columns["distance"].min() >= 52 / 7  # the holdout's: the newest two days
    scores = Session(candidate.onnx, made.schema).predict(columns, rows)
    np.testing.assert_array_equal(scores, candidate.run.golden.scores)
    check_golden(candidate.run.golden, scores)


@pytest.mark.parametrize(
    ("onnx", "reason"),
    [
        (hostile.external_initializer(), "external_data"),
        (hanging(), "operator"),
        (hostile.sized_by_the_event(), "shape_budget"),
        (linear([0.1, float("nan")]), "not_finite_weights"),
        (b"nonsense", "not_onnx"),
    ],
)
def test_what_every_worker_would_refuse_is_a_failed_run(onnx, reason):
    with pytest.raises(RunFailed) as failed:
        trained(pipeline(onnx))
    assert failed.value.reason == reason


def test_an_operator_that_the_pipeline_names_may_be_in_a_candidate():
    trained(replace(pipeline(hanging()), operators=["Loop"]))
