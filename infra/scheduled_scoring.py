"""a tick of `Pipeline.score` → its rows, scored by the champion of its begin, in parts of one transaction each."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from headrace.infra.fenced import Fenced
from headrace.infra.kafka import transactional_config
from headrace.infra.leadership import KafkaRunsLog
from headrace.infra.names import RUNS, Names
from headrace.infra.score_sources import RowSource, source_of
from headrace.infra.services.scores.row_model import row_model, row_store
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.settings import Settings
from headrace.models.aliases import CHAMPION
from headrace.models.durations import iso, to_ms
from headrace.models.errors import RunFailed
from headrace.models.facts import DeadLettered, Observer
from headrace.models.records import Scored, Scoring
from headrace.models.scoring import Score
from headrace.scheduler.score_records import Begin
from headrace.scheduler.scorer import Part
from headrace.streams.codec import EventDecoder, clock_ms
from headrace.streams.latest_rows import LatestRows
from headrace.streams.model import LiveModel
from headrace.streams.out import Message, Out, Outs
from headrace.streams.sink import produce_all
from headrace.streams.tick_scoring import Ticked, TickScoring

CHUNK_ROWS, CHUNK_BYTES = 4_000, 8 * 1024 * 1024  # scored together, as a worker's chunks are
# In one transaction. It opens when all of it is scored: while it is open, nobody who reads committed records sees what
# workers predict behind it. A tick of ten million rows leaves two hundred records on the runs topic.
PART_ROWS, PART_BYTES = 50_000, 16 * 1024 * 1024


class ScoreWriter(Fenced):
    """A part of a tick and how far it is then: both or none."""

    def __init__(self, settings: Settings, names: Names, log: KafkaRunsLog) -> None:
        self._runs = names.of(RUNS)
        super().__init__(transactional_config(settings, names.scorer), log, self._runs, names.scorer)

    def write(self, record: Scoring | Scored, records: Sequence[Out | Outs] = ()) -> None:
        def write() -> None:
            for some in records:
                produce_all(self._producer, some)
            self._producer.produce(self._runs, msgspec.json.encode(record), record.pipeline.encode())

        self.transaction(write)


class Scoreboard:
    """Sources and versions of one pipeline. Used by one thread."""

    def __init__(self, settings: Settings, names: Names, observer: Observer) -> None:
        """Raises ServerMissing."""
        self._settings, self._names, self._observer = settings, names, observer
        self._store = row_store(settings, names)
        self._opened: tuple[tuple[int, str], LiveModel] | None = None  # by version and source: ticks often share them

    def begin(self, score: Score) -> Begin:
        source = source_of(self._settings, self._names, score)
        champion = known_versions(self._settings, self._names).aliases[CHAMPION]
        self._model(score, champion)
        return Begin(version=champion, ends=source.ends(), identity=source.identity())

    def parts(self, score: Score, begun: Scoring, partition: int, position: int) -> Generator[Part | None, None, None]:
        """Partition by partition, in the order of offsets. Rows that were compacted away since the tick began had a
        newer one behind them, and count as such."""
        source, tick = source_of(self._settings, self._names, score), to_ms(datetime.fromisoformat(begun.tick))
        model, pipeline = self._model(score, begun.version), self._names.pipeline
        scoring = TickScoring(pipeline, self._names.topics, self._store, model, tick)
        decoder = EventDecoder(score.rows(pipeline.events), (), pipeline.max_future_ms)
        part = _Growing(partition, position)
        _expect_unchanged(source, begun)
        for number, end in sorted(begun.ends.items()):
            if number < partition:
                continue
            latest, seen = LatestRows(decoder, tick), 0
            for messages in source.survey(number, end):
                latest.take(messages, clock_ms())
                yield None
            wanted = latest.offsets()
            wanted = wanted[wanted >= (position if number == partition else 0)]
            for chunk in _chunks(source, number, wanted, end):
                ticked = scoring.handle(chunk)
                self._expect_whole(tick)
                self._parked(score, ticked.rejected)
                part.add(ticked, number, (chunk[-1].offset() or 0) + 1)
                seen += len(chunk)
                if part.is_full:
                    _expect_unchanged(source, begun)
                    yield part.taken(last=False)
                yield None
            part.newer += latest.newer + len(wanted) - seen
            part.partition, part.position = number + 1, 0
        _expect_unchanged(source, begun)
        yield part.taken(last=True)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _model(self, score: Score, version: int) -> LiveModel:
        if self._opened is not None and self._opened[0] == (version, score.name):
            return self._opened[1]
        versions, rows = known_versions(self._settings, self._names), score.rows(self._names.pipeline.events)
        model = row_model(self._settings, self._names, versions, version, rows)
        self._opened = (version, score.name), model
        return model

    def _expect_whole(self, tick: int) -> None:
        """After the read: side rows that a tick needs are kept until the side topic is `lateness` past it."""
        if self._store is None:
            return
        for feature in self._names.pipeline.stored:
            watermark = self._store.watermark(self._names.of(feature.topic.name))
            if watermark is not None and watermark > tick + feature.lateness_ms:
                said = f"{feature.topic.name} is at {iso(watermark)}, its rows as of {iso(tick)} are kept for"
                raise RunFailed("too_late", f"{said} lateness={feature.lateness!r} and may be gone. Raise lateness.")

    def _parked(self, score: Score, reasons: Counter[str]) -> None:
        if reasons:
            self._observer(DeadLettered(pipeline=self._names.pipeline.name, topic=score.name, reasons=reasons))


class _Growing:
    """A part that is being made."""

    def __init__(self, partition: int, position: int) -> None:
        self.partition, self.position = partition, position
        self._records: list[Out | Outs] = []
        self._rows = self._rejected = self.newer = self._bytes = 0

    def add(self, ticked: Ticked, partition: int, position: int) -> None:
        self.partition, self.position = partition, position
        self._records += ticked.records
        self._rows += ticked.rows
        self._rejected += ticked.rejected.total()
        self.newer += ticked.newer
        self._bytes += sum(_size(some) for some in ticked.records)

    @property
    def is_full(self) -> bool:
        return self._rows + self._rejected >= PART_ROWS or self._bytes >= PART_BYTES

    def taken(self, *, last: bool) -> Part:
        part = Part(
            records=self._records,
            partition=self.partition,
            position=self.position,
            rows=self._rows,
            rejected=self._rejected,
            newer=self.newer,
            last=last,
        )
        self._records = []
        self._rows = self._rejected = self.newer = self._bytes = 0
        return part


def _expect_unchanged(source: RowSource, begun: Scoring) -> None:
    if source.identity() != begun.identity:
        said = f"{begun.source} is not what it was when the tick began, and the places of its rows say nothing any more"
        raise RunFailed("source_changed", said)


def _chunks(source: RowSource, partition: int, wanted: Any, end: int) -> Iterator[list[Message]]:
    """The rows at these offsets, ascending, as many as are scored together."""
    if not len(wanted):
        return
    chunk, size = list[Message](), 0
    for messages in source.rows(partition, int(wanted[0]), end):
        offsets = np.array([message.offset() for message in messages])
        places = np.searchsorted(wanted, offsets)
        counts = (places < len(wanted)) & (wanted[np.minimum(places, len(wanted) - 1)] == offsets)
        for at in np.flatnonzero(counts).tolist():
            chunk.append(messages[at])
            size += len(messages[at].value() or b"")
            if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _size(some: Out | Outs) -> int:
    return sum(len(value) for value in some.values) if isinstance(some, Outs) else len(some.value or b"")
