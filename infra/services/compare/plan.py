"""policies, the pipeline's own past → live metric against training cost, and the cheapest that is good enough.

Rows are the served ones, features as they were logged; labels become visible when they did. Nothing is published.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.names import Names
from headrace.infra.services.compare.plan_replay import PolicyReplay, Replayed, Span
from headrace.infra.services.compare.plan_trainings import Counted, Trainings
from headrace.infra.settings import Settings
from headrace.infra.training import Origin
from headrace.models.bootstrap import Estimate, measured
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RunFailed
from headrace.models.metrics import HIGHER_IS_BETTER, METRICS, OF_TASK
from headrace.models.pipeline import Pipeline
from headrace.scheduler.plan import Outcome, cheapest
from headrace.scheduler.policies import Policy
from headrace.trainer.dataset import rules_of
from headrace.trainer.past import Past
from headrace.trainer.past_file import write_past
from headrace.trainer.process import Trainer
from headrace.trainer.scratch import scratch_folder

_ROUNDS, _DRAWS = 1_000, 60_000_000  # of the bootstrap, rows drawn at most: 200 rounds of a year of flights
_WARM_UP = 10  # a tenth of the past is there before the first training
_PERIODS = 12  # of equal length, in which the metric is shown
_DAY_MS = 86_400_000
_POLL_SECONDS = 0.5

Said = Callable[[str, Counted | None], None]
"""What is being done, and how many trainings are, for whoever waits."""


@dataclass(frozen=True, kw_only=True)
class Options:
    start: int | None = None  # Unix ms
    end: int | None = None
    step_ms: int = 3_600_000
    tolerance: float = 0.005
    metric: str | None = None
    jobs: int = 0  # 0: as many as there are cores
    past: str | None = None  # a folder of dataset files; the topics, if not


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and what it came to. None is what cannot be said."""

    policy: str
    live_metric: float | None
    ci_low: float | None  # 95 %, by the bootstrap
    ci_high: float | None
    trainings: int
    training_seconds: float
    recommended: bool
    metric: str
    rows: int  # served with a label: the same ones for all policies
    promotions: int
    rejections: int
    failures: int
    failed: str  # why the first of them failed
    behind: float | None  # how much worse than the best policy, in the metric's unit
    behind_low: float | None
    behind_high: float | None
    periods: tuple[float | None, ...]  # the metric over twelfths of the time


class Report(msgspec.Struct, frozen=True, kw_only=True):
    pipeline: str
    metric: str
    higher_is_better: bool
    tolerance: float
    since: str  # RFC 3339: the first training
    until: str
    rows: int
    found: int  # trainings that an earlier plan had finished
    policies: tuple[Row, ...]


def plan(settings: Settings, origin: Origin, policies: Sequence[Policy], options: Options, said: Said) -> Report:
    """Raises BadInput where the past says too little, RunFailed where the first training fails."""
    pipeline = origin.pipeline
    metric = _metric(pipeline, options.metric)
    if pipeline.learner is None:
        raise BadInput(f"pipeline {pipeline.name} has no learner: there is nothing to train. See Pipeline.learner.")
    names = Names(settings.prefix, pipeline)
    home = settings.home / "plan" / names.store_namespace
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(home))
        said("reading the past", None)
        file = _past_file(settings, names, options.past, scratch)
        past = Past(file)
        span = span_of(past, pipeline, options)
        trainer = stack.enter_context(Trainer())
        trainer.warm_up()
        trainings = Trainings(origin, past, file, home, trainer, options.jobs or os.cpu_count() or 1)
        stack.callback(trainings.close)
        found = _replayed(policies, pipeline, past, trainings, span, said)
        said("comparing", trainings.counted)
        return reported(pipeline, past, span, metric, options.tolerance, found, trainings.counted.found)


