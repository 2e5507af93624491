"""dataset → candidate → verdict: one training from beginning to end, in one process. It publishes nothing."""

import importlib
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.models.drift import reference_of
from headrace.models.durations import iso, to_ms
from headrace.models.errors import DeclarationError, HeadraceError, RegistryRefused, RunFailed
from headrace.models.findings import Finding
from headrace.models.golden import ROWS, golden
from headrace.models.graph_check import check
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import ChampionGraph, Dataset, TrainContext, Trained, Verdict
from headrace.models.schema import Schema
from headrace.models.session import Predictor, Runtime, Session, expect_classes
from headrace.trainer.checks import after_training, before_training, failing
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import DELAY, LABEL, Joined, rows_of, rules_of, to_columns, to_dataset
from headrace.trainer.evaluate import Constant, Evaluation, evaluate, max_difference
from headrace.trainer.gate import Always
from headrace.trainer.matching import Counts
from headrace.trainer.messages import POSITIVES, Champion, RunRequest, RunResult
from headrace.trainer.past import Past
from headrace.trainer.prior import as_in_the_stream
from headrace.trainer.ready import ready_dataset
from headrace.trainer.sanity import sane
from headrace.trainer.scratch import scratch_folder
from headrace.trainer.snapshot import dataset_sha256, snapshot
from headrace.trainer.split import split
from headrace.trainer.weights import balanced, by_delay, with_weights

MODEL, RESULT = "model.onnx", "result.json"
_REFERENCE_ROWS = 200_000  # the newest training rows, which drift is measured against
_LIBRARIES = {  # by the module that is loaded where they took part
    "headrace": "headrace",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "pyarrow": "pyarrow",
    "torch": "torch",
    "torchvision": "torchvision",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "skl2onnx": "skl2onnx",
    "onnxmltools": "onnxmltools",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "transformers": "transformers",
    "pandas": "pandas",
    "polars": "polars",
}

Progress = Callable[[str, dict[str, float]], None]
"""Stage and facts, while a run goes on."""


def train_candidate(request: RunRequest, progress: Progress = lambda _stage, _facts: None) -> RunResult:
    """Writes model.onnx and result.json into `request.out`. Every failure is a RunFailed."""
    Path(request.out).mkdir(parents=True, exist_ok=True)
    with scratch_folder(Path(request.data)) as scratch:
        return _train_candidate(request, scratch, progress)


def _train_candidate(request: RunRequest, scratch: Path, progress: Progress) -> RunResult:
    seconds: dict[str, float] = {}
    with _stage("load", seconds, progress):
        pipeline = _load(request)
        schema = pipeline.schema
        known = predictor_of(request.champion, schema, request.threads)
    with _stage("join", seconds, progress):
        rules = rules_of(pipeline, request.at_ms)
        if request.past is None:
            joined = ready_dataset(Path(request.data), scratch, **rules)
        else:
            joined = Past(Path(request.past)).joined(**rules)
        dataset = to_dataset(joined, schema, pipeline.label.task)
        sha256 = dataset_sha256(joined)
        if request.snapshots:
            snapshot(joined, Path(request.snapshots), sha256)
        train, holdout = split(dataset, pipeline.train_on, request.at_ms)
    progress("join", {"rows": len(train), "holdout_rows": len(holdout)})
    with _stage("check", seconds, progress):
        findings = before_training(pipeline.checks, schema, train, holdout, joined.counts)
        _end_at_errors(findings)
        if request.sanity:
            findings.append(sane(pipeline, train))
    with _stage("train", seconds, progress):
        context = TrainContext(
            schema=schema,
            cache=Path(request.cache),
            classes=tuple(pipeline.label.classes),
            champion=_champion_graph(request.champion, pipeline, request.at_ms),
            progress=lambda facts: progress("train", dict(facts)),
        )
        fitted, odds = _reweighted(pipeline, joined, train, request.at_ms)
        trained = _train(pipeline, fitted, context)
        if pipeline.balance is not None:
            balance = {
                "balance": f"{pipeline.balance.by}, {len(fitted)} rows",
                POSITIVES: pipeline.balance.positives,
                "prior_odds": odds,
            }
            trained = replace(
                trained,
                onnx=as_in_the_stream(trained.onnx, odds),
                hyperparameters={**trained.hyperparameters, **balance},
            )
    with _stage("evaluate", seconds, progress):
        evaluation, on_anchor, verdict = judged(
            trained.onnx, pipeline, joined, holdout, known, version=request.champion.version, threads=request.threads
        )
        findings += after_training(pipeline.checks, evaluation.evidence, train)
        _end_at_errors(findings)
        difference = None
        if request.compare is not None:
            other, other_schema = predictor_of(request.compare, schema, request.threads)
            rows = to_columns(joined.table.slice(len(train)), other_schema)
            difference = max_difference(evaluation.evidence.candidate, other, rows)

    newest = holdout.take(slice(-4 * ROWS, None))  # some to spare: rows with an infinity are none
    result = RunResult(
        promote=verdict.promote,
        verdict=verdict.reason,
        numbers=_finite({**verdict.numbers, **(_anchor_numbers(on_anchor) if on_anchor else {})}),
        metrics=_finite(evaluation.metrics),
        champion_metrics=_finite(evaluation.champion_metrics),
        task=dataset.task,
        rows=len(train),
        holdout_rows=len(holdout),
        trained_from=iso(int(train.times[0])),
        trained_through=iso(int(train.times[-1])),
        dataset_sha256=sha256,
        anchor_sha256=_identity(joined.anchor) if joined.anchor else "",
        counts=msgspec.to_builtins(joined.counts),
        lacking=joined.lacking,
        null_shares=null_shares(train, schema),
        hyperparameters=dict(trained.hyperparameters),
        curves={name: list(values) for name, values in trained.curves.items()},
        libraries=_libraries(),
        platform=platform.platform(),
        seconds=seconds,
        onnx_bytes=len(trained.onnx),
        findings=tuple(findings),
        reference=reference_of(
            schema, train.take(slice(-_REFERENCE_ROWS, None)).columns, evaluation.evidence.candidate
        ),
        golden=golden(newest.columns, evaluation.evidence.candidate[-len(newest) :], schema),
        max_difference=difference,
    )
    out = Path(request.out)
    (out / MODEL).write_bytes(trained.onnx)
    (out / RESULT).write_bytes(msgspec.json.encode(result))
    return result


