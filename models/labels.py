"""Label declarations: what arrives later, and what its absence means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError, EventRejected
from headrace.models.features import Topic
from headrace.models.protocols import Task


@dataclass(frozen=True)
class Binary:
    """1 where the label's field is `at_least` so much, or (without it) where it is true or 1.

    `within` is the horizon: a label counts if event time ≤ its time ≤ event time + within, the first one wins.
    `if_absent="drop"`: a row without a label is never trained on; a value: it is the label once the horizon closed.
    Scores are probabilities; `decide_at` turns them into decisions, `prior` is what version 0 answers.
    """

    topic: Topic
    field: str
    at_least: float | None = None
    within: str = ""
    if_absent: Literal["drop"] | float | None = None
    decide_at: float = 0.5
    prior: float = 0.5
    task: Task = "binary"

    def __post_init__(self) -> None:
        _check_label("Binary", self)
        for name in ("decide_at", "prior"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                raise DeclarationError(f"Binary.{name}", "a probability", getattr(self, name), "Between 0 and 1.")
        if self.at_least is not None and not _is_number(self.at_least):
            raise DeclarationError("Binary.at_least", "a number", self.at_least, "Give the smallest value that is a 1.")
        if self.if_absent not in ("drop", 0, 1):
            raise DeclarationError("Binary.if_absent", '"drop", 0 or 1', self.if_absent, _ABSENCE)

    @property
    def within_ms(self) -> int:
        return milliseconds("Binary.within", self.within)

    def value(self, row: Mapping[str, Any]) -> float:
        """The label of one decoded row: 0.0 or 1.0."""
        given = _number(self.field, row)
        if self.at_least is not None:
            return float(given >= self.at_least)
        if given not in (0.0, 1.0):
            raise EventRejected("wrong_shape", f"label field {self.field!r}: expected true, false, 0 or 1, got {given}")
        return given

    def decisions(self, scores: NDArray[np.float64]) -> Sequence[bool | None]:
        decided: list[bool | None] = (scores >= self.decide_at).tolist()
        return decided


@dataclass(frozen=True)
class Regression:
    """The label's field itself. `within`, `if_absent` and `prior` as in `Binary`."""

    topic: Topic
    field: str
    within: str = ""
    if_absent: Literal["drop"] | float | None = None
    prior: float = 0.0
    task: Task = "regression"

    def __post_init__(self) -> None:
        _check_label("Regression", self)
        if not _is_number(self.prior):
            raise DeclarationError("Regression.prior", "a number", self.prior, "What version 0 answers.")
        if self.if_absent != "drop" and not _is_number(self.if_absent):
            raise DeclarationError("Regression.if_absent", '"drop" or a number', self.if_absent, _ABSENCE)

    @property
    def within_ms(self) -> int:
        return milliseconds("Regression.within", self.within)

    def value(self, row: Mapping[str, Any]) -> float:
        return _number(self.field, row)

    def decisions(self, scores: NDArray[np.float64]) -> Sequence[bool | None]:
        return [None] * len(scores)


Label = Binary | Regression

_ABSENCE = "Say what silence means: drop the row, or take a value when the horizon has closed."


def _check_label(where: str, label: "Label") -> None:
    if not isinstance(label.topic, Topic):
        raise DeclarationError(f"{where}.topic", "a Topic", label.topic, "The topic on which labels arrive.")
    if not label.topic.id:
        raise DeclarationError(f"Topic({label.topic.name!r}).id", "a field", label.topic.id, "It joins labels.")
    if not label.field or not isinstance(label.field, str):
        raise DeclarationError(f"{where}.field", "a field's name", label.field, "The field that holds the label.")
    if label.field in (label.topic.id, label.topic.time):
        raise DeclarationError(
            f"{where}.field", "another field than id and time", label.field, "Name the label's field."
        )
    milliseconds(f"{where}.within", label.within)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def _number(field: str, row: Mapping[str, Any]) -> float:
    given = row.get(field)
    if not isinstance(given, int | float):
        raise EventRejected("wrong_shape", f"label field {field!r}: expected a number or a boolean, got {given!r}")
    return float(given)
