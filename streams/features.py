"""decoded events (+ rings as of their time) → raw feature columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.models.errors import EventRejected
from headrace.models.facts import FEATURE_STORE, FUNCTION
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

    def compute(
        self,
        decoded: Decoded,
        store: FeatureStore | None,
        spent: dict[str, float] | None = None,
        as_of: int | None = None,
    ) -> tuple[Decoded, dict[str, Array]]:
        """Columns for every event that is left: one that a feature cannot take joins the rejected.

        `spent` counts the seconds of the feature store and of each function, also of those in vain. Rings are read as
        of each event's own time, or of `as_of`, Unix ms.
        """
        spent = {} if spent is None else spent
        bad: dict[int, EventRejected] = {}
        columns: dict[str, Array] = {}
        for feature in self.features:
            if not isinstance(feature, Lookup | Aggregate | Function):
                columns = {**_own_columns(feature, decoded, bad), **columns}
        if bad:
            return self.compute(decoded.without(list(bad.items())), store, spent, as_of)
        times = decoded.times if as_of is None else np.full(len(decoded.times), as_of)
        self._read_rings(decoded, times, store, columns, spent)
        for feature, function in self._functions:
            inputs = dict(columns)
            for own in feature.own_inputs:
                inputs.update(_own_columns(own, decoded, bad))
            given = [inputs[name] for name in feature.input_columns]
            begun = monotonic()
            columns[feature.name] = _call(feature, function, given, bad)
            _count(spent, FUNCTION + feature.name, monotonic() - begun)
        if bad:
            return self.compute(decoded.without(list(bad.items())), store, spent, as_of)
        return decoded, columns

    def _read_rings(
        self,
        decoded: Decoded,
        times: NDArray[np.int64],
        store: FeatureStore | None,
        columns: dict[str, Array],
        spent: dict[str, float],
    ) -> None:
        """One round trip for all rings of the chunk."""
        if not self.rings:
            return
        if store is None:  # the composition root gives one wherever a pipeline declares a Lookup or Aggregate
            raise ValueError(self.rings)
        asked = [(ring, readers, *ring_keys(ring, decoded.fields)) for ring, readers in self.rings.items()]
        wanted = [key for _, _, keys, _ in asked for key in keys]
        begun = monotonic()
        found = iter(store.read(wanted))
        _count(spent, FEATURE_STORE, monotonic() - begun)
        for ring, readers, keys, index in asked:
            rings = [next(found) for _ in keys]
            columns.update(columns_as_of(ring, readers, rings, index, times))


def _count(spent: dict[str, float], part: str, seconds: float) -> None:
    spent[part] = spent.get(part, 0.0) + seconds


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
    """Binary values of a chunk are one array at once; where one is anything else, each is read by itself."""
    shape, size = tuple(feature.shape), prod(feature.shape)
    if set(map(type, values)) == {memoryview} and set(map(len, values)) == {4 * size}:
        rows = _as_floats(bytearray().join(values)).reshape(-1, *shape)
        finite = np.isfinite(rows).reshape(len(values), size).all(axis=1)
        for row in np.flatnonzero(~finite).tolist():
            bad.setdefault(row, _wrong_tensor(feature, "got NaN or infinity"))
        return rows
    rows = np.zeros((len(values), *shape), np.float32)
    for row, value in enumerate(values):
        try:
            given = _as_floats(value) if isinstance(value, memoryview) else _numbers(value)
            if given.size != size or given.ndim not in (1, len(shape)):
                raise ValueError(f"got shape {list(given.shape)}")  # noqa: TRY301  numpy raises the same, if ragged
            if not np.isfinite(given).all():
                raise ValueError("got NaN or infinity")  # noqa: TRY301  as above
            rows[row] = given.reshape(shape)
        except (ValueError, TypeError) as error:
            binary = isinstance(value, memoryview) and len(value) != 4 * size
            got = f"got {len(value)} bytes" if binary else str(error)
            bad.setdefault(row, _wrong_tensor(feature, got))
    return rows


def _as_floats(data: memoryview | bytearray) -> NDArray[np.float32]:
    """Shares the memory of `data`, as long as this machine is little-endian, too."""
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


def _numbers(value: Any) -> Array:
    given: Array = np.asarray(value)
    if given.dtype.kind not in "iuf":  # texts and booleans that look like numbers are none
        raise ValueError(f"got an array of {given.dtype}")
    with np.errstate(over="ignore"):  # an infinity is not finite either
        return given.astype(np.float32)


def _wrong_tensor(feature: Tensor, got: str) -> EventRejected:
    size = prod(feature.shape)
    expected = f"{size} finite numbers of shape {list(feature.shape)} or in a row, or {4 * size} bytes of float32"
    return EventRejected("wrong_shape", f"field {feature.field!r}: expected {expected}; {got}")


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


def synthetic_row(columns: Iterable[Column]) -> Columns:
    """A row of missing values: what a version is warmed on before the first event came."""
    row: dict[str, Array] = {}
    for column in columns:
        if column.kind == "number":
            row[column.name] = np.array([np.nan if column.nullable else 0.0])
        elif column.kind == "category":
            row[column.name] = np.array([None if column.nullable else ""], object)
        else:
            row[column.name] = np.zeros((1, *column.shape), np.float32)
    return row
