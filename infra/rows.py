"""JSON lines, Parquet → rows as JSON bytes → in their topic's format, and dated by the event time in their payload."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.infra.files import existing
from headrace.infra.row_format import Write
from headrace.models.errors import BadInput
from headrace.models.features import Topic
from headrace.streams.codec import unix_ms
from headrace.streams.formats import record_decoder
from headrace.streams.rings import entity_text

_END_OF_TIME = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can write, Unix ms
_SHOWN = 80  # characters of a bad line
_BATCH_ROWS = 10_000  # of a Parquet file in memory at a time
Scalar = str | int | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EventStream:
    """One topic's rows, sorted by event time: row i is `times[i]`, `keys[i]`, `values[i]`."""

    topic: str
    times: NDArray[np.int64]  # event time, ms since the Unix epoch, ascending
    keys: Sequence[bytes | None]
    values: list[bytes]  # in the topic's format

    def __len__(self) -> int:
        return len(self.values)


def read_rows(place: str | Path, *, strict: bool = True, stdin: BinaryIO | None = None) -> Iterator[bytes]:
    """The rows of a `.parquet` file, else of JSON lines; "-" reads those from standard input. URLs go to fsspec.

    Raises BadInput at once where the file is not there and, with `strict`, at a line that is no JSON at all, by its
    number. Without, such a line comes through as it is, for the pipeline to park. Blank lines are no rows.
    """
    if str(place) == "-":
        return _lines("standard input", stdin or sys.stdin.buffer, strict=strict)
    file = existing(str(place), "rows: expected a file of JSON lines or Parquet")
    if str(place).endswith(".parquet"):
        return _parquet(str(place), file)
    return _lines_of(str(place), file, strict=strict)


def dated(rows: Iterable[bytes], topic: Topic, key: str | None = None, write: Write | None = None) -> EventStream:
    """The rows of a topic by event time; of one time they stay in their order. `key` names the field that is the
    message key, else it is the topic's id, or there is none.

    A row without a usable event time goes with the one before it: it is sent, and the pipeline parks it.
    """
    values = list(rows)
    keyed_by = key or topic.id
    types: dict[str, tuple[Any, bool]] = {topic.time: (Scalar, False)}
    if keyed_by:
        types.setdefault(keyed_by, (Scalar, False))
    decode, held = record_decoder("Row", types)
    times, keys = np.full(len(values), -1, np.int64), list[bytes | None]()
    for row, value in enumerate(values):
        try:
            fields = decode(value)
        except (msgspec.DecodeError, ValueError, RecursionError):
            keys.append(None)
            continue
        times[row] = event_ms(getattr(fields, held[topic.time]))
        given = getattr(fields, held[keyed_by]) if keyed_by else None
        keys.append(None if given is None else entity_text(given).encode("utf-8", "surrogatepass"))
    times = _filled(times)
    order = np.argsort(times, kind="stable")
    return EventStream(
        topic=topic.name,
        times=times[order],
        keys=[keys[row] for row in order],
        values=[values[row] if write is None else write(values[row]) for row in order],
    )


def event_ms(given: Scalar | None) -> int:
    """Unix ms by the rules of the codec, -1 where it is no event time."""
    moment: datetime | int
    if isinstance(given, str):
        try:
            moment = msgspec.convert(given, datetime)
        except msgspec.ValidationError:
            return -1
        if moment.tzinfo is None:
            return -1
    elif isinstance(given, bool) or given is None or int(given) != given:
        return -1
    else:
        moment = int(given)
    ms = unix_ms(moment)
    return ms if 0 <= ms <= _END_OF_TIME else -1


def _filled(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """-1 becomes the time of the row before it; at the front, of the first that has one."""
    known = np.flatnonzero(times >= 0)
    if not len(known):
        return np.zeros(len(times), np.int64)
    place = np.searchsorted(known, np.arange(len(times)), "right") - 1
    return np.asarray(times[known[np.maximum(place, 0)]])


def _lines_of(name: str, file: BinaryIO, *, strict: bool) -> Iterator[bytes]:
    with file:
        yield from _lines(name, file, strict=strict)


def _lines(name: str, file: Iterable[bytes], *, strict: bool) -> Iterator[bytes]:
    for number, line in enumerate(file, start=1):
        value = line.strip()
        if number == 1:
            value = value.removeprefix(b"\xef\xbb\xbf")  # what some editors put before UTF-8
        if not value:
            continue
        if strict:
            try:
                msgspec.json.decode(value)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise BadInput(
                    f"{name}, line {number}: expected one JSON object per line, got "
                    f"{value[:_SHOWN].decode(errors='replace')!r} ({error}). An array becomes lines with: jq -c '.[]'"
                ) from error
        yield value


def _parquet(place: str, opened: BinaryIO) -> Iterator[bytes]:
    import pyarrow.parquet as pq  # noqa: PLC0415  a tenth of a second that JSON lines need not wait

    try:
        file = pq.ParquetFile(opened)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{place}: expected a Parquet file, {error}") from error
    return _rows_of(place, file)


def _rows_of(place: str, file: Any) -> Iterator[bytes]:
    with file:
        for rows in parquet_rows(place, file):
            yield from rows


def parquet_rows(
    place: str, file: Any, *, first: int = 0, columns: Sequence[str] | None = None
) -> Iterator[list[bytes]]:
    """The rows of a `pq.ParquetFile` from number `first` on, as JSON, with these columns or all. Groups of rows before
    it are not read. Raises BadInput for what JSON cannot hold; `place` is for people."""
    encode = msgspec.json.Encoder().encode
    number, groups = _groups_from(file, first)
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=columns):
        wanted = batch.slice(max(0, first - number))
        number += batch.num_rows
        names, found = wanted.schema.names, list[bytes]()
        for row in zip(*map(_json_values, wanted.columns), strict=True):
            try:
                found.append(encode(dict(zip(names, row, strict=True))))
            except TypeError as error:
                at = number - wanted.num_rows + len(found) + 1
                raise BadInput(f"{place}, row {at}: expected what JSON can hold, {error}") from error
        if found:
            yield found


def _groups_from(file: Any, first: int) -> tuple[int, list[int]]:
    """The number of the first row of the first group that is read, and these groups."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    before = group = 0
    while group < len(sizes) and before + sizes[group] <= first:
        before += sizes[group]
        group += 1
    return before, list(range(group, len(sizes)))


def _json_values(column: Any) -> list[Any]:
    """Timestamps as RFC 3339 in UTC (one without a timezone is taken as UTC), decimals as numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        whole = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
        unit = "ms" if pc.any(pc.not_equal(pc.multiply(pc.divide(whole, 1000), 1000), whole)).as_py() else "s"
        moments = pc.cast(whole, pa.timestamp("ms", "UTC")).cast(pa.timestamp(unit, "UTC"))
        texts: list[Any] = pc.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
        return texts
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values: list[Any] = column.to_pylist()
    return values
