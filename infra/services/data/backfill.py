"""past events, side rows and labels from files → topics, by the replay, in event time; and what came of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec
import numpy as np

from headrace.infra.names import Names
from headrace.infra.replay import Replay, Rows, Slice, feature_store
from headrace.infra.row_format import writer
from headrace.infra.rows import EventStream, dated, read_rows
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import from_end
from headrace.models.errors import BadInput
from headrace.models.features import Topic
from headrace.models.metrics import measure
from headrace.models.pipeline import Pipeline
from headrace.models.records import Prediction
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.streams.dead_letters import is_mark
from headrace.streams.live_join import Joined, LiveJoin
from headrace.streams.served import served_rows

_POLL_SECONDS = 0.2
_decode = msgspec.json.Decoder(Prediction).decode


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where the past is: JSON lines or Parquet."""

    events: str
    labels: str | None = None
    side: Mapping[str, str] = field(default_factory=dict)  # topic, without the prefix → file
    key: str | None = None  # field that is the events' message key; by default their id


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `--output json` prints. `metrics`: of what was served, on labels that came after it."""

    pipeline: str
    events: int
    predictions: int
    dead_letters: int
    labels: int
    labels_joined: int
    trainings: int
    promotions: int
    rejections: int
    failures: int
    version: int  # that serves at the end, as far as this backfill knows
    metrics: dict[str, float]
    wall_seconds: float


def rows_of(pipeline: Pipeline, files: Files) -> Rows:
    """Raises BadInput for what is no row, and for a side topic that the pipeline does not read."""
    check_side(pipeline, files.side)
    topics = {topic.name: topic for topic in pipeline.side_topics}

    def stream(place: str, topic: Topic, key: str | None = None) -> EventStream:
        return dated(read_rows(place), topic, key, writer(pipeline, topic.name))

    rows = Rows(
        events=stream(files.events, pipeline.events, files.key),
        labels=stream(files.labels, pipeline.label.topic) if files.labels else None,
        side=[stream(place, topics[name]) for name, place in files.side.items()],
    )
    if not len(rows.events):
        raise BadInput(f"--events: expected events, {files.events} has none.")
    return rows


def side_files(given: Sequence[str]) -> dict[str, str]:
    """ "topic=file" each → file by topic. Raises BadInput."""
    pairs = {}
    for text in given:
        topic, equals, place = text.partition("=")
        if not equals or not topic or not place:
            raise BadInput(f"--side: expected TOPIC=FILE, as weather=weather.jsonl; got {text!r}.")
        pairs[topic] = place
    return pairs


def check_side(pipeline: Pipeline, side: Mapping[str, str]) -> None:
    """Raises BadInput for a topic that no feature of the pipeline reads."""
    known = sorted(topic.name for topic in pipeline.side_topics)
    if unknown := sorted(side.keys() - set(known)):
        raise BadInput(
            f"--side: expected {' or '.join(known) or 'none: no feature reads a side topic'}, got {', '.join(unknown)}."
        )


class Backfill:
    """One replay of some rows, while workers and a scheduler run. `alive` raises when they died for good."""

    def __init__(self, settings: Settings, names: Names, alive: Callable[[], None] = lambda: None) -> None:
        self._names, topics = names, names.topics
        self._begun = monotonic()
        self._store = feature_store(settings, names)
        self._replay = Replay(settings, names, self._store, alive)
        self._reader = from_end(settings, [topics.predictions, topics.served, topics.dead_letters, names.labels])
        self._labels = LabelDecoder(names.pipeline.label, names.pipeline.max_future_ms)
        self._join = LiveJoin(names.pipeline.label)
        self._joined: list[Joined] = []
        self._sources: set[tuple[str, int, int]] = set()
        self._counts: Counter[str] = Counter()
        self._version = 0

    def run(self, rows: Rows, *, longest_ms: int, start: int | None = None, end: int | None = None) -> Iterator[Slice]:
        for done in self._replay.run(rows, longest_ms=longest_ms, start=start, end=end):
            self._counts["events"] += done.events
            if done.finished is not None:
                self._counts[done.finished.outcome] += 1
                self._version = done.finished.version or self._version
            self._read()
            yield done

    def summary(self) -> Summary:
        self._read()
        counts = self._counts
        scores, labels = (np.array([getattr(row, name) for row in self._joined]) for name in ("score", "label"))
        metrics = measure(self._names.pipeline.label.task, labels, scores) if self._joined else {}
        return Summary(
            pipeline=self._names.pipeline.name,
            events=counts["events"],
            predictions=len(self._sources),
            dead_letters=counts["dead_letters"],
            labels=counts["labels"],
            labels_joined=self._join.joined,
            trainings=counts["promoted"] + counts["rejected"] + counts["failed"],
            promotions=counts["promoted"],
            rejections=counts["rejected"],
            failures=counts["failed"],
            version=self._version,
            metrics={name: round(value, 4) for name, value in metrics.items() if np.isfinite(value)},
            wall_seconds=round(monotonic() - self._begun, 1),
        )

    def close(self) -> None:
        self._replay.close()
        self._reader.close()
        if self._store is not None:
            self._store.close()

    def _read(self) -> None:
        """Everything that is on the topics now."""
        ends = self._reader.ends()
        while any(self._reader.positions[partition] < end for partition, end in ends.items()):
            messages = self._reader.poll(_POLL_SECONDS)
            if not messages and self._reader.caught_up:
                return  # what is left are markers of transactions
            for message in messages:
                if not is_mark(message):
                    self._take(message)

    def _take(self, message: Any) -> None:
        names, topic, value = self._names, message.topic(), message.value() or b""
        if topic == names.topics.predictions:
            self._sources.add(_decode(value).source)
        elif topic == names.topics.dead_letters:
            self._counts["dead_letters"] += 1
        elif topic == names.topics.served:
            self._joined += self._join.served(served_rows(message))
        else:
            self._counts["labels"] += 1
            _, rows, _ = self._labels.decode([value], clock_ms())
            self._joined += self._join.labels(rows)
