"""A model that fails, hangs or answers nonsense: its rows are parked with a reason, the others are predicted."""

import numpy as np
import pytest
from kit import hanging, linear

from headrace.models.errors import RegistryRefused
from headrace.models.features import Number, Topic
from headrace.models.labels import Regression
from headrace.models.pipeline import Pipeline
from headrace.models.session import Runtime, Session
from headrace.testing import replay

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("rounds")],
    label=Regression(Topic("arrivals", id="id", time="at"), "delay", within="1h", if_absent="drop"),
)
FOR_EVER = 2.0**60


def events(*rounds):
    return [{"id": f"e{n}", "at": "2013-07-04T11:00:00Z", "distance": 1.0, "rounds": r} for n, r in enumerate(rounds)]


def reasons(replayed):
    return {letter.offset: letter.reason for letter in replayed.dead_letters}


def test_a_graph_that_does_not_end_is_ended_and_says_so():
    session = Session(hanging(), PIPELINE.schema, Runtime(seconds=0.3))
    columns = {"distance": np.ones(2), "rounds": np.array([0.0, FOR_EVER])}
    with pytest.raises(RegistryRefused, match=r"no answer for 2 rows within 0.3 s"):
        session.predict(columns, 2)
    assert session.predict({"distance": np.ones(1), "rounds": np.zeros(1)}, 1) == pytest.approx(0.731, abs=1e-3)


def test_the_event_that_hangs_the_model_is_parked_and_the_others_are_predicted():
    session = Session(hanging(), PIPELINE.schema, Runtime(seconds=0.3))
    replayed = replay(PIPELINE, events=events(0, 1, FOR_EVER, 2), model=session)
    assert reasons(replayed) == {2: "model_timeout"}
    assert [p.id for p in replayed.predictions] == ["e0", "e1", "e3"]


def test_after_two_rows_without_an_answer_the_rest_of_the_chunk_is_parked_unasked():
    asked = []

    class Asked(Session):
        def predict(self, columns, rows):
            asked.append(rows)
            return super().predict(columns, rows)

    session = Asked(hanging(), PIPELINE.schema, Runtime(seconds=0.3))
    replayed = replay(PIPELINE, events=events(0, FOR_EVER, 1, FOR_EVER, 2, 3), model=session)
    assert asked == [6, 1, 1, 1, 1]
    assert reasons(replayed) == dict.fromkeys([1, 3, 4, 5], "model_timeout")
    assert [p.id for p in replayed.predictions] == ["e0", "e2"]


def test_a_batch_of_another_number_of_rows_is_asked_row_by_row():
    session = Session(linear([0.0, 0.0], bias=1.0, rows=1), PIPELINE.schema)  # answers one row whatever it is asked
    replayed = replay(PIPELINE, events=events(0, 1, 2), model=session)
    assert reasons(replayed) == {}
    assert {round(p.prediction, 3) for p in replayed.predictions} == {0.731}


def test_scores_that_are_no_numbers_are_parked_alone():
    session = Session(linear([0.0, 1.0]), PIPELINE.schema)
    replayed = replay(PIPELINE, events=events(0, 1), model=_WithNaN(session))
    assert reasons(replayed) == {1: "score_not_finite"}
    assert [p.id for p in replayed.predictions] == ["e0"]


class _WithNaN:
    """The session's answers, NaN for its second row."""

    def __init__(self, session):
        self._session = session

    def predict(self, columns, rows):
        scores = self._session.predict(columns, rows)
        scores[1:2] = np.nan
        return scores
