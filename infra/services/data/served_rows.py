"""`<pipeline>.served` → a page of served rows, newest first: features, answer, version, and the event's place."""

import re
from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.infra.merged import Item
from headrace.infra.names import Names
from headrace.infra.seek import Seeker, Span
from headrace.infra.served_log import source_of
from headrace.infra.served_newest import NewestBatches, Range
from headrace.infra.services.data.browse import MOST, cursor, within
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.pipeline import PROBABILITIES, SERVED_FIELDS

LOOK_BACK = 200_000  # rows
_MOST_BYTES = 256 * 1024 * 1024  # of batches that are looked at for one page
_BEGUN = re.compile(r"(\d{1,9}):(\d{1,19})\+(\d{1,9})")  # partition, batch, rows of it that are still to come
_TEXT = 2_000  # characters of a category


class TensorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a tensor."""

    numbers: int
    min: float | None
    mean: float | None
    max: float | None


class ServedRow(msgspec.Struct, frozen=True, kw_only=True):
    place: str  # of its batch: topic/partition/offset
    row: int  # in it
    written_at: str
    id: str
    event_time: str
    source: str  # place of the event, topic/partition/offset; of one asked for on demand served/partition/offset/row
    version: int
    score: float | None
    probabilities: tuple[float, ...] | None  # of a label of several classes
    features: dict[str, float | str | TensorFacts | None]


class ServedPage(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[ServedRow, ...]  # newest first
    older: str | None  # `before` of the next page; None where there are no more of the range
    looked_at: int  # rows, to find these
    looked_at_to: str  # when the last one of them was written; "" where there was none


def served_rows(
    settings: Settings,
    names: Names,
    *,
    limit: int = 50,
    version: int | None = None,
    event_id: str = "",
    since: int | None = None,
    until: int | None = None,
    before: str = "",
    look_back: int = LOOK_BACK,
) -> ServedPage:
    """Rows of a version, an id, a range of event times (Unix ms, the end not included), among `look_back` rows or a few
    more. `before` is a page's `older`. Raises BadInput, BrokerUnavailable."""
    if not 1 <= limit <= MOST:
        raise BadInput(f"limit: expected 1 to {MOST:,} rows, got {limit}.")
    topic = names.topics.served
    wanted = Range(since=since, until=until, version=version)
    found: list[ServedRow] = []
    looked_at, last, left = 0, None, dict[int, tuple[int, int]]()
    with closing(Seeker(settings, topic)) as seeker:
        there = seeker.all_bounds()
        spans, begun = _spans(there, before)
        batches = NewestBatches(seeker, spans, since, names.pipeline.max_future_ms)
        for item, whole in batches:
            last, rows = item, whole.num_rows
            if (item.partition, item.offset) in begun:
                rows = min(rows, begun[item.partition, item.offset])
            batch = whole.slice(0, rows)
            mask = wanted.rows(batch)
            if event_id:
                mask &= pc.equal(batch.column("id"), event_id).fill_null(False).to_numpy(zero_copy_only=False)
            hits = np.flatnonzero(mask)[::-1][: limit - len(found)].tolist()
            found += [_row(names, item, batch, row) for row in hits]
            if len(found) == limit:
                looked_at += rows - hits[-1]
                left = {item.partition: (item.offset, hits[-1])} if hits[-1] else {}
                break
            looked_at += rows
            if looked_at >= look_back or batches.read_bytes >= _MOST_BYTES:
                break
        positions = batches.positions()
    is_more = bool(left) or any(at > there[number][0] for number, at in positions.items())
    return ServedPage(
        rows=tuple(found),
        older=_cursor(positions, left) if is_more else None,
        looked_at=looked_at,
        looked_at_to=iso(last.written_ms) if last is not None and last.written_ms >= 0 else "",
    )


def _spans(there: dict[int, Span], before: str) -> tuple[dict[int, Span], dict[tuple[int, int], int]]:
    """What is still to come, and of batches that were begun how many rows. 0:4711+12 is before batch 4711 and the first
    12 rows of it."""
    begun, parts = dict[tuple[int, int], int](), list[str]()
    for part in before.split(",") if before else []:
        form = _BEGUN.fullmatch(part.strip())
        if form is not None:
            begun[int(form[1]), int(form[2])] = int(form[3])
        parts.append(part if form is None else f"{form[1]}:{int(form[2]) + 1}")
    return within(there, ",".join(parts), ""), begun


def _cursor(positions: dict[int, int], left: dict[int, tuple[int, int]]) -> str:
    begun = [f"{number}:{offset}+{rows}" for number, (offset, rows) in left.items()]
    others = cursor({number: at for number, at in positions.items() if number not in left})
    return ",".join([*begun, *([others] if others else [])])


def _row(names: Names, item: Item[Any], batch: pa.RecordBatch, row: int) -> ServedRow:
    one = {name: batch.column(name)[row] for name in ("id", "event_time", "partition", "offset", "version", "score")}
    probabilities = batch.column(PROBABILITIES)[row].as_py() if PROBABILITIES in batch.schema.names else None
    event_ms = one["event_time"].cast(pa.int64()).as_py()
    return ServedRow(
        place=f"{names.pipeline.topic('served')}/{item.partition}/{item.offset}",
        row=row,
        written_at=iso(item.written_ms) if item.written_ms >= 0 else "",
        id=one["id"].as_py() or "",
        event_time="" if event_ms is None else iso(event_ms),
        source=source_of(names.pipeline.events.name, names, one["partition"].as_py(), one["offset"].as_py()),
        version=one["version"].as_py(),
        score=one["score"].as_py(),
        probabilities=None if probabilities is None else tuple(probabilities),
        features={name: _feature(batch, name, row) for name in batch.schema.names if name not in SERVED_FIELDS},
    )


def _feature(batch: pa.RecordBatch, name: str, row: int) -> float | str | TensorFacts | None:
    value = batch.column(name)[row]
    if not value.is_valid:
        return None
    if not pa.types.is_fixed_size_list(value.type):
        given = value.as_py()
        return given[:_TEXT] if isinstance(given, str) else given
    numbers = np.asarray(value.values.to_numpy(zero_copy_only=False), np.float64)
    there = numbers[np.isfinite(numbers)]
    low, mean, high = (there.min(), there.mean(), there.max()) if len(there) else (None, None, None)
    as_floats = [None if one is None else float(one) for one in (low, mean, high)]
    return TensorFacts(numbers=len(numbers), min=as_floats[0], mean=as_floats[1], max=as_floats[2])
