"""A pipeline on lists of rows, without servers: for a test that runs in milliseconds.

    from headrace.testing import replay

    def test_a_late_airport_raises_the_score():
        result = replay(
            flight_delay,
            events=[{"flight_id": "UA1", "published_at": "2013-01-01T11:00:00Z", "origin": "EWR", ...}],
            side_rows={"departures": [{"departed_at": "2013-01-01T10:30:00Z", "origin": "EWR", "dep_delay": 90}]},
            labels=[{"flight_id": "UA1", "landed_at": "2013-01-01T16:00:00Z", "arr_delay": 44}],
            now="2013-01-02T00:00Z",
        )
        assert result.features["UA1"]["departures_dep_delay_mean_2h_by_origin"] == 90
        assert result.prediction("UA1").version == 0

What decodes, files side rows, computes features, scores, encodes, joins and trains is what a worker and a trainer
run. Kafka is these lists, Redis is a dictionary, and the clock is `now`.
"""

import secrets
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.models.durations import iso, to_ms
from headrace.models.errors import BadInput
from headrace.models.features import Topic
from headrace.models.labels import answer_of
from headrace.models.metrics import measure
from headrace.models.pipeline import SERVED_FIELDS, Pipeline
from headrace.models.protocols import Dataset
from headrace.models.records import REASON_HEADER, SOURCE_HEADER, ClassPrediction, Prediction
from headrace.models.session import Predictor, Session, expect_classes
from headrace.streams.canary import Serving
from headrace.streams.chunk import Chunk
from headrace.streams.codec import LabelDecoder, LabelRow, clock_ms
from headrace.streams.dead_letters import dead_letters
from headrace.streams.formats import encoded
from headrace.streams.infer import Inference, Topics
from headrace.streams.memory_store import MemoryFeatureStore
from headrace.streams.model import Baseline, LiveModel, live_model
from headrace.streams.out import Headers, Out
from headrace.streams.rings import RingSpec, rings_of
from headrace.streams.served import decode_served, scores_of
from headrace.streams.side_rows import SideDecoder
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import LABEL, join, rules_of, to_dataset
from headrace.trainer.dataset import Joined as JoinedTable
from headrace.trainer.matching import Counts
from headrace.trainer.messages import Champion, RunRequest, RunResult
from headrace.trainer.run import MODEL, train_candidate

__all__ = ["Candidate", "DeadLetter", "Joined", "Record", "Replayed", "replay", "train"]

_CHUNK_ROWS = 1_000  # as a worker takes them
_LABELS = pa.schema([("id", pa.string()), ("time", pa.int64()), ("value", pa.float64())])


@dataclass(frozen=True)
class Record:
    """A row with what else a Kafka record has. `value` is a dict, or the bytes themselves; None is a tombstone."""

    value: Mapping[str, Any] | bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


Row = Mapping[str, Any] | bytes | Record | None
"""A dict is written in its topic's format (in JSON an aware datetime is RFC 3339, NaN null, bytes base64). Bytes are
taken as they are, rubbish included."""
Moment = str | int | datetime
"""RFC 3339 with an offset, Unix milliseconds, or an aware datetime."""


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One record of `<pipeline>.dead-letters`, its headers read."""

    topic: str
    offset: int  # its place in the list of its topic
    key: bytes | None
    value: bytes | None
    reason: str  # the short word: not_json, wrong_shape, future, …
    detail: str


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A served row that may be trained on."""

    id: str
    event_time: str
    score: float
    label: float
    version: int
    offset: int  # its event's place in the list


