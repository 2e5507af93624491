"""`<pipeline>.served` → the newest rows, or some of a range, scored by two versions, and the labels that came for them.

Both versions see the same features, as served. Tensors are let go once they are scored; rows that either version
cannot score are left out and counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.infra.bulk_reader import runs_until_end
from headrace.infra.names import Names
from headrace.infra.served_log import Batch, newest_first, offsets_since
from headrace.infra.served_log import since as batches_since
from headrace.infra.services.scores.scoring import Version
from headrace.infra.settings import Settings
from headrace.models.draw import hashes, sources_of
from headrace.models.scores import finite
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.trainer.columns import as_numpy, one_array
from headrace.trainer.matching import asked_again, match
from headrace.trainer.union import Union

FIRST, SECOND = "\0first", "\0second"  # their scores; no feature has such a name
_TOGETHER = 4_096  # rows of one run of a model
_SLACK_MS = 3_600_000  # clocks differ
_ALWAYS_MS = 1 << 50
_ALL = np.uint64(np.iinfo(np.uint64).max)  # the largest hash
_NONE = pa.table({"id": pa.array([], pa.string())})


class Both:
    """Scores batches by two versions."""

    def __init__(self, first: Version, second: Version) -> None:
        self._versions = (first, second)
        self.lacking: Counter[tuple[int, str]] = Counter()  # (version, column) → rows
        self.unanswered = 0

    def scored(self, rows: pa.RecordBatch) -> pa.Table | None:
        """With both scores; None where a version needs what was not logged."""
        short = {(one.number, column): rows.num_rows for one in self._versions for column in one.lacking(rows.schema)}
        if short:
            self.lacking.update(short)
            return None
        first, second = (one.answers(rows) for one in self._versions)
        answered = finite(first) & finite(second)
        self.unanswered += int((~answered).sum())
        kept = [field.name for field in rows.schema if not pa.types.is_fixed_size_list(field.type)]
        table = pa.Table.from_batches([rows.select(kept)])
        return (
            table.append_column(FIRST, _column(first)).append_column(SECOND, _column(second)).filter(pa.array(answered))
        )


def scores_in(table: pa.Table, name: str) -> NDArray[np.float64]:
    """[n], or [n, classes]."""
    column = one_array(table[name])
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return as_numpy(flat).reshape(len(column), -1) if flat is not column else as_numpy(column)


def _column(scores: NDArray[np.float64]) -> pa.Array:
    if scores.ndim == 1:
        return pa.array(scores)
    return pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1)), scores.shape[1])


def newest_rows(settings: Settings, topic: str, both: Both, count: int) -> pa.Table:
    """The newest by event time among those served last, of each partition alike."""
    found = _NONE
    for batches in newest_first(settings, topic):
        scored = [table for rows in _larger(batches) if (table := both.scored(rows)) is not None]
        found = once(together([*scored, found]))
        if len(found) >= count:
            break
    if len(found) <= count:
        return found
    return found.take(pa.array(np.sort(np.argsort(event_times(found), kind="stable")[-count:])))


def _larger(batches: Sequence[Batch]) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches: a run of a model costs one row as much as some hundred."""
    for schema, alike in groupby((batch.rows for batch in batches), lambda rows: rows.schema):
        yield from pa.Table.from_batches(alike, schema).combine_chunks().to_batches(max_chunksize=_TOGETHER)


def rows_between(
    settings: Settings, names: Names, both: Both, count: int, *, since: int, until: int | None
) -> pa.Table:
    """Rows with since ≤ event time < until, Unix ms; of more than `count` those whose places have the smallest hashes:
    a draw that is the same every time. At most twice as many are in memory."""
    waiting: list[pa.Table] = []
    found, waits, most = _NONE, 0, _ALL
    for batch in batches_since(settings, names.topics.served, since, names.pipeline.max_future_ms):
        times, of_each = event_times(pa.Table.from_batches([batch.rows])), hashes(_places(batch.rows))
        wanted = (times >= since) & (times < (_ALWAYS_MS if until is None else until)) & (of_each <= most)
        if wanted.any() and (table := both.scored(batch.rows.filter(pa.array(wanted)))) is not None:
            waiting.append(table)
            waits += len(table)
        if waits > count:
            found, most = _drawn(together([found, *waiting]), count)
            waiting, waits = [], 0
    return _drawn(together([found, *waiting]), count)[0]


