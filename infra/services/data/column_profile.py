"""served rows of a range → what each column and the score are like, beside what a version was trained on."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.artifacts import Artifacts
from headrace.infra.names import Names
from headrace.infra.seek import Seeker
from headrace.infra.served_newest import NewestBatches, Range
from headrace.infra.services.data.profiled import Collected, ColumnProfile
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.services.versions.resolve import resolve
from headrace.infra.settings import Settings
from headrace.models import manifest as manifests
from headrace.models.aliases import CHAMPION
from headrace.models.draw import sources_of
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.manifest import Reference
from headrace.trainer.columns import as_numpy

ROWS = 20_000
LOOK_BACK = 1_000_000  # rows
MOST = 1_000_000  # rows of a profile: some hundred bytes each in memory
_MOST_BYTES = 1024 * 1024 * 1024  # of batches that are looked at: tensors


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Of the newest rows of the range, each event once; no rows are a profile, too."""

    pipeline: str
    rows: int
    in_range: int  # rows of the range among those that were looked at: more than `rows` where that was the limit
    looked_at: int  # served rows
    whole_range: bool  # whether all of it was looked at; else there may be older rows
    event_times: tuple[str, str] | None  # the oldest and the newest, RFC 3339 UTC; None without rows
    versions: dict[int, int]  # that served them → rows
    against: int  # the version whose training the columns are compared with
    no_reference: str  # why they are not; "" where they are
    columns: tuple[ColumnProfile, ...]  # declared ones, others that were logged, the score last


def column_profile(
    settings: Settings,
    names: Names,
    *,
    since: int | None = None,
    until: int | None = None,
    version: int | None = None,
    rows: int = ROWS,
    against: str | None = None,
    look_back: int = LOOK_BACK,
) -> Profile:
    """The newest `rows` of those with since ≤ event time < until (Unix ms) that `version` served, among the newest
    `look_back` or a few more. `against` is a version's number or alias; the champion if not given.

    Raises BadInput for a version that is not there, BrokerUnavailable.
    """
    if not 1 <= rows <= MOST:
        raise BadInput(f"rows: expected 1 to {MOST:,}, got {rows}.")
    number, reference, no_reference = _reference(settings, names, against)
    wanted = Range(since=since, until=until, version=version)
    taken = _Taken(Collected(names.pipeline.columns), rows)
    looked_at, is_whole = 0, True
    with closing(Seeker(settings, names.topics.served)) as seeker:
        batches = NewestBatches(seeker, seeker.all_bounds(), since, names.pipeline.max_future_ms)
        for _, batch in batches:
            if taken.is_full or looked_at >= look_back or batches.read_bytes >= _MOST_BYTES:
                is_whole = False
                break
            looked_at += batch.num_rows
            taken.add(batch, np.flatnonzero(wanted.rows(batch)))
    return Profile(
        pipeline=names.pipeline.name,
        rows=taken.columns.rows,
        in_range=taken.in_range,
        looked_at=looked_at,
        whole_range=is_whole,
        event_times=None if taken.oldest is None or taken.newest is None else (iso(taken.oldest), iso(taken.newest)),
        versions=dict(sorted(taken.versions.items())),
        against=number,
        no_reference=no_reference,
        columns=taken.columns.profiles(reference),
    )


@dataclass
class _Taken:
    """Rows so far; what was served again after a crash counts once."""

    columns: Collected
    most: int
    in_range: int = 0
    oldest: int | None = None
    newest: int | None = None

    def __post_init__(self) -> None:
        self.versions: Counter[int] = Counter()
        self._seen: set[int] = set()

    @property
    def is_full(self) -> bool:
        return self.columns.rows >= self.most

    def add(self, batch: pa.RecordBatch, wanted: NDArray[np.intp]) -> None:
        places = sources_of(as_numpy(batch.column("partition")).astype(np.int64), as_numpy(batch.column("offset")))
        found = [row for row in wanted.tolist() if int(places[row]) not in self._seen]
        self.in_range += len(found)
        found = found[-(self.most - self.columns.rows) :]
        if not found:
            return
        self._seen.update(places[found].tolist())
        some = batch.take(pa.array(found, pa.int64()))  # copied: a batch's bytes are let go, and its tensors with them
        times = as_numpy(some.column("event_time").cast(pa.int64()))
        self.oldest = int(min(times.min(), times.min() if self.oldest is None else self.oldest))
        self.newest = int(max(times.max(), times.max() if self.newest is None else self.newest))
        self.versions.update(some.column("version").to_pylist())
        self.columns.add(some)


def _reference(settings: Settings, names: Names, against: str | None) -> tuple[int, Reference | None, str]:
    """The version's number, its reference, and why there is none."""
    known = known_versions(settings, names)
    number = resolve(known, CHAMPION if against is None else against)
    if number == 0:
        return 0, None, "version 0 is the declaration's rule: it was trained on nothing"
    try:
        with closing(Artifacts(settings)) as artifacts:
            reference = manifests.decode(artifacts.read(known.published[number].manifest)).reference
    except RegistryRefused as error:
        return number, None, f"the manifest of version {number} cannot be read: {error.detail}"
    return number, reference, "" if reference is not None else f"version {number} has no reference in its manifest"
