"""What was really served, against the labels that came later: live, and by the version frozen at the end of January."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np
import pyarrow as pa

from headrace.infra.demo.data import NEW_YORK
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.metrics import roc_auc
from headrace.models.records import SOURCE_HEADER, Prediction, Switched
from headrace.models.schema import Schema
from headrace.models.session import Session
from headrace.streams.codec import LabelDecoder, clock_ms
from headrace.streams.dead_letters import is_mark
from headrace.streams.live_join import Joined, LiveJoin
from headrace.streams.served import decode_served
from headrace.trainer.dataset import to_columns

Source = tuple[int, int]
_decode = msgspec.json.Decoder(Prediction).decode


@dataclass(frozen=True, kw_only=True)
class Frozen:
    version: int
    session: Session
    schema: Schema


class Scoreboard:
    """Reads predictions, served rows, labels and dead letters like any other subscriber."""

    def __init__(self, settings: Settings, names: Names) -> None:
        self._names = names
        topics = names.topics
        self._reader = TopicReader(
            settings, [topics.predictions, topics.served, topics.dead_letters, topics.history, names.labels]
        )
        self._labels = LabelDecoder(names.pipeline.label, names.pipeline.max_future_ms)
        self._take: dict[str, Callable[[list[bytes]], None]] = {
            topics.predictions: self._predictions,
            topics.served: self._served,
            names.labels: self._arrived,
            topics.history: self._switched,
        }
        self.join = LiveJoin(names.pipeline.label)
        self.frozen: Frozen | None = None
        self._frozen_scores: dict[Source, float] = {}
        self.months: dict[str, list[Joined]] = defaultdict(list)
        self._figures: dict[str, tuple[int, float, float]] = {}  # by month, for as many rows as the first says
        self._sources: set[Source] = set()
        self.predictions = 0
        self._parked: set[str] = set()
        self.dead_letters = 0
        self._promotions: set[int] = set()  # seqs that served somewhere

    def poll(self) -> None:
        """Takes everything that is on the topics now."""
        ends = self._reader.ends()
        while any(self._reader.positions[partition] < end for partition, end in ends.items() if end > 0):
            messages = self._reader.poll(0.2)
            if not messages:
                break  # what is left are markers of transactions
            by_topic: dict[str, list[bytes]] = defaultdict(list)
            for message in messages:
                if is_mark(message):
                    continue
                if message.topic() == self._names.topics.dead_letters:
                    self.dead_letters += 1
                    self._parked.add(dict(message.headers())[SOURCE_HEADER].decode())
                else:
                    by_topic[message.topic()].append(message.value())
            for topic in self._take.keys() & by_topic.keys():
                self._take[topic](by_topic[topic])

    def freeze(self, version: Frozen) -> None:
        """From now on, every served row is scored by this version, too."""
        self.frozen = version

    def lost(self, events: int) -> int:
        """Published events that have neither a prediction nor a dead letter."""
        topic = f"{self._names.events}/"
        parked = sum(source.startswith(topic) for source in self._parked)
        return events - len(self._sources) - parked

    @property
    def duplicated(self) -> int:
        return self.predictions - len(self._sources)

    @property
    def swaps(self) -> int:
        """Promotions that came to serve, by the record of who served what."""
        return len(self._promotions - {0})

    def monthly(self) -> dict[str, tuple[int, float, float]]:
        """By month: rows, AUC of what was served, AUC of the frozen version on the same rows (NaN before it)."""
        for month, rows in self.months.items():
            if self._figures.get(month, (0, 0.0, 0.0))[0] != len(rows):
                self._figures[month] = self._measured(rows)
        return dict(sorted(self._figures.items()))

    def _measured(self, rows: list[Joined]) -> tuple[int, float, float]:
        labels = np.array([row.label for row in rows])
        frozen = np.array([self._frozen_scores.get(row.source, np.nan) for row in rows])
        served = np.array([row.score for row in rows])
        frozen_auc = roc_auc(labels, frozen) if not np.isnan(frozen).any() else float("nan")
        return len(rows), roc_auc(labels, served), frozen_auc

    def _predictions(self, values: list[bytes]) -> None:
        for value in values:
            _, partition, offset = _decode(value).source
            self._sources.add((partition, offset))
        self.predictions += len(values)

    def _served(self, values: list[bytes]) -> None:
        for value in values:
            batch = decode_served(value)
            if self.frozen is not None:
                columns = to_columns(pa.Table.from_batches([batch]), self.frozen.schema)
                scores = self.frozen.session.predict(columns, batch.num_rows).tolist()
                sources = zip(batch["partition"].to_pylist(), batch["offset"].to_pylist(), strict=True)
                self._frozen_scores.update(zip(sources, scores, strict=True))
            self._keep(self.join.served(batch))

    def _arrived(self, values: list[bytes]) -> None:
        _, rows, _ = self._labels.decode(values, clock_ms())
        self._keep(self.join.labels(rows))

    def _switched(self, values: list[bytes]) -> None:
        self._promotions |= {msgspec.json.decode(value, type=Switched).seq for value in values}

    def _keep(self, joined: list[Joined]) -> None:
        for row in joined:
            self.months[_month(row.time)].append(row)


def _month(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(NEW_YORK).strftime("%Y-%m")


def mean_from_february(months: dict[str, tuple[int, float, float]]) -> tuple[float, float]:
    """Mean monthly AUC, live and frozen, over the months that the frozen version scored, weight 1 each."""
    scored = [(live, frozen) for _, live, frozen in months.values() if not np.isnan(frozen)]
    if not scored:
        return float("nan"), float("nan")
    live, frozen = np.mean(scored, axis=0)
    return float(live), float(frozen)