class Replayed:
    """What came of a replay."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        records: list[Out],
        labels: list[LabelRow],
        onnx: bytes | None,
        now_ms: int | None,
    ) -> None:
        topics = topics_of(pipeline)
        self.pipeline, self.onnx = pipeline, onnx
        self.records = records
        """Everything that would be produced, in order, headers included."""
        self.predictions: list[Prediction] = [
            msgspec.json.decode(record.value or b"", type=ClassPrediction if pipeline.label.classes else Prediction)
            for record in records
            if record.topic == topics.predictions
        ]
        self.dead_letters = [_dead_letter(record) for record in records if record.topic == topics.dead_letters]
        self.served = [decode_served(record.value or b"") for record in records if record.topic == topics.served]
        """Arrow batches as on `<pipeline>.served`."""
        self.labels = labels
        self._now_ms = now_ms

    def __repr__(self) -> str:
        return (
            f"<{len(self.predictions)} predictions, {len(self.dead_letters)} dead letters, {len(self.joined)} joined>"
        )

    def prediction(self, event_id: str) -> Prediction:
        """The newest one of the event."""
        for prediction in reversed(self.predictions):
            if prediction.id == event_id:
                return prediction
        reasons = [f"{letter.reason}: {letter.detail}" for letter in self.dead_letters]
        raise LookupError(f"no prediction of {event_id!r}; dead letters: {reasons or 'none'}")

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """Raw columns as they were served, by event id; None is missing."""
        return {
            row["id"]: {name: value for name, value in row.items() if name not in SERVED_FIELDS}
            for batch in self.served
            for row in batch.to_pylist()
        }

    @property
    def horizon_ms(self) -> int:
        """When everything is joined: `now`, or else when the last horizon has closed."""
        return self._newest_ms + self.pipeline.label.within_ms if self._now_ms is None else self._now_ms

    @property
    def joined(self) -> list[Joined]:
        """Rows with their label, by the trainer's rule, as of `now`; of any age. Ordered by event time."""
        table = self._joined_by_now
        if table is None:
            return []
        wanted = table.table.select(["id", "event_time", "score", LABEL, "version", "offset"])
        times = table.table["event_time"].cast(pa.int64()).to_pylist()
        rows = zip(times, wanted.drop_columns(["event_time"]).to_pylist(), strict=True)
        return [Joined(event_time=iso(time), **row) for time, row in rows]

    @property
    def counts(self) -> Counts | None:
        """What became of rows and labels: late, repeated, unknown, still open, … None where nothing was served."""
        return self._joined_by_now.counts if self._joined_by_now else None

    @property
    def metrics(self) -> dict[str, float]:
        """Of the served scores, on the joined rows."""
        joined = self._joined_by_now
        if joined is None:
            return measure(self.pipeline.label.task, np.empty(0), np.empty(0))
        return measure(self.pipeline.label.task, as_numpy(joined.table[LABEL]), scores_of(joined.table))

    def dataset(self, at: Moment | None = None, *, with_anchor: bool = False) -> Dataset:
        """What a training at `at` (`now` by default) sees: the rows of `train_on`'s window, and those that an `Anchor`
        takes out of it only if asked for. Raises RunFailed."""
        at_ms = self.horizon_ms if at is None else _milliseconds("at", at)
        rules = rules_of(self.pipeline, at_ms)
        if with_anchor:
            rules["anchor"] = None
        joined = join(self.served, [self.label_batch()], **rules)
        return to_dataset(joined, self.pipeline.schema, self.pipeline.label.task)

    @cached_property
    def _joined_by_now(self) -> JoinedTable | None:
        """Of any age."""
        rules = rules_of(self.pipeline, self.horizon_ms)
        del rules["window"]
        rules["window_ms"] = self.horizon_ms
        return join(self.served, [self.label_batch()], **rules) if self.served else None

    def label_batch(self) -> Any:
        """The usable labels as the trainer reads them."""
        ids, times, values = ([getattr(row, name) for row in self.labels] for name in ("id", "time", "value"))
        return pa.record_batch([ids, times, values], schema=_LABELS)

    @property
    def _newest_ms(self) -> int:
        served = [batch.column("event_time").cast(pa.int64()).to_numpy().max() for batch in self.served]
        return int(max([*served, *(label.time for label in self.labels)], default=0))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a training made. `run` has its verdict, metrics and curves; `replay(…, model=candidate)` serves it."""

    onnx: bytes
    run: RunResult


def replay(
    pipeline: Pipeline,
    events: Iterable[Row] = (),
    *,
    side_rows: Mapping[str, Iterable[Row]] | None = None,
    labels: Iterable[Row] = (),
    model: Candidate | Predictor | bytes | str | PathLike[str] | None = None,
    now: Moment | None = None,
) -> Replayed:
    """Side rows into the feature store, then events through the model, then labels to their rows.

    Rows may come in any order: features are read as of each event's time, so none sees what happened later. `model` is
    an ONNX file, its bytes, a `Candidate`, or any object with `predict(columns, rows)`; without one the baseline
    serves. `now` is the clock: what lies further ahead of it than `max_future` is parked, and labels are joined as of
    it. Without, rows are judged by the machine's clock and joined when the last horizon has closed.
    """
    now_ms = None if now is None else _milliseconds("now", now)
    clock = clock_ms() if now_ms is None else now_ms
    store, side_letters = _side_rows_applied(pipeline, side_rows or {}, clock)
    live, onnx = _live(pipeline, model)
    records = side_letters + _inferred(pipeline, live, store, _messages(pipeline.events, events), clock)

    messages = _messages(pipeline.label.topic, labels)
    decoder = LabelDecoder(pipeline.label, pipeline.max_future_ms)
    _, rows, rejected = decoder.decode([message.value() for message in messages], clock)
    records += dead_letters(topics_of(pipeline).dead_letters, messages, rejected)
    return Replayed(pipeline, records=records, labels=rows, onnx=onnx, now_ms=now_ms)


def train(pipeline: Pipeline, replayed: Replayed, *, at: Moment | None = None) -> Candidate:
    """One training at `at` (`now` of the replay by default), from join to verdict, in this process. Raises RunFailed.

    The champion that the gate compares with is what served the replay: the baseline's prior, or the ONNX model.
    """
    token = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        place = Path(folder)
        champion = _champion(pipeline, replayed, place)
        for number, batch in enumerate(replayed.served):
            _write(place / f"served-{number:06}.arrow", batch)
        _write(place / "labels.arrow", replayed.label_batch())
        request = RunRequest(
            run="test",
            loader=f"{__name__}:_handed_over",
            pipeline=token,
            at_ms=replayed.horizon_ms if at is None else _milliseconds("at", at),
            data=folder,
            out=folder,
            cache=folder,
            champion=champion,
        )
        _pipelines[token] = pipeline
        try:
            result = train_candidate(request)
        finally:
            del _pipelines[token]
        return Candidate(onnx=(place / MODEL).read_bytes(), run=result)


_pipelines: dict[str, Pipeline] = {}  # on their way into a training


def _handed_over(token: str) -> Pipeline:
    return _pipelines[token]


def topics_of(pipeline: Pipeline) -> Topics:
    return Topics(
        predictions=pipeline.topic("predictions"),
        served=pipeline.topic("served"),
        dead_letters=pipeline.topic("dead-letters"),
        history=pipeline.topic("history"),
    )


class _Message:
    """What is read of a Kafka message."""

    def __init__(self, topic: Topic, offset: int, row: Row) -> None:
        record = row if isinstance(row, Record) else Record(row)
        self._topic, self._offset, self._record = topic.name, offset, record
        self._value = value if (value := record.value) is None or isinstance(value, bytes) else _written(value, topic)

    def topic(self) -> str | None:
        return self._topic

    def partition(self) -> int | None:
        return 0

    def offset(self) -> int | None:
        return self._offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return list(self._record.headers) or None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0  # there is none, as a Kafka client says it


def _messages(topic: Topic, rows: Iterable[Row]) -> list[_Message]:
    return [_Message(topic, offset, row) for offset, row in enumerate(rows)]


def _written(row: Mapping[str, Any], topic: Topic) -> bytes:
    try:
        return encoded(row, topic.format)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(
            f"rows: expected what {topic.format} can hold, got {row!r} ({error}). Pass bytes to test rubbish."
        ) from error


def _side_rows_applied(
    pipeline: Pipeline, side_rows: Mapping[str, Iterable[Row]], clock: int
) -> tuple[MemoryFeatureStore, list[Out]]:
    known = {topic.name: topic for topic in pipeline.side_topics}
    if unknown := sorted(side_rows.keys() - known.keys()):
        raise BadInput(
            f"side_rows: expected topics of {pipeline.name}, {sorted(known) or 'it has none'}; got {unknown}."
        )
    by_topic: dict[str, list[RingSpec]] = {}
    for ring in rings_of(pipeline.stored):
        by_topic.setdefault(ring.topic, []).append(ring)
    store, letters = MemoryFeatureStore(), list[Out]()
    for topic, rows in side_rows.items():
        messages = _messages(known[topic], rows)
        decoder = SideDecoder(by_topic[topic], pipeline.max_future_ms, known[topic].format)
        chunk = decoder.decode([message.value() for message in messages], clock)
        letters += dead_letters(topics_of(pipeline).dead_letters, messages, chunk.rejected)
        # without a watermark nothing is trimmed: events of any age still find their rows
        store.append(topic, 0, expected=None, next_position=len(messages), rows=chunk.rows, newest=None)
    return store, letters


def _inferred(
    pipeline: Pipeline, live: LiveModel, store: MemoryFeatureStore, messages: Sequence[_Message], clock: int
) -> list[Out]:
    inference = Inference(pipeline, topics_of(pipeline), store, lambda: clock)
    place = (pipeline.events.name, 0)
    chunks = [
        Chunk(messages=messages[first : first + _CHUNK_ROWS], stamp=Serving(live), begins={place: first}, ends={})
        for first in range(0, len(messages), _CHUNK_ROWS)
    ]
    return [record for chunk in chunks for records in inference.handle(chunk).records for record in records.each()]


def _live(
    pipeline: Pipeline, model: Candidate | Predictor | bytes | str | PathLike[str] | None
) -> tuple[LiveModel, bytes | None]:
    if model is None:
        return live_model(pipeline, Baseline(pipeline)), None
    if isinstance(model, Candidate):
        model = model.onnx
    elif isinstance(model, str | PathLike):
        try:
            model = Path(model).read_bytes()
        except OSError as error:
            raise BadInput(f"model: expected an ONNX file, {error}") from error
    onnx = model if isinstance(model, bytes) else None
    predictor = Session(model, pipeline.schema) if isinstance(model, bytes) else model
    if isinstance(predictor, Session):
        expect_classes(predictor, pipeline.label.classes)
    return live_model(pipeline, predictor, seq=1, version=1, features=pipeline.features), onnx


def _champion(pipeline: Pipeline, replayed: Replayed, folder: Path) -> Champion:
    if replayed.onnx is None:
        rule = pipeline.baseline
        return Champion(baseline=float(rule) if isinstance(rule, int | float) else answer_of(pipeline.label))
    path = folder / "champion.onnx"
    path.write_bytes(replayed.onnx)
    return Champion(version=1, onnx=str(path), schema=pipeline.schema)


def _dead_letter(record: Out) -> DeadLetter:
    ours = dict(record.headers[-2:])
    reason, _, detail = (ours[REASON_HEADER] or b"").decode(errors="replace").partition(": ")
    topic, _, offset = (ours[SOURCE_HEADER] or b"").decode().rsplit("/", 2)
    return DeadLetter(topic=topic, offset=int(offset), key=record.key, value=record.value, reason=reason, detail=detail)


def _write(path: Path, batch: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)


def _milliseconds(name: str, moment: Moment) -> int:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError as error:
            raise BadInput(f'{name}: expected a time like "2013-02-01T00:00Z", got {moment!r}.') from error
    return moment if isinstance(moment, int) else to_ms(moment)
