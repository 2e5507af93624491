"""served batches, a version's reference → what each column is like, and how far it is from that version's training.

Pure. Batches come newest first: where two of them say that a column is of another kind and the declaration does not say
which is right, the newer one is. Of tensors only figures are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.column_stats import CategoryFacts, NumberFacts, TensorFacts, category_facts, number_facts
from headrace.models.drift import SCORE, Distance, all_distances, counts_of, is_sure
from headrace.models.features import Column, ColumnKind
from headrace.models.manifest import ColumnReference, Reference
from headrace.models.pipeline import SERVED_FIELDS
from headrace.trainer.columns import one_array

_TOP = 20  # unseen values of one column
_TOGETHER = 256  # batches, of one row each where little is served
_PENDING_BYTES = 8 * 1024 * 1024


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a version's training beside those of the profile. A range has `low` ≤ value < `high`; None is no end."""

    kind: Literal["range", "value", "others", "missing"]
    low: float | None = None
    high: float | None = None
    value: str | None = None
    trained: int
    found: int
    trained_share: float
    found_share: float


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    value: str
    rows: int


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """A column beside its reference. `psi`, `ks` and `p` are None where either side has no rows."""

    psi: float | None  # population stability index; 0.1 is little, 0.25 is much, by convention
    ks: float | None  # largest difference of the cumulated shares over the bins, 0 to 1
    p: float | None  # how likely that is by chance, corrected for the number of columns (Holm)
    significant: bool
    bins: tuple[Bin, ...]
    unseen_rows: int  # beyond the trained range, or with a value that the reference does not name
    unseen: tuple[Unseen, ...]  # such values of a category, most frequent first, 20 at most
    unseen_for_sure: bool  # False where training had more values than the reference names: they may be among those


class ColumnProfile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: ColumnKind
    rows: int  # that have the column
    lacking: int  # rows from before it was logged, or that have it as another kind
    missing: int
    missing_share: float | None  # of `rows`
    number: NumberFacts | None = None
    category: CategoryFacts | None = None
    tensor: TensorFacts | None = None
    against: Against | None = None  # None for tensors, and without a reference


@dataclass(kw_only=True)
class _Tensors:
    """Figures of all rows of a tensor column."""

    rows: int = 0
    missing: int = 0
    not_finite: int = 0
    numbers: int = 0
    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    size: int = 0

    def add(self, values: pa.Array) -> None:
        self.rows += len(values)
        self.missing += values.null_count
        self.size = self.size or values.type.list_size
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), np.float64)  # of rows that are not null
        there = flat[np.isfinite(flat)]
        self.not_finite += len(flat) - len(there)
        if len(there):
            self.numbers += len(there)
            self.total += float(there.sum())
            self.low, self.high = min(self.low, float(there.min())), max(self.high, float(there.max()))


