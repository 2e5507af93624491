"""The leader's port to the trainer: what a run needs as data, and what it came to as a candidate."""

import hashlib
import logging
import os
import platform
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx as onnx_library

from headrace.infra.artifacts import in_store, put
from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.names import Names
from headrace.infra.pipeline_file import PipelineFile
from headrace.infra.settings import Settings
from headrace.infra.sources import archived
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused, RunFailed
from headrace.models.graph_check import check
from headrace.models.manifest import Blob, Manifest, OffsetRange
from headrace.models.pipeline import Pipeline
from headrace.models.registry import Versions
from headrace.models.session import Session
from headrace.scheduler.attempts import Candidate
from headrace.scheduler.decide import Run
from headrace.streams.codec import clock_ms
from headrace.trainer import process
from headrace.trainer.messages import Champion, RunRequest, RunResult
from headrace.trainer.run import MODEL

_log = logging.getLogger("headrace.scheduler")
_TIME_LIMIT_SECONDS = 3_600.0


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who runs here, and from which file: what manifests say."""

    file: PipelineFile
    pipeline: Pipeline
    by: str = f"{os.environ.get('USER', 'unknown')}@{socket.gethostname()}"

    @property
    def name_in_file(self) -> str:
        (name,) = [name for name, found in self.file.pipelines.items() if found is self.pipeline]
        return name


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a manifest says of where a version comes from."""

    run: Run
    parent: int = 0
    ranges: tuple[OffsetRange, ...] = ()
    as_of: str = ""
    sources: bytes  # as they were when the training began
    known_sources: Blob | None = None  # of the newest version: on record, so that no gc takes them
    source: str
    git_commit: str