def judged(
    onnx: bytes,
    pipeline: Pipeline,
    joined: Joined,
    holdout: Dataset,
    champion: tuple[Predictor, Schema],
    *,
    version: int,
    threads: int = 1,
) -> tuple[Evaluation, Evaluation | None, Verdict]:
    """A candidate beside the champion, on the holdout (the last rows of what was joined) and on the anchor, and what
    the gate says. Raises RunFailed where the candidate is none that a worker would serve."""
    known, known_schema = champion
    candidate = _candidate(onnx, pipeline, threads)
    evaluation = evaluate(
        holdout,
        candidate,
        known,
        to_columns(joined.table.slice(len(joined.table) - len(holdout)), known_schema),
        version,
        decide_at=getattr(pipeline.label, "decide_at", 0.5),
        onnx_bytes=len(onnx),
    )
    on_anchor = _on_anchor(joined, pipeline, candidate, known, known_schema, version)
    evidence = replace(evaluation.evidence, anchor=on_anchor.evidence if on_anchor else None)
    return replace(evaluation, evidence=evidence), on_anchor, (pipeline.gate or Always()).judge(evidence)


def null_shares(dataset: Dataset, schema: Schema) -> dict[str, float]:
    """Share of missing values per nullable column."""
    shares = {}
    for column in schema.columns:
        if column.nullable and len(dataset):
            values = dataset.columns[column.name]
            missing = np.isnan(values) if column.kind == "number" else values == None  # noqa: E711  element by element
            shares[column.name] = float(np.mean(missing))
    return shares


def _load(request: RunRequest) -> Pipeline:
    module_name, _, name = request.loader.partition(":")
    try:
        loaded = getattr(importlib.import_module(module_name), name)(request.pipeline)
    except Exception as error:
        raise RunFailed("pipeline_unreadable", f"{request.pipeline}: {type(error).__name__}: {error}") from error
    if not isinstance(loaded, Pipeline):
        raise RunFailed("pipeline_unreadable", f"{request.loader} gave {type(loaded).__name__}, expected a Pipeline")
    if loaded.learner is None:
        raise RunFailed("no_learner", f"pipeline {loaded.name} has no learner: give it one, for example Torch(…)")
    return loaded


def _end_at_errors(findings: list[Finding]) -> None:
    if (failed := failing(findings)) is not None:
        raise failed


