"""events that were answered on demand → `<pipeline>.served`, in Arrow batches, behind their answers.

Nobody waits for the broker. A row is held until it is acknowledged, and what is held is bounded: beyond that, and where
the broker takes nothing for minutes, rows are not logged; that is counted, and said.
"""

import threading
from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.infra.kafka import producer_config
from headrace.infra.settings import Settings
from headrace.models.facts import Observer, RowsLogged, RowsNotLogged
from headrace.models.records import ON_DEMAND_HEADER
from headrace.streams.out import Headers
from headrace.streams.served import encode_on_demand

_EVERY_SECONDS = 0.5  # few records: who looks for the row of a stream's event passes over them
_SOON_BYTES = 4 << 20  # waiting rows that are written at once
_FLUSH_SECONDS = 10.0  # at the end
_PURGE_SECONDS = 1.0
_TOO_MANY, _UNDELIVERED = "too_many", "undelivered"


class RowLog:
    """One pipeline's, with a thread that writes. `add` is for the event loop."""

    def __init__(self, settings: Settings, pipeline: str, topic: str, observer: Observer, most_bytes: int) -> None:
        """`most_bytes` of rows are held, those that the broker has not acknowledged yet among them."""
        self._pipeline, self._topic, self._observer, self._most = pipeline, topic, observer, most_bytes
        config = producer_config(settings, delivery_report_only_error=False)  # each acknowledgement makes room
        self._producer = Producer(config)
        self._lock = threading.Lock()
        self._waiting: list[tuple[pa.RecordBatch, int]] = []  # with bytes
        self._waiting_bytes = self._held = 0
        self._logged, self._lost = 0, Counter[str]()  # rows that no fact has told of yet
        self._due, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name=f"served-{pipeline}", daemon=True)
        self._thread.start()

    def add(self, rows: pa.RecordBatch, size: int) -> None:
        """Of one version, so many bytes; their places are those that the broker gives them."""
        with self._lock:
            if self._held + size > self._most:
                self._lost[_TOO_MANY] += rows.num_rows
                return
            self._held += size
            self._waiting_bytes += size
            self._waiting.append((rows, size))
            soon = self._waiting_bytes > _SOON_BYTES
        if soon:
            self._due.set()

    @property
    def held(self) -> int:
        """Bytes."""
        return self._held

    def close(self) -> None:
        """(1) what waits is written, (2) acknowledged, or given up and counted."""
        self._closing = True
        self._due.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing:
            self._due.wait(_EVERY_SECONDS)
            self._due.clear()
            self._write()
            self._report()
        self._write()
        if self._producer.flush(_FLUSH_SECONDS):
            self._producer.purge()
            self._producer.flush(_PURGE_SECONDS)
        self._report()

    def _write(self) -> None:
        with self._lock:
            taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        groups: list[_Group] = []
        for rows, size in taken:
            group = next((one for one in groups if one.takes(rows)), None)
            if group is None:
                groups.append(group := _Group(rows))
            group.rows.append(rows)
            group.size += size
        for group in groups:
            self._produce(group)
        self._producer.poll(0)

    def _produce(self, group: "_Group") -> None:
        (batch,) = pa.Table.from_batches(group.rows).combine_chunks().to_batches()
        records = encode_on_demand(batch)
        with self._lock:
            self._held += sum(len(value) for value, _ in records) - group.size
        for value, rows in records:
            headers: Headers = [(ON_DEMAND_HEADER, str(rows).encode())]
            told = partial(self._delivered, rows, len(value))
            try:
                self._producer.produce(self._topic, value, headers=headers, on_delivery=told)
            except (BufferError, KafkaException):  # an operator's own queue, smaller than what is held; a dead producer
                self._settled(rows, len(value), delivered=False)

    def _delivered(self, rows: int, size: int, error: KafkaError | None, _message: Any) -> None:
        self._settled(rows, size, delivered=error is None)

    def _settled(self, rows: int, size: int, *, delivered: bool) -> None:
        with self._lock:
            self._held -= size
            if delivered:
                self._logged += rows
            else:
                self._lost[_UNDELIVERED] += rows

    def _report(self) -> None:
        with self._lock:
            logged, lost = self._logged, self._lost
            self._logged, self._lost = 0, Counter()
        if logged:
            self._observer(RowsLogged(pipeline=self._pipeline, rows=logged))
        for reason, rows in lost.items():
            self._observer(RowsNotLogged(pipeline=self._pipeline, rows=rows, reason=reason))


class _Group:
    """Rows of one version and schema. Schemas are compared, not hashed: those of one model are one object, and a hash
    goes through all fields."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._schema, self._version = rows.schema, _version(rows)
        self.rows: list[pa.RecordBatch] = []
        self.size = 0  # bytes

    def takes(self, rows: pa.RecordBatch) -> bool:
        return bool(rows.schema.equals(self._schema)) and _version(rows) == self._version


def _version(rows: pa.RecordBatch) -> int:
    version: int = rows.column("version")[0].as_py()
    return version
