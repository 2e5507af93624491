"""chunk of events → decode → features → scores → predictions, served batches and dead letters. No I/O but the store."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import EventRejected, RegistryRefused
from headrace.models.facts import DeadLettered, Predicted
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns
from headrace.models.records import FIRST_OFFSET_HEADER, LAST_OFFSET_HEADER
from headrace.models.scores import finite
from headrace.streams.canary import Serving
from headrace.streams.chunk import Chunk, Outcome, TopicPartition
from headrace.streams.codec import Decoded, clock_ms
from headrace.streams.dead_letters import dead_letters, headers_of_each
from headrace.streams.formats import Rejected
from headrace.streams.model import LiveModel
from headrace.streams.out import Headers, Message, Out, Outs, each
from headrace.streams.predictions import Predictions
from headrace.streams.rings import FeatureStore
from headrace.streams.served import encode_served, served_batch

_SAMPLE_ROWS = 200
_MODEL_REASONS = frozenset({"model_failed", "model_timeout", "score_not_finite"})
_MOST_LATE = 2  # rows without an answer in time, until the rest of their chunk is not asked any more


@dataclass(frozen=True, kw_only=True)
class Topics:
    """headrace's own topics of a pipeline, with the prefix of the cluster."""

    predictions: str
    served: str
    dead_letters: str
    history: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The good rows of some events."""

    decoded: Decoded
    columns: Columns
    scores: NDArray[np.float64]
    model: LiveModel
    seconds: dict[str, float]

    def without(self, bad: Sequence[Rejected]) -> "Scored":
        """The same less some rows, given by their place among the good ones."""
        good = np.delete(np.arange(len(self.scores)), [row for row, _ in bad])
        return replace(self._at(good), decoded=self.decoded.without(bad))

    def only(self, rows: NDArray[np.intp]) -> "Scored":
        """These rows, given by their places among the good ones."""
        if len(rows) == len(self.scores):
            return self
        return replace(self._at(rows), decoded=self.decoded.only(rows.tolist()))

    def sample(self, rows: int) -> tuple[Columns, int]:
        """The first rows, as columns, and how many."""
        return {name: array[:rows] for name, array in self.columns.items()}, min(rows, len(self.scores))

    def _at(self, rows: NDArray[np.intp]) -> "Scored":
        columns = {name: array[rows] for name, array in self.columns.items()}
        return replace(self, columns=columns, scores=self.scores[rows])


def score(
    model: LiveModel,
    store: FeatureStore | None,
    values: Sequence[bytes | None],
    now_ms: int,
    as_of: int | None = None,
) -> Scored:
    """Events as bytes to scores, whoever asks: the stream, the backfill, `headrace.testing`. `as_of` (Unix ms): stored
    features are read as of then, and not of each row's own time."""
    begun = monotonic()
    decoded = model.decoder.decode(values, now_ms)
    decoded_at = monotonic()
    parts: dict[str, float] = {}
    decoded, columns = model.plan.compute(decoded, store, parts, as_of)
    computed_at = monotonic()
    if decoded.kept:
        scores, bad = _predict(model, columns, len(decoded.kept))
    else:
        scores, bad = model.no_answers(0), []
    seconds = {"decode": decoded_at - begun, "features": computed_at - decoded_at, "infer": monotonic() - computed_at}
    scored = Scored(decoded=decoded, columns=columns, scores=scores, model=model, seconds=seconds | parts)
    return scored.without(bad) if bad else scored


def _predict(model: LiveModel, columns: Columns, rows: int) -> tuple[NDArray[np.float64], list[Rejected]]:
    """Scores [rows], NaN for those that are rejected. Where the model fails on the chunk it is asked row by row; after
    two rows without an answer in time the rest is rejected unasked: a hanging model must not hold the stream."""
    try:
        scores = model.predictor.predict(columns, rows)
        failed: dict[int, EventRejected] = {}
    except Exception as whole:  # noqa: BLE001  a user's rule may raise anything
        scores, failed = model.no_answers(rows), dict.fromkeys(range(rows), _failed(model, whole))
        late = 0
        for row in range(rows) if rows > 1 else ():
            one = {name: array[row : row + 1] for name, array in columns.items()}
            try:
                scores[row] = model.predictor.predict(one, 1)[0]
                del failed[row]
            except Exception as error:  # noqa: BLE001  as above
                failed[row] = _failed(model, error)
                late += failed[row].reason == "model_timeout"
            if late == _MOST_LATE:
                break
    bad = np.flatnonzero(~finite(scores)).tolist()
    return scores, [(row, failed.get(row) or _not_finite(scores[row], model)) for row in bad]


def _failed(model: LiveModel, error: Exception) -> EventRejected:
    said = f"version {model.version}: {error}"
    late = isinstance(error, RegistryRefused) and error.reason == "timeout"
    return EventRejected("model_timeout", said) if late else EventRejected("model_failed", said)


def _not_finite(value: float, model: LiveModel) -> EventRejected:
    return EventRejected("score_not_finite", f"version {model.version} answered {value}")


def _failures(scored: Scored) -> set[str]:
    """Reasons of rows that the model, and not the event, is to blame for."""
    return {error.reason for _, error in scored.decoded.rejected} & _MODEL_REASONS