def _on_anchor(
    joined: Joined, pipeline: Pipeline, candidate: Predictor, champion: Predictor, champion_schema: Schema, version: int
) -> Evaluation | None:
    """Both on the rows that neither was trained on; None where there are none."""
    if joined.anchor is None or not len(joined.anchor):
        return None
    rows, columns = (
        rows_of(joined.anchor, pipeline.schema, pipeline.label.task),
        to_columns(joined.anchor, champion_schema),
    )
    return evaluate(rows, candidate, champion, columns, version)


def _identity(rows: pa.Table) -> str:
    """Of which rows they are, with which labels: columns come and go with declarations."""
    return dataset_sha256(Joined(rows.select(["id", "event_time", "partition", "offset", LABEL]), Counts(), {}))


def _anchor_numbers(found: Evaluation) -> dict[str, float]:
    figures = {"anchor_rows": float(len(found.evidence.labels))}
    figures |= {f"anchor_{name}": value for name, value in found.metrics.items()}
    return figures | {f"anchor_champion_{name}": value for name, value in found.champion_metrics.items()}


def _reweighted(pipeline: Pipeline, joined: Joined, train: Dataset, at_ms: int) -> tuple[Dataset, float]:
    """The rows as the learner sees them, and how many times as large the odds of a one are among them."""
    if pipeline.importance is not None:
        delays = as_numpy(joined.table[DELAY].slice(0, len(train)))
        train = with_weights(train, by_delay(pipeline.importance, delays, at_ms - train.times))
    return (train, 1.0) if pipeline.balance is None else balanced(pipeline.balance, train)


def _train(pipeline: Pipeline, train: Dataset, context: TrainContext) -> Trained:
    assert pipeline.learner is not None  # noqa: S101  _load has seen to it
    try:
        return pipeline.learner.train(train, context)
    except (HeadraceError, MemoryError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        raise RunFailed("learner_raised", f"{type(error).__name__} at {where}: {error}") from error


def predictor_of(champion: Champion, schema: Schema, threads: int) -> tuple[Predictor, Schema]:
    """What answers, and the columns that it reads."""
    if champion.onnx is None:
        return Constant(champion.baseline), schema
    known = champion.schema or schema
    return _session(Path(champion.onnx).read_bytes(), known, threads), known


def _champion_graph(champion: Champion, pipeline: Pipeline, at_ms: int) -> ChampionGraph | None:
    if champion.onnx is None:
        return None
    return ChampionGraph(
        version=champion.version,
        onnx=Path(champion.onnx).read_bytes(),
        schema=champion.schema or pipeline.schema,
        unfit=unfit(champion, pipeline, at_ms),
    )


def unfit(champion: Champion, pipeline: Pipeline, at_ms: int) -> str:
    """Why no learner must go on from it, or "": what it was trained on is in the weights that it hands on (law 6)."""
    try:
        through = to_ms(datetime.fromisoformat(champion.trained_through)) if champion.trained_through else None
    except (ValueError, OverflowError, DeclarationError):
        return f"it was trained up to {champion.trained_through!r}, which is no time"
    if through is not None and through >= at_ms - pipeline.train_on.holdout_ms:
        return f"it was trained on rows of this holdout, up to {champion.trained_through}"
    if pipeline.anchor is not None and not champion.anchor_sha256:
        return "it was trained before there was an anchor"
    if champion.positives != (pipeline.balance.positives if pipeline.balance else None):
        return "it was trained with another balance"  # its scores are moved back by other odds
    return ""


def _candidate(onnx: bytes, pipeline: Pipeline, threads: int) -> Session:
    """What every worker would refuse fails here."""
    try:
        check(onnx, pipeline.operators)
    except RegistryRefused as error:
        raise RunFailed(error.reason, error.detail) from error
    session = _session(onnx, pipeline.schema, threads)
    try:
        expect_classes(session, pipeline.label.classes)
    except RegistryRefused as error:
        raise RunFailed(error.reason, error.detail) from error
    return session


def _session(onnx: bytes, schema: Schema, threads: int) -> Session:
    try:
        return Session(onnx, schema, Runtime(threads=threads))
    except RegistryRefused as error:
        raise RunFailed(error.reason, error.detail) from error


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name, module in _LIBRARIES.items():
        try:
            if module in sys.modules:
                found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _finite(numbers: Any) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


@contextmanager
def _stage(name: str, seconds: dict[str, float], progress: Progress) -> Iterator[None]:
    progress(name, {})
    begun = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - begun, 4)