def labels_of(settings: Settings, names: Names, rows: pa.Table) -> NDArray[np.float64]:
    """[n], by the rule of trainings: the first within the horizon wins; NaN where none came, or it may still come."""
    labels = np.full(len(rows), np.nan)
    if not len(rows):
        return labels
    pipeline, ids = names.pipeline, one_array(rows["id"])
    begin = offsets_since(settings, [names.labels], int(event_times(rows).min()) - pipeline.max_future_ms - _SLACK_MS)
    decode, newest = LabelDecoder(pipeline.label, pipeline.max_future_ms).columns, 0
    parts: list[tuple[pa.Array, NDArray[np.int64], NDArray[np.float64]]] = []
    for _, messages in runs_until_end(settings, [names.labels], begin):
        of, times, values = decode([message.value() for message in messages], clock_ms())
        newest = max(newest, int(times.max(initial=0)))
        ours = as_numpy(pc.is_in(pa.array(of, pa.string()), value_set=ids))
        parts.append((pa.array(of, pa.string()).filter(pa.array(ours)), times[ours], values[ours]))
    matched = match(
        ids=ids,
        times=event_times(rows),
        partitions=as_numpy(rows["partition"]).astype(np.int64),
        offsets=as_numpy(rows["offset"]).astype(np.int64),
        label_ids=pa.concat_arrays([pa.array([], pa.string()), *(part[0] for part in parts)]),
        label_times=np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)]),
        label_values=np.concatenate([np.empty(0), *(part[2] for part in parts)]),
        within_ms=pipeline.label.within_ms,
        if_absent=pipeline.label.absent,
        as_of_ms=newest,  # silence counts as far as labels have come, whatever the clock says: a replay has its own
        window_ms=_ALWAYS_MS,
    )
    labels[matched.rows] = matched.labels
    return labels


def together(tables: Iterable[pa.Table]) -> pa.Table:
    """In one schema; what a table lacks is null there."""
    some = [table for table in tables if len(table)]
    if not some:
        return _NONE
    union = Union.of([table.schema for table in some])
    return pa.concat_tables([union.fitted(table) for table in some]).combine_chunks()


def once(table: pa.Table) -> pa.Table:
    """Each event once, in the order of their places; of those that were asked for, too, the row that trainings take."""
    if not len(table):
        return table
    table = table.take(pa.array(np.unique(_places(table), return_index=True)[1]))
    ids = as_numpy(one_array(table["id"]).dictionary_encode().indices).astype(np.int64)
    again = asked_again(ids, event_times(table), _places(table))
    return table.filter(pa.array(~again)) if again.any() else table


def _drawn(table: pa.Table, count: int) -> tuple[pa.Table, np.uint64]:
    """At most `count` rows, and the largest hash that is among them, or could be."""
    table = once(table)
    if len(table) <= count:
        return table, _ALL
    of_each = hashes(_places(table))
    kept = np.sort(np.argsort(of_each, kind="stable")[:count])
    return table.take(pa.array(kept)), of_each[kept].max()


def _places(rows: pa.RecordBatch | pa.Table) -> NDArray[np.int64]:
    partitions = as_numpy(rows.column("partition")).astype(np.int64)
    return sources_of(partitions, as_numpy(rows.column("offset")))


def event_times(rows: pa.Table) -> NDArray[np.int64]:
    return as_numpy(one_array(rows["event_time"]).cast(pa.int64()))