class LocalTraining:
    """Trainings as forks on this machine."""

    def __init__(
        self, settings: Settings, names: Names, origin: Origin, trainer: process.Trainer, registry: KafkaRegistry
    ) -> None:
        self._settings, self._names, self._origin = settings, names, origin
        self._trainer, self._registry = trainer, registry
        self._home = settings.home / "training" / names.store_namespace
        self._files = DatasetFiles(settings, names, self._home / "dataset")
        self._champion = Champion()

    def start(self, run: Run, at: int, versions: Versions) -> "LocalAttempt":
        ranges = self._files.fetch()
        out = self._home / "runs" / run.run
        request = RunRequest(
            run=run.run,
            loader="headrace.infra.pipeline_file:read_pipeline",
            pipeline=f"{self._origin.file.path}:{self._origin.name_in_file}",
            at_ms=at,
            data=str(self._files.folder),
            out=str(out),
            cache=str(self._settings.home / "training" / "cache"),
            champion=self._served_now(versions),
            import_path=(str(self._origin.file.path.parent),),
            sanity=run.sanity,
        )
        parent = versions.champion.version if versions.champion else 0
        known = self._published_sources(versions)
        made = self._made(run, parent=parent, ranges=ranges, as_of=iso(at), known_sources=known)
        going = self._trainer.start(request, time_limit_s=_TIME_LIMIT_SECONDS)
        return LocalAttempt(going, out, ranges, lambda result, graph: self._candidate(made, result, graph))

    def initial(self, path: str) -> Candidate:
        """The user's own graph, by the contract in `models/session.py`, with the declaration's features."""
        pipeline = self._origin.pipeline
        place = (self._origin.file.path.parent / path).resolve()
        try:
            graph = place.read_bytes()
            check(graph, pipeline.operators)
            Session(graph, pipeline.schema)
        except OSError as error:
            raise BadInput(f"Pipeline.initial: expected an ONNX file, {place} cannot be read: {error}") from error
        except RegistryRefused as error:
            raise BadInput(f"Pipeline.initial: {place} does not fit the features: {error.detail}") from error
        made = self._made(Run(run="initial", tick=None, trigger=f"initial={path}"))
        sources = self._put_sources(made)
        return Candidate(
            promote=True,
            reason=f"the model that the pipeline starts with, {path}",
            onnx=self._placed(graph),
            manifest=lambda version, blob: self._manifest(made, sources, None, version, blob),
        )

    def _made(self, run: Run, **where: Any) -> _Made:
        file = self._origin.file
        return _Made(run=run, sources=archived(file.path), source=file.source, git_commit=file.git_commit, **where)

    def _candidate(self, made: _Made, result: RunResult, graph: bytes) -> Candidate:
        """What goes to the object store, and the sources, are written before the leader's transaction begins."""
        sources = self._put_sources(made) if result.promote else None
        return Candidate(
            promote=result.promote,
            reason=result.verdict,
            onnx=self._placed(graph) if result.promote else graph,
            manifest=lambda version, blob: self._manifest(made, sources, result, version, blob),
            rows=result.rows,
            holdout_rows=result.holdout_rows,
            metrics=result.metrics,
            champion_metrics=result.champion_metrics,
            seconds=result.seconds,
            findings=result.findings,
        )

    def _placed(self, graph: bytes) -> bytes | Blob:
        return put(self._settings, graph) if in_store(self._settings, len(graph)) else graph

    def _put_sources(self, made: _Made) -> Blob:
        """Those of the version before where they are the same."""
        known = made.known_sources
        if known is not None and known.sha256 == hashlib.sha256(made.sources).hexdigest():
            return known
        return put(self._settings, made.sources)

    def _published_sources(self, versions: Versions) -> Blob | None:
        if not versions.newest:
            return None
        try:
            return self._registry.manifest(versions.published[versions.newest].manifest).sources
        except RegistryRefused:
            return None  # then they are written again

    def _served_now(self, versions: Versions) -> Champion:
        """The newest promotion whose bytes can be read, as for workers: a broken one must not end all trainings."""
        for promoted in reversed(versions.promotions):
            if promoted.version == 0:  # taken back to the baseline
                break
            if self._champion.version == promoted.version:
                return self._champion
            try:
                return self._fetched(versions, promoted.version)
            except RegistryRefused as error:
                _log.warning("version %d cannot be judged against: %s", promoted.version, error)
        return baseline_of(self._origin.pipeline)

    def _fetched(self, versions: Versions, version: int) -> Champion:
        """Its graph as a file, once per version."""
        manifest = self._registry.manifest(versions.published[version].manifest)
        path = self._home / f"champion-{version}.onnx"
        path.write_bytes(self._registry.onnx(manifest))
        if self._champion.onnx:
            Path(self._champion.onnx).unlink(missing_ok=True)
        self._champion = Champion(version=version, onnx=str(path), schema=manifest.schema)
        return self._champion

    def _manifest(
        self, made: _Made, sources: Blob | None, result: RunResult | None, version: int, graph: Blob
    ) -> Manifest:
        pipeline, origin = self._origin.pipeline, self._origin
        return Manifest(
            pipeline=pipeline.name,
            version=version,
            parent=made.parent,
            task=pipeline.label.task,
            features=tuple(pipeline.features),
            schema=pipeline.schema,
            onnx=graph,
            run=made.run.run,
            tick=made.run.tick_text,
            trigger=made.run.trigger,
            created_at=iso(clock_ms()),
            created_by=origin.by,
            ranges=made.ranges,
            dataset_sha256=result.dataset_sha256 if result else "",
            anchor_sha256=result.anchor_sha256 if result else "",
            rows=result.rows if result else 0,
            holdout_rows=result.holdout_rows if result else 0,
            trained_from=result.trained_from if result else "",
            trained_through=result.trained_through if result else "",
            null_shares=result.null_shares if result else {},
            hyperparameters=result.hyperparameters if result else {},
            metrics=result.metrics if result else {},
            champion_metrics=result.champion_metrics if result else {},
            verdict=result.verdict if result else "",
            libraries=result.libraries if result else {"onnx": onnx_library.__version__},
            source=made.source,
            git_commit=made.git_commit,
            golden=result.golden if result else None,
            reference=result.reference if result else None,
            findings=result.findings if result else (),
            numbers=result.numbers if result else {},
            sources=sources,
            pipeline_file=f"{origin.file.path.name}:{origin.name_in_file}",
            as_of=made.as_of,
            platform=result.platform if result else platform.platform(),
        )


def baseline_of(pipeline: Pipeline) -> Champion:
    """What a first version is judged against."""
    rule = pipeline.baseline
    return Champion(baseline=float(rule) if isinstance(rule, int | float) else pipeline.label.prior)


class LocalAttempt:
    """A fork that trains."""

    def __init__(
        self,
        going: process.Run,
        out: Path,
        ranges: tuple[OffsetRange, ...],
        candidate: Callable[[RunResult, bytes], Candidate],
    ) -> None:
        self._going, self._out, self._ranges, self._candidate = going, out, ranges, candidate
        self._progress: tuple[str, dict[str, float]] = ("start", {})

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        return self._ranges

    def progress(self) -> tuple[str, dict[str, float]]:
        return self._progress

    def wait(self, seconds: float) -> Candidate | None:
        result = self._going.wait(seconds, self._heard)
        if result is None:
            return None
        try:
            graph = (self._out / MODEL).read_bytes()
        except OSError as error:
            raise RunFailed("crashed", f"the run left no model: {error}") from error
        return self._candidate(result, graph)

    def cancel(self) -> None:
        self._going.cancel()

    def _heard(self, stage: str, facts: dict[str, float]) -> None:
        self._progress = (stage, facts)
