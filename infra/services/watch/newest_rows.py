"""the newest served rows → how old the champion's training is by event time, and what has moved since: seldom."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pyarrow as pa

from headrace.infra.names import Names
from headrace.infra.served_log import Batch, newest_first
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.errors import BrokerUnavailable
from headrace.models.manifest import Manifest
from headrace.streams.drift_watch import DriftWatch
from headrace.streams.served import scores_of
from headrace.trainer.columns import as_numpy

_ROWS = 5_000  # that drift is looked for in


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A column that has moved for sure from what the champion was trained on."""

    column: str
    psi: float
    ks: float


class NewestRows(msgspec.Struct, frozen=True, kw_only=True):
    """Of one pipeline, when they were looked at."""

    newest_event: str = ""  # event time of the newest of them, RFC 3339 UTC
    trained_through: str = ""  # and of the newest that the champion was trained on
    freshness_seconds: float | None = None  # between the two
    drift: tuple[Moved, ...] = ()
    rows: int = 0


def newest_rows(settings: Settings, names: Names, champion: int, manifest: Manifest | None) -> NewestRows:
    """`manifest` is the champion's, None for the baseline, which nothing moves away from."""
    watch, newest, rows = DriftWatch(), -1, 0
    watch.watch(None if manifest is None else manifest.reference)
    with suppress(BrokerUnavailable):  # then of those that were read
        for batch in _batches(settings, names.topics.served):
            newest = max(newest, *as_numpy(batch.rows.column("event_time").cast(pa.int64())).tolist())
            ours = (as_numpy(batch.rows.column("version")) == champion).all()
            # another version's scores say nothing of this one's: the column is then not there
            part = batch.rows if ours else batch.rows.drop_columns(["score"])
            watch.add(part, batch.written_ms, scores_of(batch.rows) if ours else None)
            rows += batch.rows.num_rows
            if rows >= _ROWS:
                break
    through = "" if manifest is None else manifest.trained_through
    return NewestRows(
        newest_event="" if newest < 0 else iso(newest),
        trained_through=through,
        freshness_seconds=None if newest < 0 or not through else _seconds(newest, through),
        drift=tuple(Moved(column=one.column, psi=one.psi, ks=one.ks) for one in watch.distances()),
        rows=rows,
    )


def _batches(settings: Settings, topic: str) -> Iterator[Batch]:
    for batches in newest_first(settings, topic):
        yield from (batch for batch in sorted(batches, key=lambda one: -one.written_ms) if batch.rows.num_rows)


def _seconds(newest_ms: int, through: str) -> float:
    return (datetime.fromtimestamp(newest_ms / 1000, UTC) - datetime.fromisoformat(through)).total_seconds()
