"""held-out rows + scores → golden rows, and back: the same graph has to give the same answers everywhere."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import RegistryRefused
from headrace.models.manifest import Golden
from headrace.models.protocols import Columns
from headrace.models.schema import Schema

ROWS = 20
_BYTES = 64 * 1024  # as JSON: a few images are more, and then there are fewer rows, or none
_TOLERANCE = 1e-3  # of a probability; of a larger score, relative: other machines round otherwise


def golden(columns: Columns, scores: NDArray[np.float64], schema: Schema) -> Golden | None:
    """Of the rows as many as fit; None where not one does. Those with an infinity are passed over: JSON has none."""
    usable, classes = np.ones(len(scores), bool), scores.shape[1] if scores.ndim == 2 else 0
    for column in schema.numbers:
        usable &= ~np.isinf(columns[column.name])
    for count in (ROWS, 4, 1):
        rows = np.flatnonzero(usable)[:count]
        values = {column.name: _listed(columns[column.name][rows]) for column in schema.columns}
        found = Golden(columns=values, scores=tuple(scores[rows].ravel().tolist()), classes=classes)
        if found.scores and len(msgspec.json.encode(found)) <= _BYTES:
            return found
    return None


def golden_columns(found: Golden, schema: Schema) -> tuple[dict[str, NDArray[Any]], int]:
    """The rows as a batch. Raises RegistryRefused where they are not rows of the schema."""
    rows, columns = found.rows, dict[str, NDArray[Any]]()
    if not 1 <= rows <= ROWS or len(found.scores) % max(1, found.classes):
        raise RegistryRefused("bad_manifest", f"expected 1 to {ROWS} golden rows, got {rows}")
    try:
        for column in schema.columns:
            values = found.columns[column.name]
            if column.kind == "category":
                texts = np.empty(len(values), object)
                texts[:] = [None if value is None else str(value) for value in values]
                columns[column.name] = texts.reshape(rows)
            else:
                numbers = np.array([np.nan if value is None else value for value in values], np.float64)
                kind = np.float32 if column.kind == "tensor" else np.float64
                columns[column.name] = numbers.astype(kind).reshape(rows, *column.shape)
    except (KeyError, ValueError, TypeError) as error:
        raise RegistryRefused("bad_manifest", f"its golden rows are not rows of its schema: {error!r}") from error
    return columns, rows


def check_golden(found: Golden, scores: NDArray[np.float64]) -> None:
    """`scores` begin with those of the golden rows, as given here. Raises RegistryRefused."""
    if (scores.shape[1] if scores.ndim == 2 else 0) != found.classes:
        raise RegistryRefused("golden", f"expected scores for {found.classes} classes, the graph gives {scores.shape}")
    expected = np.array(found.scores, np.float64).reshape(found.rows, *scores.shape[1:])
    difference = np.abs(scores[: len(expected)] - expected) / np.maximum(1.0, np.abs(expected))
    if not (difference <= _TOLERANCE).all():  # written so that NaN fails
        row, *place = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), difference.shape)
        here, there = scores[(row, *place)], expected[(row, *place)]
        said = f"row {row}: {here:.6g} here, {there:.6g} where it was trained"
        raise RegistryRefused("golden", f"the graph gives other scores here than where it was made: {said}")


def _listed(values: NDArray[Any]) -> list[float | str | None]:
    if values.dtype == object:
        return [None if value is None else str(value) for value in values]
    flat = values.astype(np.float64).ravel()
    return [value if np.isfinite(value) else None for value in flat.tolist()]