class Inference:
    """The agent's handler: a chunk in, its outcome out."""

    def __init__(
        self, pipeline: Pipeline, topics: Topics, store: FeatureStore | None, now_ms: Callable[[], int] = clock_ms
    ) -> None:
        self._pipeline, self._topics, self._store, self._now_ms = pipeline, topics, store, now_ms
        self._predictions = Predictions(pipeline.name, pipeline.label, topics.predictions)
        self.sample: tuple[Columns, int] | None = None  # of the newest rows: what a new version is warmed on

    def handle(self, chunk: Chunk[Serving]) -> Outcome:
        """One outcome, whoever serves which of its messages: they are committed together."""
        begun = monotonic()
        records: list[Out | Outs] = []
        facts: list[object] = []
        for model, messages in chunk.stamp.parts(chunk.messages):
            found = self._served_by(model, messages, chunk.begins.keys(), begun - chunk.taken_at, chunk.stamp)
            records += found.records
            facts += found.facts
        return Outcome(records=records, facts=facts)

    def _served_by(
        self,
        model: LiveModel,
        messages: Sequence[Message],
        owners: Collection[TopicPartition],
        waited: float,
        serving: Serving,
    ) -> Outcome:
        scored = score(model, self._store, each("value", messages), self._now_ms())
        if model is not serving.champion and (failed := _failures(scored)):
            return self._instead(failed, messages, owners, waited, serving)
        headers, unreadable = headers_of_each(messages)
        if unreadable:
            error = EventRejected("bad_header", "expected headers whose names are UTF-8; they are left out here")
            scored = scored.without([(r, error) for r, at in enumerate(scored.decoded.kept) if at in unreadable])
        decoded = scored.decoded
        scored_at = monotonic()
        records: list[Out | Outs] = [*dead_letters(self._topics.dead_letters, messages, decoded.rejected)]
        facts: list[object] = []
        if decoded.kept:
            self.sample = scored.sample(_SAMPLE_ROWS)  # of the canary's rows, too: they have all columns that it needs
            if decoded.rejected:
                messages, headers = [messages[i] for i in decoded.kept], [headers[i] for i in decoded.kept]
            records += self._answers(scored, messages, headers, owners)
            seconds = {"wait": waited, **scored.seconds, "encode": monotonic() - scored_at}
            facts.append(self._predicted(scored, seconds))
        if decoded.rejected:
            reasons = Counter(error.reason for _, error in decoded.rejected)
            facts.append(DeadLettered(pipeline=self._pipeline.name, topic=self._pipeline.events.name, reasons=reasons))
        return Outcome(records=records, facts=facts)

    def _instead(
        self,
        failed: Collection[str],
        messages: Sequence[Message],
        owners: Collection[TopicPartition],
        waited: float,
        serving: Serving,
    ) -> Outcome:
        """What the canary cannot answer, the champion does; after no answer in time it is not asked any more."""
        if serving.canary is not None and "model_timeout" in failed:
            serving.canary.gave_up.set()
        return self._served_by(serving.champion, messages, owners, waited, serving)

    def _predicted(self, scored: Scored, seconds: dict[str, float]) -> Predicted:
        return Predicted(
            pipeline=self._pipeline.name,
            version=scored.model.version,
            rows=len(scored.scores),
            seconds=seconds,
            newest_event=int(scored.decoded.times.max()),
        )

    def _answers(
        self,
        scored: Scored,
        messages: Sequence[Message],
        headers: Sequence[Headers | None],
        owners: Collection[TopicPartition],
    ) -> list[Out | Outs]:
        """A prediction per message, and one Arrow batch per source partition in the partition of the same number."""
        decoded, offsets = scored.decoded, each("offset", messages)
        if len(owners) == 1:  # nothing to ask the messages, and nothing to sort out
            ((topic, partition),) = owners
            sources = list(zip(repeat(topic), repeat(partition), offsets, strict=False))
            served = self._served(scored, partition, np.array(offsets))
        else:
            sources = list(zip(each("topic", messages), each("partition", messages), offsets, strict=True))
            served = self._served_by_partition(scored, np.array(each("partition", messages)), np.array(offsets))
        predictions = self._predictions.records(
            ids=decoded.ids,
            times=decoded.times,
            scores=scored.scores,
            version=scored.model.version,
            sources=sources,
            keys=each("key", messages),
            headers=headers,
        )
        return [predictions, *served]

    def _served_by_partition(
        self, scored: Scored, partitions: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> Iterator[Out]:
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            yield from self._served(scored.only(rows), partition, offsets[rows])

    def _served(self, scored: Scored, partition: int, offsets: NDArray[np.int64]) -> Iterator[Out]:
        batch = served_batch(
            scored.model.schema,
            ids=scored.decoded.ids,
            times=scored.decoded.times,
            partition=partition,
            offsets=offsets,
            version=scored.model.version,
            scores=scored.scores,
            columns=scored.columns,
        )
        for value, first, last in encode_served(batch):
            headers: Headers = [(FIRST_OFFSET_HEADER, str(first).encode()), (LAST_OFFSET_HEADER, str(last).encode())]
            yield Out(self._topics.served, None, value, headers, partition)
