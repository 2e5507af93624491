"""one value, its column's training reference → where it lies among the rows that a version was trained on."""

from bisect import bisect_right
from math import isnan
from typing import Literal

import msgspec

from headrace.models.manifest import ColumnReference


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of the training rows that had a value; of `missing`, of all of them."""

    kind: Literal["among", "below", "above", "value", "others", "missing"]
    low: float  # of a number: at least so many of the rows are below it
    high: float  # and at most so many are at or below it; of anything else both are the share of rows that were like it
    unseen: bool  # no training row was like it: beyond both ends, a value of nobody's, missing for the first time


def standing(reference: ColumnReference, value: float | str | None) -> Standing | None:
    """None where the reference has no rows, or is of another kind."""
    rows, missing = sum(reference.counts[:-1]), reference.counts[-1]
    if value is None or (isinstance(value, float) and isnan(value)):
        share = missing / (rows + missing) if rows + missing else 0.0
        return Standing(kind="missing", low=share, high=share, unseen=not missing) if rows + missing else None
    if rows == 0 or isinstance(value, str) != (reference.kind == "category"):
        return None
    if isinstance(value, str):
        is_named = value in reference.values
        count = reference.counts[reference.values.index(value) if is_named else -2]
        share = count / rows
        return Standing(kind="value" if is_named else "others", low=share, high=share, unseen=not count)
    place = bisect_right(reference.edges, value)
    below, here = sum(reference.counts[:place]), reference.counts[place]
    kind: Literal["among", "below", "above"] = "among"
    if not here and place in (0, len(reference.edges)):
        kind = "above" if place else "below"
    return Standing(kind=kind, low=below / rows, high=(below + here) / rows, unseen=kind != "among")
