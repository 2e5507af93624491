"""a pipeline's topic → a page of its records, newest first or from a place on; and one record whole, with its bytes."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import msgspec

from headrace.infra.merged import Item, Merged
from headrace.infra.names import Names
from headrace.infra.seek import Seeker, Span, is_place
from headrace.infra.served_log import offsets_since
from headrace.infra.services.data.browsed import Kind, Record, browsed
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.errors import BadInput

MOST = 1_000  # records of a page
WIDTH = 2_000  # characters of a value on it
LOOK_BACK = 10_000  # records in which is searched, before the asker hears how far that was
_MOST_BYTES = 256 * 1024 * 1024  # of records that are looked at for one page
_WHOLE = 1_000_000  # characters of a record that is shown alone; its bytes are all there


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Records newest first, by the time at which they were written; those of one partition by their offsets."""

    topic: str  # without the prefix
    kind: Kind
    records: tuple[Record, ...]
    older: str | None  # `before` of the next page; None where the topic begins
    newer: str  # `after` of what comes behind this page, also of what is not written yet
    looked_at: int  # records, to find these
    looked_at_to: str  # when the last one of them was written; "" where there was none
    read: int  # records that came from the broker for it, read ahead of the merge
    partitions: dict[int, Span]  # the first offset that is still there, and the next one; transactions' markers count


class WholeRecord(msgspec.Struct, frozen=True, kw_only=True):
    record: Record
    key: bytes | None
    value: bytes | None


def browse(
    settings: Settings,
    names: Names,
    topic: str,
    *,
    partition: int | None = None,
    before: str = "",
    after: str = "",
    written_from: int | None = None,
    limit: int = 50,
    search: str = "",
    look_back: int = LOOK_BACK,
    width: int = WIDTH,
) -> Page:
    """The newest `limit` records, or those next to a place: `before` and `after` are a page's `older` and `newer`, or
    0:4711,2:17 (partition:offset). `written_from`, Unix ms: from the first one written then or later.

    With `search`, those that have it in the key or in the readable value, or as their id, among `look_back` records.
    Raises BadInput for a topic that is not the pipeline's and for a place that is not there, BrokerUnavailable.
    """
    if not 1 <= limit <= MOST:
        raise BadInput(f"limit: expected 1 to {MOST:,} records, got {limit}.")
    about = browsed(names, topic)
    ascending = bool(after or written_from is not None) and not before
    with closing(Seeker(settings, about.full)) as seeker:
        there = _of_partition(seeker.all_bounds(), partition)
        spans = within(there, before, after)
        if written_from is not None:
            begin = offsets_since(settings, [about.full], written_from)
            spans = {n: (min(max(first, begin[about.full, n]), end), end) for n, (first, end) in spans.items()}

        def held(message: Any) -> Record | None:
            return about.record(message, width) if not search or about.has(message, search) else None

        merged = Merged(seeker, spans, held, ascending=ascending, **({} if search else {"most": limit}))
        found, looked_at, last = _take(merged, limit, max(1, look_back) if search else MOST)
        positions = merged.positions()
    firsts = {n: first for n, (first, _) in spans.items()} if ascending else positions
    return Page(
        topic=about.name,
        kind=about.kind,
        records=tuple(reversed(found)) if ascending else tuple(found),
        older=cursor(firsts) if any(at > there[n][0] for n, at in firsts.items()) else None,
        newer=cursor(positions if ascending else {n: end for n, (_, end) in spans.items()}),
        looked_at=looked_at,
        looked_at_to=iso(last.written_ms) if last is not None and last.written_ms >= 0 else "",
        read=merged.read,
        partitions=there,
    )


def record(settings: Settings, names: Names, topic: str, partition: int, offset: int) -> WholeRecord:
    """Raises BadInput where there is none, with what is there."""
    about = browsed(names, topic)
    with closing(Seeker(settings, about.full)) as seeker:
        first, end = _of_partition(seeker.all_bounds(), partition)[partition]
        place = f"{about.name}/{partition}/{offset}"
        if not first <= offset < end:
            there = f"from {first} to {end - 1}" if first < end else "none: the partition is empty"
            raise BadInput(f"{place}: expected an offset that is still there, {there}.")
        found = [message for batch in seeker.between(partition, offset, offset + 1) for message in batch]
    if not found:
        raise BadInput(
            f"{place}: no record is at this offset: it was compacted away or taken back, or a transaction ended here."
        )
    return WholeRecord(record=about.record(found[0], _WHOLE), key=found[0].key(), value=found[0].value())


def cursor(positions: Mapping[int, int]) -> str:
    return ",".join(f"{number}:{offset}" for number, offset in sorted(positions.items()))


def within(there: Mapping[int, Span], before: str, after: str) -> dict[int, Span]:
    """What of the partitions lies between two cursors; a partition that they do not name is in it whole."""
    ends, begins = _positions(there, before), _positions(there, after)
    return {
        number: (min(max(first, begins.get(number, first)), end), max(first, min(end, ends.get(number, end))))
        for number, (first, end) in there.items()
    }


def _positions(there: Mapping[int, Span], text: str) -> dict[int, int]:
    found = {}
    for part in text.split(",") if text else []:
        number, _, offset = part.strip().partition(":")
        if not (is_place(number, offset) and int(number) in there):
            known = f"partitions {min(there)} to {max(there)}" if len(there) > 1 else f"partition {min(there)}"
            raise BadInput(f"place: expected partition:offset, as 0:4711 or 0:4711,2:17 ({known}), got {text[:100]!r}.")
        found[int(number)] = int(offset)
    return found


def _take(
    merged: Merged[Record | None], limit: int, look_back: int
) -> tuple[list[Record], int, Item[Record | None] | None]:
    found: list[Record] = []
    looked_at, last = 0, None
    for item in merged:
        looked_at, last = looked_at + 1, item
        if item.held is not None:
            found.append(item.held)
        if len(found) == limit or looked_at >= look_back or merged.read_bytes >= _MOST_BYTES:
            break
    return found, looked_at, last


def _of_partition(there: Mapping[int, Span], partition: int | None) -> dict[int, Span]:
    if partition is None:
        return dict(there)
    if partition not in there:
        raise BadInput(f"partition: expected 0 to {max(there)}, got {partition}.")
    return {partition: there[partition]}
