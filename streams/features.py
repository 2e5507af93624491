"""decoded events (+ rings as of their time) → raw feature columns."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.models.errors import EventRejected
from headrace.models.features import (
    Aggregate,
    AnyFeature,
    Category,
    Column,
    Datetime,
    Function,
    Lookup,
    Number,
    Tensor,
    fields_of,
)
from headrace.models.imports import load
from headrace.models.protocols import Columns
from headrace.streams.asof import columns_as_of
from headrace.streams.codec import Decoded, unix_ms
from headrace.streams.rings import FeatureStore, entity_text, ring_keys, rings_of

Array = NDArray[Any]
_PARTS: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "minute": pc.minute,
    "hour": pc.hour,
    "day": pc.day,
    "weekday": lambda moments: pc.day_of_week(moments, count_from_zero=False),  # 1 is Monday, as in ISO 8601
    "month": pc.month,
}


class FeaturePlan:
    """How the columns of some features come to be, in order: own fields, then rings, then functions of both."""

    def __init__(self, features: Sequence[AnyFeature]) -> None:
        self.features = tuple(features)
        self.columns = _first_of_each_name(self.features)
        self.fields = fields_of(self.features)
        self.rings = rings_of(feature for feature in self.features if isinstance(feature, Lookup | Aggregate))
        self._functions = [(feature, load(feature.fn)) for feature in self.features if isinstance(feature, Function)]

    def compute(self, decoded: Decoded, store: FeatureStore | None) -> tuple[Decoded, dict[str, Array]]:
        """Columns for every event that is left: one that a feature cannot take joins the rejected."""
        bad: dict[int, EventRejected] = {}
        columns: dict[str, Array] = {}
        for feature in self.features:
            if not isinstance(feature, Lookup | Aggregate | Function):
                columns = {**_own_columns(feature, decoded, bad), **columns}
        if bad:
            return self.compute(decoded.without(list(bad.items())), store)
        self._read_rings(decoded, store, columns)
        for feature, function in self._functions:
            inputs = dict(columns)
            for own in feature.own_inputs:
                inputs.update(_own_columns(own, decoded, bad))
            columns[feature.name] = _call(feature, function, [inputs[name] for name in feature.input_columns], bad)
        if bad:
            return self.compute(decoded.without(list(bad.items())), store)
        return decoded, columns

    def _read_rings(self, decoded: Decoded, store: FeatureStore | None, columns: dict[str, Array]) -> None:
        """One round trip for all rings of the chunk."""
        if not self.rings:
            return
        if store is None:  # the composition root gives one wherever a pipeline declares a Lookup or Aggregate
            raise ValueError(self.rings)
        asked = [(ring, readers, *ring_keys(ring, decoded.fields)) for ring, readers in self.rings.items()]
        found = iter(store.read([key for _, _, keys, _ in asked for key in keys]))
        for ring, readers, keys, index in asked:
            rings = [next(found) for _ in keys]
            columns.update(columns_as_of(ring, readers, rings, index, decoded.times))


def _first_of_each_name(features: Sequence[AnyFeature]) -> tuple[Column, ...]:
    """A version's reading of a column stands before the declaration's, which may have become nullable since."""
    found: dict[str, Column] = {}
    for feature in features:
        for column in feature.columns:
            found.setdefault(column.name, column)
    return tuple(found.values())


def _own_columns(
    feature: Number | Category | Datetime | Tensor, decoded: Decoded, bad: dict[int, EventRejected]
) -> dict[str, Array]:
    values = decoded.fields[feature.field]
    if isinstance(feature, Number):
        return {feature.field: np.array(values, np.float64)}  # None becomes NaN
    if isinstance(feature, Category):
        return {feature.field: _texts(values)}
    if isinstance(feature, Tensor):
        return {feature.field: _tensor(feature, values, bad)}
    moments = pa.array(
        [None if value is None else unix_ms(value) for value in values], pa.timestamp("ms", tz=feature.timezone)
    )
    return {f"{feature.field}_{part}": _texts(_PARTS[part](moments).to_pylist()) for part in feature.parts}


def _texts(values: Sequence[Any]) -> Array:
    texts = np.empty(len(values), object)
    texts[:] = [value if value is None or type(value) is str else entity_text(value) for value in values]
    return texts


def _tensor(feature: Tensor, values: Sequence[Any], bad: dict[int, EventRejected]) -> Array:
    shape = tuple(feature.shape)
    rows = np.zeros((len(values), *shape), np.float32)
    for row, value in enumerate(values):
        try:
            given = np.asarray(value)
            if given.dtype.kind not in "iuf":  # texts and booleans that look like numbers are none
                raise ValueError(f"got {given.dtype}")  # noqa: TRY301  numpy raises the same for ragged lists
            with np.errstate(over="ignore"):  # an infinity is not finite either
                given = given.astype(np.float32)
            if given.size != rows[row].size or given.ndim not in (1, len(shape)) or not np.isfinite(given).all():
                raise ValueError(f"got {given.shape}")  # noqa: TRY301  as above
            rows[row] = given.reshape(shape)
        except (ValueError, TypeError) as error:
            detail = (
                f"field {feature.field!r}: expected finite numbers of shape {list(shape)} or as many in a row; {error}"
            )
            bad.setdefault(row, EventRejected("wrong_shape", detail))
    return rows


def _call(feature: Function, function: Any, inputs: Sequence[Array], bad: dict[int, EventRejected]) -> Array:
    """A user's function on the chunk; where that raises, row by row, so that only the culprits are parked."""
    rows = len(inputs[0])
    try:
        return _checked(feature, function(*inputs), rows)
    except Exception as whole:  # noqa: BLE001  a user's code may raise anything
        if rows <= 1:
            if rows:
                bad.setdefault(0, _function_failed(feature, whole))
            return _nothing(feature, rows)
    parts = []
    for row in range(rows):
        try:
            parts.append(_checked(feature, function(*[given[row : row + 1] for given in inputs]), 1))
        except Exception as error:  # noqa: BLE001  as above
            bad.setdefault(row, _function_failed(feature, error))
            parts.append(_nothing(feature, 1))
    return np.concatenate(parts)


def _checked(feature: Function, given: Any, rows: int) -> Array:
    values: Array = np.asarray(given, np.float64 if feature.kind == "number" else object)
    if values.shape != (rows,):
        raise ValueError(f"expected an array of shape ({rows},), got {values.shape}")
    return values if feature.kind == "number" else _texts(values.tolist())


def _nothing(feature: Function, rows: int) -> Array:
    return np.full(rows, np.nan) if feature.kind == "number" else np.full(rows, None, object)


def _function_failed(feature: Function, error: Exception) -> EventRejected:
    return EventRejected("function_failed", f"{feature.name}: {type(error).__name__}: {error}")


def synthetic_row(plan: FeaturePlan) -> Columns:
    """A row of missing values: what a version is warmed on before the first event came."""
    row: dict[str, Array] = {}
    for column in plan.columns:
        if column.kind == "number":
            row[column.name] = np.array([np.nan if column.nullable else 0.0])
        elif column.kind == "category":
            row[column.name] = np.array([None if column.nullable else ""], object)
        else:
            row[column.name] = np.zeros((1, *column.shape), np.float32)
    return row
