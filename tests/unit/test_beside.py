"""Versions that are measured beside who serves: one that cannot be had stops nobody."""

import pytest
from kit import Facts

from headrace.infra.beside import Beside
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, DeclarationError, RegistryRefused
from headrace.models.facts import Refused
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.registry import Versions

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)


class Unavailable:
    def __init__(self, error):
        self._error, self.asked = error, []

    def version(self, number):
        self.asked.append(number)
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        BadInput("version 3: not published"),
        RegistryRefused("hash", "bytes that differ"),
        DeclarationError("'own:rule'", "module:name that can be imported", "No module named 'own'", "Mend the place."),
    ],
    ids=["unknown", "bad bytes", "a rule that is not installed here"],
)
def test_a_version_that_cannot_be_had_is_a_fact_once_and_the_others_go_on(error, monkeypatch):
    scoring, facts = Unavailable(error), Facts()
    monkeypatch.setattr("headrace.infra.beside.Scoring", lambda *_: scoring)
    beside = Beside(Settings(), Names("", PIPELINE), facts)
    for _ in range(3):
        beside.watch(Versions(), {3})
    assert scoring.asked == [3]
    (refused,) = facts.of(Refused)
    assert refused.version == 3
    assert str(error) in refused.detail
