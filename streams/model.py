"""the model that serves: a predictor, the plan of its columns, and whose it is."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import DeclarationError, RegistryRefused
from headrace.models.features import Aggregate, AnyFeature, Function, Lookup, fields_of
from headrace.models.imports import load
from headrace.models.labels import answer_of
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns
from headrace.models.records import Activation
from headrace.models.session import Predictor
from headrace.streams.codec import EventDecoder
from headrace.streams.features import FeaturePlan
from headrace.streams.served import served_schema


class Baseline:
    """Version 0: the label's prior, a number, or a user's rule on columns. Computed from the declaration alone."""

    def __init__(self, pipeline: Pipeline) -> None:
        rule = pipeline.baseline
        self._function = rule if isinstance(rule, Function) else None
        self._call: Any = load(rule.fn) if isinstance(rule, Function) else None
        answer = float(rule) if isinstance(rule, int | float) else answer_of(pipeline.label)
        self._constant = np.array(answer, np.float64)  # or one per class

    def predict(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        if self._function is None:
            return np.full((rows, *self._constant.shape), self._constant)
        inputs = [columns[name] for name in self._function.input_columns]
        try:
            return self._answers(inputs, rows)
        except Exception:  # noqa: BLE001  a user's rule may raise anything
            answers = np.full(
                (rows, *self._constant.shape), np.nan
            )  # NaN ends as a dead letter: only the culprits are parked
            for row in range(rows):
                with suppress(Exception):
                    answers[row] = self._answers([given[row : row + 1] for given in inputs], 1)[0]
            return answers

    def _answers(self, inputs: Sequence[NDArray[Any]], rows: int) -> NDArray[np.float64]:
        answers = np.asarray(self._call(*inputs), np.float64)
        if answers.shape != (rows, *self._constant.shape):
            expected = (rows, *self._constant.shape)
            raise ValueError(f"expected an array of shape {expected}, got {answers.shape}")
        return answers


@dataclass(frozen=True, kw_only=True)
class LiveModel:
    """Everything that a chunk needs: fixed on it when it is taken, so that a swap falls between two chunks."""

    seq: int  # of the promotion; 0 for the baseline
    version: int
    predictor: Predictor
    plan: FeaturePlan
    decoder: EventDecoder
    schema: Any  # pyarrow.Schema of served batches
    arrived_at: float  # when its promotion was read, monotonic seconds
    classes: int = 0  # that it answers for; 0 where it gives one score
    activation: Activation | None = None  # not before these offsets; None: from the next chunk on

    def no_answers(self, rows: int) -> NDArray[np.float64]:
        return np.full((rows, self.classes) if self.classes else rows, np.nan)

    def begins_at(self, partition: tuple[str, int]) -> int:
        """The offset from which on it may serve this events partition."""
        return 0 if self.activation is None else self.activation.offsets.get(partition[1], 0)


def live_model(
    pipeline: Pipeline,
    predictor: Predictor,
    *,
    seq: int = 0,
    version: int = 0,
    features: Sequence[AnyFeature] = (),
    arrived_at: float | None = None,
    activation: Activation | None = None,
) -> LiveModel:
    """A model that serves the version's `features`, and logs the running declaration's as well.

    Raises RegistryRefused where this worker lacks a lookup, an aggregate or a function that the version needs.
    """
    union = served_features(pipeline.features, features)
    try:
        plan = FeaturePlan(union)
        decoder = EventDecoder(pipeline.events, fields_of(union), pipeline.max_future_ms)
    except DeclarationError as error:
        raise RegistryRefused("conflict", f"version {version} and the pipeline file disagree: {error}") from error
    return LiveModel(
        seq=seq,
        version=version,
        predictor=predictor,
        plan=plan,
        decoder=decoder,
        schema=served_schema(plan.columns, len(pipeline.label.classes)),
        arrived_at=monotonic() if arrived_at is None else arrived_at,
        classes=len(pipeline.label.classes),
        activation=activation,
    )


def served_features(declared: Sequence[AnyFeature], needed: Sequence[AnyFeature]) -> list[AnyFeature]:
    """What a worker computes: a version's own reading of event fields first, then everything declared.

    Rings are fed, and functions are loaded, for the declaration alone; nothing is imported because a topic says so.
    """
    own: list[AnyFeature] = []
    meanings = {meaning for feature in declared for meaning in _meanings(feature)}
    for feature in needed:
        if not isinstance(feature, Lookup | Aggregate | Function):
            own.append(feature)
        elif lacking := set(_meanings(feature)) - meanings:
            names = ", ".join(sorted(str(meaning[1]) for meaning in lacking))
            raise RegistryRefused("lacks_feature", f"the version needs {names}, this worker's pipeline file has it not")
    return own + [feature for feature in declared if feature not in own]


def _meanings(feature: AnyFeature) -> list[tuple[object, ...]]:
    """What each column of the feature stands for; how long rows are kept is not part of it."""
    if isinstance(feature, Lookup):
        source = (feature.topic.name, feature.topic.time, tuple(sorted(feature.by)), feature.max_age)
        return [("lookup", column.name, *source) for column in feature.columns]
    if isinstance(feature, Aggregate):
        return [("aggregate", feature.columns[0].name, feature.topic.name, feature.topic.time, feature.over)]
    if isinstance(feature, Function):
        return [("function", feature.name, feature.place, feature.input_columns, feature.kind)]
    return []