@dataclass
class Collected:
    """Columns of many batches. `declared` says what a column's kind is; others are what they were first."""

    declared: Sequence[Column] = ()
    rows: int = 0
    _pending: list[pa.RecordBatch] = field(default_factory=list)  # of one schema: small ones are taken together
    _pending_bytes: int = 0
    _kinds: dict[str, ColumnKind] = field(default_factory=dict)
    _parts: dict[str, list[pa.Array]] = field(default_factory=dict)
    _tensors: dict[str, _Tensors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kinds = {column.name: column.kind for column in self.declared}

    def add(self, batch: pa.RecordBatch) -> None:
        if self._pending and not batch.schema.equals(self._pending[0].schema):
            self._take_pending()
        self.rows += batch.num_rows
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes > _PENDING_BYTES or len(self._pending) == _TOGETHER:
            self._take_pending()

    def _take_pending(self) -> None:
        table = pa.Table.from_batches(self._pending) if self._pending else pa.table({})
        self._pending, self._pending_bytes = [], 0
        for place, one in enumerate(table.schema):
            kind = _kind(one.type)
            if kind is None or (one.name in SERVED_FIELDS and one.name != SCORE):
                continue
            if self._kinds.setdefault(one.name, kind) != kind:
                continue
            if kind == "tensor":
                self._tensors.setdefault(one.name, _Tensors()).add(one_array(table.column(place)))
            else:
                wanted = pa.float64() if kind == "number" else pa.string()
                self._parts.setdefault(one.name, []).append(one_array(table.column(place)).cast(wanted, safe=False))

    def profiles(self, reference: Reference | None = None) -> tuple[ColumnProfile, ...]:
        """Declared columns in their order, then others, the score last."""
        self._take_pending()
        known = {} if reference is None else reference.columns
        kinds: dict[str, ColumnKind] = {name: one.kind for name, one in known.items()}
        kinds.update(self._kinds)
        kinds[SCORE] = "number"
        names = [*[name for name in (*self._kinds, *known) if name != SCORE], SCORE]
        made = {name: self._made(name, kinds[name], known.get(name)) for name in dict.fromkeys(names)}
        counts = {name: found for name, (_, found) in made.items() if found is not None}
        far = {} if reference is None else {one.column: one for one in all_distances(reference, counts)}
        return tuple(
            profile
            if counts.get(name) is None
            else msgspec.structs.replace(
                profile, against=_against(known[name], counts[name], profile, far.get(name), self._values(name))
            )
            for name, (profile, _) in made.items()
        )

    def _made(
        self, name: str, kind: ColumnKind, reference: ColumnReference | None
    ) -> tuple[ColumnProfile, NDArray[np.int64] | None]:
        """The profile without its reference, and the rows in that one's bins."""
        if kind == "tensor":
            return self._tensor(name), None
        column = pa.chunked_array(self._parts.get(name, []), pa.float64() if kind == "number" else pa.string())
        values = column.to_numpy() if kind == "number" else np.array(column.to_pylist(), object)
        missing = int(np.isnan(values).sum()) if kind == "number" else column.null_count
        profile = ColumnProfile(
            name=name,
            kind=kind,
            rows=len(column),
            lacking=self.rows - len(column),
            missing=missing,
            missing_share=missing / len(column) if len(column) else None,
            number=number_facts(values) if kind == "number" else None,
            category=category_facts(self._values(name)) if kind == "category" else None,
        )
        fits = reference is not None and reference.kind == kind
        return profile, counts_of(reference, values) if reference is not None and fits else None

    def _values(self, name: str) -> list[tuple[str, int]]:
        """Of a category each value and its rows."""
        parts = self._parts.get(name, [])
        if not parts or pa.types.is_floating(parts[0].type):
            return []
        found = pa.chunked_array(parts).drop_null().value_counts()
        return list(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True))

    def _tensor(self, name: str) -> ColumnProfile:
        found = self._tensors.get(name, _Tensors())
        shape = next((column.shape for column in self.declared if column.name == name), (found.size,))
        return ColumnProfile(
            name=name,
            kind="tensor",
            rows=found.rows,
            lacking=self.rows - found.rows,
            missing=found.missing,
            missing_share=found.missing / found.rows if found.rows else None,
            tensor=TensorFacts(
                shape=shape,
                not_finite=found.not_finite,
                mean=found.total / found.numbers if found.numbers else None,
                min=found.low if found.numbers else None,
                max=found.high if found.numbers else None,
            ),
        )


def _kind(type_: Any) -> ColumnKind | None:
    if pa.types.is_floating(type_) or pa.types.is_integer(type_):
        return "number"
    if pa.types.is_string(type_):
        return "category"
    return "tensor" if pa.types.is_fixed_size_list(type_) else None


def _against(
    reference: ColumnReference,
    counts: NDArray[np.int64],
    profile: ColumnProfile,
    distance: Distance | None,
    values: Sequence[tuple[str, int]],
) -> Against:
    if profile.kind == "number":
        beyond = int(counts[0] + counts[-2]) if reference.edges else 0
        unseen, for_sure = list[Unseen](), True
    else:
        named = set(reference.values)
        unseen = [Unseen(value=value, rows=rows) for value, rows in values if value not in named]
        beyond, for_sure = sum(one.rows for one in unseen), reference.counts[-2] == 0
    return Against(
        psi=None if distance is None else distance.psi,
        ks=None if distance is None else distance.ks,
        p=None if distance is None else distance.p,
        significant=distance is not None and is_sure(distance),
        bins=_bins(reference, counts),
        unseen_rows=beyond,
        unseen=tuple(sorted(unseen, key=lambda one: (-one.rows, one.value))[:_TOP]),
        unseen_for_sure=for_sure,
    )


def _bins(reference: ColumnReference, counts: NDArray[np.int64]) -> tuple[Bin, ...]:
    trained, found = list(reference.counts), counts.tolist()
    of_trained, of_found = max(1, sum(trained)), max(1, sum(found))
    what: list[dict[str, Any]]
    if reference.kind == "number":
        ends = [None, *reference.edges, None]
        what = [{"kind": "range", "low": low, "high": high} for low, high in pairwise(ends)]
    else:
        what = [*[{"kind": "value", "value": value} for value in reference.values], {"kind": "others"}]
    what.append({"kind": "missing"})
    return tuple(
        Bin(trained=before, found=after, trained_share=before / of_trained, found_share=after / of_found, **named)
        for named, before, after in zip(what, trained, found, strict=True)
    )
