"""a version's schema → the tensors that it takes and gives; what a request brings ⇄ arrays of those.

Datatypes are the Open Inference Protocol's. FP32 and FP64 are little-endian and row by row in binary, BYTES is a length
(4 bytes, little-endian) and UTF-8 for each element.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.infra.serve.refusals import RequestRefused, TooLarge
from headrace.models.features import Column
from headrace.models.schema import CATEGORIES, NUMBERS, PREDICTION, Schema

Datatype = Literal["FP32", "FP64", "BYTES"]
Flat = list[Any] | NDArray[Any]  # a tensor's elements, row by row
_floats = msgspec.json.Decoder(list[float]).decode
_texts = msgspec.json.Decoder(list[str]).decode
_anything = msgspec.json.Decoder(list[Any]).decode
_NUMPY: dict[Datatype, Any] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "BYTES": np.dtype(object)}


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    name: str
    datatype: Datatype
    shape: tuple[int, ...]  # the first is -1: rows
    columns: tuple[Column, ...] = ()  # of the last dimension, where those have names

    @property
    def size(self) -> int:
        """Elements of one row."""
        return prod(self.shape[1:])

    @property
    def dtype(self) -> Any:
        return _NUMPY[self.datatype]


@dataclass(slots=True, eq=False)
class Given:
    """One input as it came, whichever of the three ways."""

    name: str
    datatype: str
    shape: Sequence[int]
    json: msgspec.Raw | None = None
    binary: memoryview | None = None
    flat: Sequence[Any] | None = None  # elements of gRPC's `contents`


@dataclass(slots=True, eq=False)
class Tensors:
    """The inputs of one request, checked by name, datatype and shape."""

    rows: int
    flat: list[Flat] = field(default_factory=list)  # in the order of the specs


def inputs_of(schema: Schema) -> tuple[TensorSpec, ...]:
    """As `models.session` says."""
    found = []
    if numbers := schema.numbers:
        found.append(TensorSpec(name=NUMBERS, datatype="FP32", shape=(-1, len(numbers)), columns=numbers))
    if categories := schema.categories:
        found.append(TensorSpec(name=CATEGORIES, datatype="BYTES", shape=(-1, len(categories)), columns=categories))
    tensors = (TensorSpec(name=one.name, datatype="FP32", shape=(-1, *one.shape)) for one in schema.tensors)
    return (*found, *tensors)


def output(datatype: Datatype, classes: int) -> TensorSpec:
    """`classes`: 0 where there is one score for each row."""
    return TensorSpec(name=PREDICTION, datatype=datatype, shape=(-1, classes) if classes else (-1,))


def checked(specs: Sequence[TensorSpec], given: Sequence[Given], most_rows: int) -> Tensors:
    """Raises RequestRefused: names, datatypes, shapes, numbers of elements; TooLarge: rows."""
    if len(given) != len(specs):
        raise _wrong_names(specs, given)
    tensors = Tensors(0)
    for place, spec in enumerate(specs):
        one = given[place]
        if one.name != spec.name:  # in another order
            one = next((other for other in given if other.name == spec.name), one)
            if one.name != spec.name:
                raise _wrong_names(specs, given)
        shape = one.shape
        if one.datatype != spec.datatype:
            raise _wrong(spec, f"datatype {spec.datatype}", one.datatype)
        if len(shape) != len(spec.shape) or tuple(shape[1:]) != spec.shape[1:]:
            raise _wrong(spec, f"shape {list(spec.shape)}, -1 for the rows", f"{list(shape)[:20]}")
        if place == 0:
            tensors.rows = _rows(spec, shape, most_rows)
        elif shape[0] != tensors.rows:
            raise _wrong(spec, f"{tensors.rows} rows as in {specs[0].name!r}", str(shape[0]))
        tensors.flat.append(_elements(spec, one, tensors.rows * spec.size))
    return tensors


def _rows(spec: TensorSpec, shape: Sequence[int], most: int) -> int:
    if shape[0] < 1:
        raise _wrong(spec, "at least one row", f"shape {list(shape)}")
    if shape[0] > most:
        raise TooLarge(f"input {spec.name!r}: expected up to {most:,} rows in one request, got {shape[0]:,}")
    return shape[0]


def stacked(spec: TensorSpec, parts: Sequence[Flat], rows: int) -> NDArray[Any]:
    """[rows, …] of several requests together."""
    shape = (rows, *spec.shape[1:])
    if spec.datatype == "BYTES":
        texts = np.empty(rows * spec.size, object)
        texts[:] = list(chain.from_iterable(parts))
        return texts.reshape(shape)
    with np.errstate(over="ignore"):  # infinite beyond float32; `bad_rows` finds that
        if all(type(part) is list for part in parts):
            flat: Iterable[Any] = chain.from_iterable(parts) if len(parts) > 1 else parts[0]
            return np.array(list(flat), spec.dtype).reshape(shape)
        return np.concatenate([np.asarray(part, spec.dtype) for part in parts]).reshape(shape)


def bad_row(spec: TensorSpec, array: NDArray[Any]) -> RequestRefused | None:
    """The first row with NaN or infinity where no value may be missing; None where all is well."""
    if spec.datatype == "BYTES" or np.isfinite(array).all():
        return None
    bad = ~np.isfinite(array)
    for place, column in enumerate(spec.columns):
        if column.nullable:
            bad[:, place] = np.isinf(array[:, place])
    found = np.argwhere(bad)
    if not len(found):
        return None
    row, *at = found[0].tolist()
    where = repr(spec.columns[at[0]].name) if spec.columns else f"element {at}"
    missing = ", ".join(column.name for column in spec.columns if column.nullable)
    may = f"; NaN is for what may be missing: {missing}" if missing else ""
    return _wrong(spec, f"finite numbers{may}", f"{array[(row, *at)]} for {where} in row {row}")


def to_binary(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


# ── elements ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _elements(spec: TensorSpec, given: Given, count: int) -> Flat:
    flat: Flat
    if given.json is not None:
        flat = _from_json(spec, given.json)
    elif given.binary is not None:
        return _from_binary(spec, given.binary, count)
    else:
        flat = _from_contents(spec, given.flat if given.flat is not None else ())
    if len(flat) != count:
        raise _wrong(spec, f"{count} elements for shape {list(given.shape)}", str(len(flat)))
    return flat


def _from_json(spec: TensorSpec, data: msgspec.Raw) -> list[Any]:
    decode = _texts if spec.datatype == "BYTES" else _floats
    try:
        return decode(data)
    except msgspec.ValidationError:  # nested, or null for what is missing
        pass
    flat: list[Any] = []
    try:
        _flatten(_anything(data), flat, len(spec.shape))
    except (msgspec.DecodeError, RecursionError, _TooDeep) as error:
        raise _wrong(spec, "a list, flat or nested as the shape", str(error)) from error
    missing, kind = ("", (str,)) if spec.datatype == "BYTES" else (float("nan"), (int, float))
    for place, value in enumerate(flat):
        if value is None:
            flat[place] = missing
        elif not isinstance(value, kind) or isinstance(value, bool):
            what = "texts" if spec.datatype == "BYTES" else "numbers"
            raise _wrong(spec, what, f"{str(value)[:50]!r} as element {place}")
    return flat


class _TooDeep(Exception):
    pass


def _flatten(value: list[Any], flat: list[Any], levels: int) -> None:
    if not levels:
        raise _TooDeep("one nested deeper")
    for one in value:
        if type(one) is list:
            _flatten(one, flat, levels - 1)
        else:
            flat.append(one)


def _from_binary(spec: TensorSpec, data: memoryview, count: int) -> Flat:
    if spec.datatype == "BYTES":
        return _texts_of(spec, data, count)
    if len(data) != count * spec.dtype.itemsize:
        raise _wrong(spec, f"{count * spec.dtype.itemsize} bytes for {count} elements", str(len(data)))
    values: NDArray[Any] = np.frombuffer(data, spec.dtype)
    return values


def _texts_of(spec: TensorSpec, data: memoryview, count: int) -> list[str]:
    found: list[str] = []
    at, end = 0, len(data)
    while at < end and len(found) < count:
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        if at > end:
            break
        found.append(_text(spec, bytes(data[begin:at])))
    if at != end or len(found) != count:
        raise _wrong(spec, f"{count} elements, each with its length before it", f"{end} bytes with {len(found)}")
    return found


def _from_contents(spec: TensorSpec, values: Sequence[Any]) -> Flat:
    if spec.datatype == "BYTES":
        return [_text(spec, value) for value in values]
    return np.array(values, spec.dtype)


def _text(spec: TensorSpec, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _wrong(spec, "UTF-8", str(error)) from error


def _wrong(spec: TensorSpec, expected: str, got: str) -> RequestRefused:
    return RequestRefused(f"input {spec.name!r}: expected {expected}; got {got}")


def _wrong_names(specs: Sequence[TensorSpec], given: Sequence[Given]) -> RequestRefused:
    expected = ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)
    got = ", ".join(one.name[:50] for one in given[:20]) or "none"
    return RequestRefused(f"inputs: expected {expected}; got {got}")
