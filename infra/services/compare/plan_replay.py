"""one policy over the past → the score that each row would have been given, and what that cost. Publishes nothing.

At each tick: (1) the rows up to it are scored by the policy's champion, (2) a training as of then, (3) the gate, on
held-out rows, against that champion, (4) who passes serves from the tick on.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.services.compare.plan_trainings import Made, Trainings
from headrace.infra.services.scores.scoring import Version
from headrace.infra.training import baseline_of
from headrace.models.durations import iso
from headrace.models.errors import RunFailed
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import LiveLoss
from headrace.models.schema import Schema
from headrace.models.session import Predictor, Session
from headrace.scheduler.decide import Live
from headrace.scheduler.plan import known_before, ticks
from headrace.scheduler.policies import Policy
from headrace.streams.drift_watch import DriftWatch
from headrace.streams.live_join import Joined
from headrace.streams.live_loss import ServedLoss
from headrace.streams.model import Baseline
from headrace.trainer.dataset import rows_of, rules_of
from headrace.trainer.past import LiveJoins, Past
from headrace.trainer.run import judged, predictor_of

_BLOCK_ROWS = 20_000  # scored at a time


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of the past that is replayed, Unix ms: the first model is trained at `start`."""

    start: int
    end: int
    step_ms: int  # how often triggers without a schedule are asked


@dataclass(kw_only=True)
class Replayed:
    policy: Policy
    scores: NDArray[np.float64]  # of the rows in (start, end]; NaN where a version has no answer
    trainings: int = 0
    promotions: int = 0
    rejections: int = 0
    failures: int = 0
    failed: str = ""  # why, the first time
    training_seconds: float = 0.0
    served: list[tuple[int, str]] = field(default_factory=list)  # since when, Unix ms: which training's model


class PolicyReplay:
    """Used by one thread."""

    def __init__(
        self, policy: Policy, pipeline: Pipeline, past: Past, joins: LiveJoins, trainings: Trainings, span: Span
    ) -> None:
        self._pipeline, self._past, self._trainings, self._span = pipeline, past, trainings, span
        self._joins, self._looked = joins, span.start
        self._first, self._end = np.searchsorted(past.times, [span.start, span.end], "right").tolist()
        self._at = self._first  # the next row to be served
        self._found = Replayed(policy=policy, scores=np.full(self._end - self._first, np.nan))
        self._champion: Made | None = None
        self._version = Version(number=0, manifest=None, columns=pipeline.columns, predictor=Baseline(pipeline))
        self._drift: DriftWatch | None = None if known_before(policy.triggers) else DriftWatch()
        self._lost: ServedLoss | None = None
        self._promoted = self._first  # the first row that the champion served

    def run(self) -> Replayed:
        """Raises RunFailed where the first training fails: nothing can be said then."""
        span, triggers, found = self._span, self._found.policy.triggers, self._found
        try:
            self._judge(span.start, self._asked(span.start).result())
        except RunFailed as error:
            first = f"the first training, as of {iso(span.start)}: {error.detail}. Say --from for another moment"
            raise RunFailed(error.reason, first) from error
        coming = ticks(triggers, self._live, start=span.start, end=span.end, step_ms=span.step_ms)
        if self._drift is None and not self._trainings.goes_on:
            known = list(coming)
            for tick in known:
                self._trainings.ask(tick.at, None, 0, waits=False)
            coming = iter(known)
        for tick in coming:
            self._serve(tick.at)
            try:
                self._judge(tick.at, self._asked(tick.at).result())
            except RunFailed as error:
                found.failures += 1
                found.failed = found.failed or str(error)
            if self._drift is not None:
                self._drift.reset(tick.at)
        self._serve(span.end)
        return found

    def _asked(self, at: int) -> Future[Made]:
        self._found.trainings += 1
        return self._trainings.ask(at, self._champion, self._version.number)

    def _judge(self, at: int, made: Made) -> None:
        pipeline, found = self._pipeline, self._found
        found.training_seconds += made.seconds
        rules = rules_of(pipeline, at)
        if pipeline.anchor is None:
            rules["window_ms"] = pipeline.train_on.holdout_ms
        joined = self._past.joined(**rules)
        times = joined.table["event_time"].cast(pa.int64()).to_numpy()
        first = int(np.searchsorted(times, at - pipeline.train_on.holdout_ms))
        holdout = rows_of(joined.table.slice(first), pipeline.schema, pipeline.label.task)
        number = self._version.number
        _, _, verdict = judged(made.onnx, pipeline, joined, holdout, self._served_by(), version=number)
        if not verdict.promote:
            found.rejections += 1
            return
        found.promotions += 1
        found.served.append((at, made.key))
        self._champion = made
        session = Session(made.onnx, pipeline.schema)
        self._version = Version(number=number + 1, manifest=None, columns=pipeline.columns, predictor=session)
        if self._drift is not None:
            self._drift.watch(made.result.reference)
            task, result = pipeline.label.task, made.result
            self._lost, self._promoted = ServedLoss(number + 1, task, result.metrics, result.holdout_rows), self._at

    def _served_by(self) -> tuple[Predictor, Schema]:
        if self._champion is None:
            return predictor_of(baseline_of(self._pipeline), self._pipeline.schema, 1)
        return self._version.predictor, self._pipeline.schema

    def _live(self, since: int, at: int) -> Live:
        counted = self._joins.between(since, at)
        labels = counted.stop - counted.start
        if self._drift is None:
            return Live(new_labels=labels)
        self._serve(at)
        drift = {one.column: (one.psi, one.ks) for one in self._drift.distances()}
        return Live(new_labels=labels, drift_rows=self._drift.rows, drift=drift, loss=self._loss(at))

    def _loss(self, at: int) -> LiveLoss | None:
        """Of the champion, on the rows that it served."""
        if self._lost is None:
            return None
        news = self._joins.between(self._looked, at)
        self._looked = at
        version = self._version.number
        known = zip(self._joins.rows[news].tolist(), self._joins.labels[news].tolist(), strict=True)
        self._lost.add(
            [
                Joined(id="", time=0, label_time=0, score=score, label=label, version=version, source=(0, row))
                for row, label in known
                if row >= self._promoted and np.isfinite(score := float(self._found.scores[row - self._first]))
            ]
        )
        return self._lost.numbers

    def _serve(self, until: int) -> None:
        """The rows that are not served yet, up to `until`, by the champion."""
        last = min(self._end, int(np.searchsorted(self._past.times, until, "right")))
        while self._at < last:
            rows = self._past.rows.slice(self._at, min(_BLOCK_ROWS, last - self._at))
            scores = self._version.answers(rows)
            place = self._at - self._first
            self._found.scores[place : place + len(rows)] = scores
            if self._drift is not None:
                place = rows.schema.get_field_index("score")
                for batch in rows.set_column(place, "score", pa.array(scores)).to_batches():
                    self._drift.add(batch, until)
            self._at += len(rows)
