"""served rows of a past range → any version's scores of them, beside what was served then → a file or a topic.

On the features as served, one served batch after the other, each in one run of the model as it was then: memory is
bounded by what is read at once, not by the range. Nothing joins a group or commits: workers do not notice.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.names import Names
from headrace.infra.served_log import since as batches_since
from headrace.infra.services.scores.scoring import Scoring, Version
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.services.versions.resolve import resolve
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput
from headrace.models.pipeline import PROBABILITIES
from headrace.models.scores import distances, finite, top
from headrace.streams.served import scores_of
from headrace.trainer.columns import as_numpy

RESCORED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("event_time", pa.timestamp("ms", tz="UTC")),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("served_version", pa.int32()),
        pa.field("served_score", pa.float64()),
        pa.field("replayed_version", pa.int32()),
        pa.field("replayed_score", pa.float64()),
    ]
)


def rescored_schema(classes: int) -> pa.Schema:
    """With each class's probability, as it is replayed, where there are several."""
    return RESCORED.append(pa.field(PROBABILITIES, pa.list_(pa.float64(), classes))) if classes else RESCORED


class Target(Protocol):
    name: str  # for people

    def write(self, rows: pa.RecordBatch) -> None:
        """Some rows by `rescored_schema`, in the order of their partition."""


class Rescored(msgspec.Struct, kw_only=True):
    version: int
    target: str
    rows: int = 0  # written
    same: int = 0  # of these: with the score that was served, to the bit
    served_by: dict[int, int] = {}  # of these, by version
    lacking_rows: int = 0  # left out
    lacking: dict[str, int] = {}  # rows that lack the column
    unanswered: int = 0  # left out: the version raised, or answered NaN or infinity
    repeated: int = 0  # left out: served again after a crash, and here already


def rescore(
    settings: Settings,
    names: Names,
    wanted: str,
    *,
    since: int,
    until: int | None,
    out: Target,
    seen: Callable[[int], None] = lambda _: None,
) -> Rescored:
    """Rows with since ≤ event time < until, Unix ms. `wanted` is a number or an alias; `seen` hears how many were read.

    Raises BadInput where no row is in the range, or none has what the version needs; RegistryRefused where its artifact
    is not there or not what the registry says; BrokerUnavailable.
    """
    known = known_versions(settings, names)
    number = resolve(known, wanted)
    with closing(Scoring(settings, names, known)) as scoring:
        version = scoring.version(number)
    done, read = Rescored(version=number, target=out.name), 0
    columns, versions = Counter[str](), Counter[int]()
    reached: dict[int, Reached] = {}  # by partition
    for batch in batches_since(settings, names.topics.served, since, names.pipeline.max_future_ms):
        rows = batch.rows
        read += rows.num_rows
        seen(read)
        wanted_rows = _in_range(rows, since, until)
        news = _new(rows, reached)
        done.repeated += int((wanted_rows & ~news).sum())
        wanted_rows &= news
        if not wanted_rows.any():
            continue
        if lacking := version.lacking(rows.schema):
            done.lacking_rows += int(wanted_rows.sum())
            columns.update(dict.fromkeys(lacking, int(wanted_rows.sum())))
            continue
        scored = _scored(version, rows, wanted_rows, done)
        versions.update(scored.column("served_version").to_pylist())
        out.write(scored)
    done.lacking, done.served_by = dict(columns), dict(sorted(versions.items()))
    if not done.rows:
        raise BadInput(_nothing(done, read))
    return done


def _scored(version: Version, rows: pa.RecordBatch, wanted: NDArray[np.bool_], done: Rescored) -> pa.RecordBatch:
    """The whole batch in one run, as it was served: a row's last bit may depend on those beside it."""
    scores = version.answers(rows)
    answered = finite(scores)
    kept = np.flatnonzero(wanted & answered)
    done.unanswered += int((wanted & ~answered).sum())
    done.rows += len(kept)
    done.same += int((distances(scores, scores_of(rows)) == 0)[kept].sum())
    picked = rows.take(pa.array(kept))
    arrays = [picked.column(name) for name in ("id", "event_time", "partition", "offset", "version", "score")]
    arrays += [pa.array(np.full(len(kept), version.number, np.int32)), pa.array(top(scores[kept]))]
    if scores.ndim == 2:
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(scores[kept].reshape(-1)), scores.shape[1]))
    return pa.RecordBatch.from_arrays(arrays, schema=rescored_schema(scores.shape[1] if scores.ndim == 2 else 0))


def _in_range(rows: pa.RecordBatch, since: int, until: int | None) -> NDArray[np.bool_]:
    times = as_numpy(rows.column("event_time").cast(pa.int64()))
    within: NDArray[np.bool_] = times >= since
    return within if until is None else within & (times < until)


_NEAR_OFFSETS = 20_000  # a few chunks: what was passed over longer ago was not served


class Reached:
    """Which of a partition's source offsets were looked at: all from the first to the last, but for those that were
    passed over, as a canary's are, whose batch is the next one. In memory are the latter alone."""

    def __init__(self) -> None:
        self._first = self._end = -1  # half open
        self._passed: set[int] = set()

    def new(self, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n], ascending. Those that were served again after a crash are not."""
        first, end = int(offsets[0]), int(offsets[-1]) + 1
        if self._end < 0:
            self._first = self._end = first
        found = (offsets < self._first) | (offsets >= self._end)
        if not found.all() and self._passed:
            found |= np.isin(offsets, list(self._passed))
        self._passed.update(
            range(first, min(self._first, first + _NEAR_OFFSETS)), range(max(self._end, end - _NEAR_OFFSETS), end)
        )
        self._passed.difference_update(offsets.tolist())
        self._first, self._end = min(self._first, first), max(self._end, end)
        if len(self._passed) > _NEAR_OFFSETS:  # dead letters and markers, which nobody served
            self._passed = {offset for offset in self._passed if offset >= self._end - _NEAR_OFFSETS}
        return np.asarray(found)


def _new(rows: pa.RecordBatch, reached: dict[int, Reached]) -> NDArray[np.bool_]:
    """One batch is of one partition. What was asked for on demand is on the log once: nobody reads a request again."""
    if not rows.num_rows:
        return np.zeros(0, np.bool_)
    partition = rows.column("partition")[0].as_py()
    if partition < 0:
        return np.ones(rows.num_rows, np.bool_)
    return reached.setdefault(partition, Reached()).new(as_numpy(rows.column("offset")))


def _nothing(done: Rescored, read: int) -> str:
    if done.lacking_rows:
        columns = ", ".join(done.lacking)
        return (
            f"version {done.version} needs {columns}, which was not logged when the {done.lacking_rows:,} rows of the"
            " range were served. Take a later range, or another version."
        )
    if done.unanswered:
        return f"version {done.version} answers none of the {done.unanswered:,} rows of the range with a finite number."
    return f"expected served rows with event times in the range, found none among {read:,}."
