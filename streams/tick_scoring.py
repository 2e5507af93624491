"""rows of a tick → decode → features as of the tick → scores → predictions that name it, and dead letters."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.models.durations import iso
from headrace.models.errors import EventRejected
from headrace.models.pipeline import Pipeline
from headrace.models.records import TICK_HEADER
from headrace.streams.codec import clock_ms
from headrace.streams.dead_letters import dead_letters, headers_of_each
from headrace.streams.infer import Topics, score
from headrace.streams.model import LiveModel
from headrace.streams.out import Message, Out, Outs
from headrace.streams.predictions import Predictions
from headrace.streams.rings import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What some rows came to."""

    records: Sequence[Out | Outs]
    rows: int  # predicted
    newer: int  # left out: their time is after the tick
    rejected: Counter[str]  # dead letters, by reason


class TickScoring:
    """One tick by one version. A row's own time stays its `event_time`; lookups and aggregates see what was strictly
    before the tick, whenever this runs, and rows with a time after the tick are left out: nothing is newer than it."""

    def __init__(
        self,
        pipeline: Pipeline,
        topics: Topics,
        store: FeatureStore | None,
        model: LiveModel,
        tick: int,
        now_ms: Callable[[], int] = clock_ms,
    ) -> None:
        """`tick` is its scheduled time, Unix ms; `model` decodes the source's rows."""
        self._topics, self._store, self._model, self._now_ms = topics, store, model, now_ms
        self._predictions = Predictions(pipeline.name, pipeline.label, topics.predictions)
        self._tick, self._name = tick, iso(tick)

    def handle(self, messages: Sequence[Message]) -> Ticked:
        scored = score(self._model, self._store, [one.value() for one in messages], self._now_ms(), self._tick)
        headers, unreadable = headers_of_each(messages)
        if unreadable:
            error = EventRejected("bad_header", "expected headers whose names are UTF-8; they are left out here")
            scored = scored.without([(r, error) for r, at in enumerate(scored.decoded.kept) if at in unreadable])
        rejected = scored.decoded.rejected
        in_time = np.flatnonzero(scored.decoded.times <= self._tick)
        newer = len(scored.decoded.kept) - len(in_time)
        scored = scored.only(in_time)
        kept = [messages[at] for at in scored.decoded.kept]
        records: list[Out | Outs] = [
            self._parked(letter) for letter in dead_letters(self._topics.dead_letters, messages, rejected)
        ]
        if kept:
            ids = scored.decoded.ids
            records.append(
                self._predictions.of_tick(
                    self._name,
                    ids=ids,
                    times=scored.decoded.times,
                    scores=scored.scores,
                    version=self._model.version,
                    sources=[(one.topic() or "", one.partition() or 0, one.offset() or 0) for one in kept],
                    keys=[_key(one, row_id) for one, row_id in zip(kept, ids, strict=True)],
                    headers=[headers[at] for at in scored.decoded.kept],
                )
            )
        return Ticked(
            records=records,
            rows=len(kept),
            newer=newer,
            rejected=Counter(error.reason for _, error in rejected),
        )

    def _parked(self, letter: Out) -> Out:
        headers = [*letter.headers, (TICK_HEADER, self._name.encode())]
        return Out(letter.topic, letter.key, letter.value, headers, letter.partition)


def _key(message: Message, row_id: str) -> bytes:
    key = message.key()
    return row_id.encode("utf-8", "surrogatepass") if key is None else key
