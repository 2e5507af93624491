"""predictions by hand → JSON lines, Parquet, or a topic of the user's. A file is there when all of it is."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO
from uuid import uuid4

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Producer

from headrace.infra.files import located
from headrace.infra.kafka import producer_config
from headrace.infra.names import Names
from headrace.infra.services.scores.predict import RowPrediction, RowRejected
from headrace.infra.services.scores.rescore_topic import own_topic
from headrace.infra.settings import Settings
from headrace.models.durations import to_ms
from headrace.models.errors import BadInput
from headrace.streams.predictions import Predictions
from headrace.streams.sink import AcknowledgedSink

TOPIC = "topic:"
_SUFFIXES = (".jsonl", ".parquet")
_TOGETHER = 10_000  # rows of a Parquet row group, and of what goes to a topic at once
_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("prediction", pa.float64()),
        pa.field("decision", pa.bool_()),
        pa.field("pipeline", pa.string()),
        pa.field("version", pa.int32()),
        pa.field("event_time", pa.timestamp("ms", tz="UTC")),
        pa.field("reason", pa.string()),  # of a row that was rejected: all the others are null
        pa.field("detail", pa.string()),
    ]
)
Answers = Iterable[RowPrediction | RowRejected]


def expect_new_file(place: str) -> None:
    """Raises BadInput for a name that says no format, and for what is there already."""
    if not place.endswith(_SUFFIXES):
        raise BadInput(f"--to: expected {TOPIC}<name>, or a name that ends in {' or '.join(_SUFFIXES)}; got {place!r}.")
    files, path = located(place)
    if files.exists(path):
        raise BadInput(f"--to: {place} is there already. Remove it, or give another name.")


def to_file(answers: Answers, place: str) -> None:
    """Whole or not at all: under another name first. Raises BadInput where it cannot be written."""
    files, path = located(place)
    draft = f"{path}.{uuid4().hex}.draft"
    try:
        try:
            with files.open(draft, "wb") as file:
                _parquet(answers, file) if place.endswith(".parquet") else _json_lines(answers, file)
            files.mv(draft, path)
        except BaseException:
            with suppress(Exception):
                files.rm(draft)
            raise
    except OSError as error:
        raise BadInput(f"--to: {place} cannot be written: {error}") from error


def to_topic(answers: Answers, settings: Settings, names: Names, topic: str, rows: str) -> Iterator[RowRejected]:
    """Prediction records whose `source` is [`rows`, 0, row number from 0], by their id's partition; all acknowledged
    at the end. Gives the rejected rows, which go nowhere. Raises BadInput, BrokerUnavailable."""
    name = own_topic(settings, names, topic, "--to")
    predictions = Predictions(names.pipeline.name, names.pipeline.label, name)
    with _sink(settings) as sink:
        for some in _batches(answers):
            good = [one for one in some if isinstance(one, RowPrediction)]
            yield from (one for one in some if isinstance(one, RowRejected))
            if good:
                records = predictions.records(
                    ids=[one.id for one in good],
                    times=np.array([_ms(one.event_time) for one in good], np.int64),
                    scores=np.array([one.prediction for one in good]),
                    version=good[0].version,
                    sources=[(rows, 0, one.row - 1) for one in good],
                    keys=[one.id.encode("utf-8", "surrogatepass") for one in good],
                    headers=[None] * len(good),
                )
                sink.produce(replace(records, partitions=[-1] * len(good)))
                sink.acknowledged()  # raises what the broker refused so far


@contextmanager
def _sink(settings: Settings) -> Iterator[AcknowledgedSink]:
    sink = AcknowledgedSink(lambda report: Producer(producer_config(settings, on_delivery=report)))
    yield sink
    sink.flush()


def _json_lines(answers: Answers, file: BinaryIO) -> None:
    encode = msgspec.json.Encoder().encode
    file.writelines(encode(answer) + b"\n" for answer in answers)


def _parquet(answers: Answers, file: BinaryIO) -> None:
    with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        for some in _batches(answers):
            rows: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in some]
            for one in rows:
                if "event_time" in one:
                    one["event_time"] = _ms(one["event_time"])
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))


def _batches(answers: Answers) -> Iterator[Sequence[RowPrediction | RowRejected]]:
    rest = iter(answers)
    while some := list(islice(rest, _TOGETHER)):
        yield some


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))
