"""rows → a topic, in its format: every row checked before it goes, every delivery acknowledged."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, Producer

from headrace.infra.kafka import producer_config
from headrace.infra.row_format import Write
from headrace.infra.rows import read_rows
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.models.errors import BadInput, BrokerUnavailable, HeadraceError
from headrace.streams.rings import entity_text

_REPORT_ROWS = 1_000
_FLUSH_SECONDS = 60.0
Row = tuple[bytes | None, bytes]
"""Key, value."""


def rows_of(place: str, key: str | None = None, *, raw: bool = False, write: Write | None = None) -> Iterator[Row]:
    """The rows of a file, or of standard input ("-"), each with the text of its field `key` as message key.

    Raises BadInput at the first that is no JSON or lacks the key; `raw` lets such rows through, without a key. A file
    is read twice, so that it is refused before any of it was handed out; standard input can only be read once.
    `write` gives what goes on the topic; without it, JSON does.
    """
    if place != "-" and not raw:
        for _ in _keyed(place, key, write, raw=raw):
            pass
    return _keyed(place, key, write, raw=raw)


def produce(settings: Settings, topic: str, rows: Iterable[Row], sent: Callable[[int], None] = lambda _: None) -> int:
    """Records acknowledged by the broker. `topic` is given without the prefix; `sent` is told how many went so far.

    Raises BrokerUnavailable where the topic is not there or a record was refused, and what reading the rows raises:
    rows before that one have been delivered, and the message says how many.
    """
    name = settings.prefixed(topic)
    refused: list[KafkaError] = []
    producer = Producer(producer_config(settings, on_delivery=lambda error, _: refused.append(error)))
    count = 0
    try:
        partitions_of(producer, name)
        for key, value in rows:
            _enqueue(producer, name, key, value)
            count += 1
            if count % _REPORT_ROWS == 0:
                producer.poll(0)
                sent(count)
    except HeadraceError as error:
        _flush(producer)
        if not count:
            raise
        done = count - len(refused) - len(producer)
        raise type(error)(f"{error} (Delivered before it: {done}.)") from error
    _flush(producer)
    sent(count)
    if missing := len(refused) + len(producer):
        why = refused[0].str() if refused else f"no answer within {_FLUSH_SECONDS:.0f} s"
        raise BrokerUnavailable(f"{name}: {missing} of {count} records were not delivered: {why}")
    return count


def _keyed(place: str, key: str | None, write: Write | None, *, raw: bool) -> Iterator[Row]:
    for number, value in enumerate(read_rows(place, strict=not raw), start=1):
        try:
            yield None if key is None else _key(value, key), value if write is None else write(value)
        except BadInput as error:
            if not raw:
                raise BadInput(f"{place}, row {number}: {error}") from error
            yield None, value


def _key(value: bytes, key: str) -> bytes:
    try:
        row = msgspec.json.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadInput(f"expected JSON, {error}") from error
    given = row.get(key) if isinstance(row, dict) else None
    if not isinstance(given, str | int | float | bool):
        raise BadInput(f"expected text or a number in the key field {key!r}, got {given!r}. See --key and --raw.")
    return entity_text(given).encode("utf-8", "surrogatepass")


def _enqueue(producer: Any, topic: str, key: bytes | None, value: bytes) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _flush(producer: Any) -> None:
    producer.flush(_FLUSH_SECONDS)


def size_of(place: str) -> int | None:
    """Rows in a file, for a progress bar; None where only reading would tell."""
    path = Path(place)
    if place == "-" or not path.is_file() or path.suffix == ".parquet":
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
