"""Label declarations: what arrives later, and what its absence means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
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

    @property
    def absent(self) -> float | None:
        """What silence is worth; None where such rows are dropped."""
        return None if self.if_absent is None or isinstance(self.if_absent, str) else float(self.if_absent)

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a label of several classes."""
        return ()

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

    @property
    def absent(self) -> float | None:
        """As in `Binary`."""
        return None if self.if_absent is None or isinstance(self.if_absent, str) else float(self.if_absent)

    @property
    def classes(self) -> tuple[str, ...]:
        """As in `Binary`."""
        return ()

    def value(self, row: Mapping[str, Any]) -> float:
        return _number(self.field, row)

    def decisions(self, scores: NDArray[np.float64]) -> Sequence[bool | None]:
        return [None] * len(scores)


@dataclass(frozen=True)
class Multiclass:
    """One of several `classes`: the label's field as text, a whole number, or, with `edges`, the range that it is in.

    `edges=[0, 15]` makes three classes of a number: below 0, from 0 to below 15, from 15. `within` as in `Binary`;
    `if_absent` is "drop" or a class. Scores are a probability per class, in this order; `prior` is what version 0
    answers, all classes alike if it is not said.
    """

    topic: Topic
    field: str
    classes: Sequence[str] = ()  # tuples, once it is made
    edges: Sequence[float] = ()
    within: str = ""
    if_absent: str | None = None
    prior: Mapping[str, float] = dataclass_field(default_factory=dict)
    task: Task = "multiclass"

    def __post_init__(self) -> None:
        _check_label("Multiclass", self)
        for name in ("classes", "edges"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(given) if isinstance(given, list) else given)
        names, edges = self.classes, self.edges
        if (
            not isinstance(names, tuple)
            or not 2 <= len(names) <= _MOST_CLASSES
            or not all(isinstance(n, str) and n for n in names)
        ):
            raise DeclarationError("Multiclass.classes", "2 to 200 names", names, 'For example ["a", "b", "c"].')
        if len(set(names)) < len(names) or "drop" in names:
            raise DeclarationError("Multiclass.classes", 'names that differ, none of them "drop"', names, "Rename.")
        if not isinstance(edges, tuple) or not all(map(_is_number, edges)) or list(edges) != sorted(set(edges)):
            raise DeclarationError("Multiclass.edges", "ascending numbers", edges, "For example [0, 15].")
        if edges and len(edges) != len(names) - 1:
            raise DeclarationError("Multiclass.edges", f"{len(names) - 1} numbers", edges, "One less than classes.")
        if self.if_absent not in ("drop", *names):
            raise DeclarationError("Multiclass.if_absent", f'"drop" or one of {names}', self.if_absent, _ABSENCE)
        shares = self.prior
        if shares and (set(shares) != set(names) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6)):
            raise DeclarationError("Multiclass.prior", "a share per class, 1 in all", shares, "What version 0 answers.")

    @property
    def within_ms(self) -> int:
        return milliseconds("Multiclass.within", self.within)

    @property
    def absent(self) -> float | None:
        """As in `Binary`."""
        return None if self.if_absent in (None, "drop") else float(self.classes.index(self.if_absent))

    def value(self, row: Mapping[str, Any]) -> float:
        """The class's place."""
        given = row.get(self.field)
        if self.edges:
            return float(np.searchsorted(self.edges, _number(self.field, row), side="right"))
        if isinstance(given, float) and given.is_integer():
            given = int(given)
        if isinstance(given, bool) or str(given) not in self.classes:
            expected = ", ".join(self.classes)
            raise EventRejected("wrong_shape", f"label field {self.field!r}: expected one of {expected}; got {given!r}")
        return float(self.classes.index(str(given)))

    def decisions(self, scores: NDArray[np.float64]) -> Sequence[bool | None]:
        return [None] * len(scores)


Label = Binary | Regression | Multiclass


def answer_of(label: Label) -> float | tuple[float, ...]:
    """What version 0 answers by the declaration: a score, or one per class."""
    if not isinstance(label, Multiclass):
        return label.prior
    return tuple(label.prior.get(name, 1 / len(label.classes)) for name in label.classes)


_MOST_CLASSES = 200  # each prediction and each served row carries a probability for each
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