def span_of(past: Past, pipeline: Pipeline, options: Options) -> Span:
    """From the first training on. Raises BadInput where the past is too short for it."""
    first, last = int(past.times[0]), int(past.times[-1])
    holdout = pipeline.train_on.holdout_ms
    start = options.start
    if start is None:
        least = first + max((last - first) // _WARM_UP, 2 * holdout)
        start = least - least % _DAY_MS + _DAY_MS if last - first > _WARM_UP * _DAY_MS else least
    end = last if options.end is None else min(options.end, last)
    if not first < start < end:
        raise BadInput(
            f"plan: too little past: rows are served from {iso(first)} to {iso(last)}, and the first training would be "
            f"at {iso(start)}. It takes two holdouts ({2 * holdout / _DAY_MS:g} days) and a time to compare over: "
            "wait, shorten train_on's holdout, or say --from and --to."
        )
    return Span(start=start, end=end, step_ms=options.step_ms)


def reported(
    pipeline: Pipeline, past: Past, span: Span, metric: str, tolerance: float, found: Sequence[Replayed], known: int
) -> Report:
    first, end = np.searchsorted(past.times, [span.start, span.end], "right").tolist()
    labels, times = past.labels[first:end], past.times[first:end]
    labels = _with_silence(pipeline, labels, times, int(past.times[-1]))
    there = np.isfinite(labels)
    for one in found:
        there &= np.isfinite(one.scores)
    if not there.any():
        raise BadInput(
            "plan: no row of that time has a label. Labels come on the topic that the pipeline's label names."
        )
    labels, times = labels[there], times[there]
    scores = {one.policy.name: one.scores[there] for one in found}
    higher = metric in HIGHER_IS_BETTER
    values = {name: METRICS[metric](labels, given) for name, given in scores.items()}
    best = _best(values, higher_is_better=higher)
    rows = [_row(pipeline, one, metric, best, labels, scores, higher_is_better=higher) for one in found]
    outcomes = [
        Outcome(
            policy=row.policy,
            training_seconds=row.training_seconds,
            behind=Estimate(value=row.behind, low=row.behind_low, high=row.behind_high),
        )
        for row in rows
    ]
    chosen = cheapest(outcomes, tolerance)
    edges = np.linspace(span.start, span.end, _PERIODS + 1)
    periods = np.clip(np.searchsorted(edges, times, "left") - 1, 0, _PERIODS - 1)
    shown = [
        msgspec.structs.replace(
            row,
            recommended=row.policy == chosen,
            periods=tuple(
                _said_of(METRICS[metric](labels[periods == each], scores[row.policy][periods == each]))
                for each in range(_PERIODS)
            ),
        )
        for row in rows
    ]
    return Report(
        pipeline=pipeline.name,
        metric=metric,
        higher_is_better=higher,
        tolerance=tolerance,
        since=iso(span.start),
        until=iso(span.end),
        rows=len(labels),
        found=known,
        policies=tuple(shown),
    )


def _metric(pipeline: Pipeline, asked: str | None) -> str:
    if pipeline.label.task == "multiclass":
        raise BadInput("plan: expected a Binary or Regression label; several classes cannot be planned as yet.")
    known = OF_TASK[pipeline.label.task]
    if asked is not None and asked not in known:
        raise BadInput(f"--metric: expected {' or '.join(known)} for {pipeline.label.task} labels, got {asked!r}.")
    gates = getattr(pipeline.gate, "metric", None)
    return asked or (gates if gates in known else known[0])


def _past_file(settings: Settings, names: Names, folder: str | None, scratch: Path) -> Path:
    if folder is None:
        place = scratch / "dataset"
        DatasetFiles(settings, names, place, appended=True).fetch()
    else:
        place = Path(folder)
        if not list(place.glob("served*.arrow")):
            raise BadInput(f"--past: expected a folder with served*.arrow and labels*.arrow, {folder!r} has none.")
    file = scratch / "past.arrow"
    try:
        write_past(place, scratch, file, names.pipeline.label.within_ms)
    except RunFailed as error:
        raise BadInput(f"plan: no past to plan on: {error}") from error
    return file


def _replayed(
    policies: Sequence[Policy], pipeline: Pipeline, past: Past, trainings: Trainings, span: Span, said: Said
) -> list[Replayed]:
    """A thread per policy; they wait for trainings most of the time."""
    rules = rules_of(pipeline, span.end)
    joins = past.live_joins(rules["within_ms"], rules["if_absent"])
    with ThreadPoolExecutor(len(policies), "policy") as pool:
        going = [pool.submit(PolicyReplay(policy, pipeline, past, joins, trainings, span).run) for policy in policies]
        try:
            waiting = set(going)
            while waiting:
                done, waiting = wait(waiting, _POLL_SECONDS)
                said("training", trainings.counted)
                for one in done:
                    one.result()
        except BaseException:
            trainings.close()  # or the policies would wait for what they asked for
            raise
    return [one.result() for one in going]


def _with_silence(
    pipeline: Pipeline, labels: NDArray[np.float64], times: NDArray[np.int64], end: int
) -> NDArray[np.float64]:
    absent = pipeline.label.if_absent
    if absent is None or isinstance(absent, str):
        return labels
    closed = times + pipeline.label.within_ms <= end
    return np.where(np.isnan(labels) & closed, float(absent), labels)


def _row(
    pipeline: Pipeline,
    one: Replayed,
    metric: str,
    best: str,
    labels: NDArray[np.float64],
    scores: Mapping[str, NDArray[np.float64]],
    *,
    higher_is_better: bool,
) -> Row:
    name = one.policy.name
    rounds = max(100, min(_ROUNDS, _DRAWS // len(labels)))
    (found,) = measured(pipeline.label.task, labels, scores[best], scores[name], metrics=[metric], rounds=rounds)
    behind = _negated(found.difference) if higher_is_better else found.difference
    return Row(
        policy=name,
        live_metric=found.second.value,
        ci_low=found.second.low,
        ci_high=found.second.high,
        trainings=one.trainings,
        training_seconds=round(one.training_seconds, 2),
        recommended=False,
        metric=metric,
        rows=len(labels),
        promotions=one.promotions,
        rejections=one.rejections,
        failures=one.failures,
        failed=one.failed,
        behind=behind.value,
        behind_low=behind.low,
        behind_high=behind.high,
        periods=(),
    )


def _best(values: Mapping[str, float], *, higher_is_better: bool) -> str:
    """The first of them where none can be said."""
    sign = 1 if higher_is_better else -1
    return max(values, key=lambda name: sign * values[name] if np.isfinite(values[name]) else -np.inf)


def _negated(one: Estimate) -> Estimate:
    low, high = (None if end is None else 0.0 - end for end in (one.high, one.low))
    return Estimate(value=None if one.value is None else 0.0 - one.value, low=low, high=high)


def _said_of(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
