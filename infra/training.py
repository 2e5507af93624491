"""The leader's port to the trainer: what a run needs as data, and what it came to as a candidate.

All that a run was started with lies in its folder, so that the next leader makes the same version of it, whatever the
pipeline file says by then.
"""

import hashlib
import logging
import os
import platform
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx as onnx_library
from msgspec.structs import replace

from headrace.infra.artifacts import in_store, put
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.names import Names
from headrace.infra.pipeline_file import PipelineFile
from headrace.infra.run_data import RunData
from headrace.infra.settings import Settings
from headrace.infra.sources import archived
from headrace.models import manifest as manifests
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused, RunFailed
from headrace.models.graph_check import check
from headrace.models.labels import answer_of
from headrace.models.manifest import Blob, Manifest, OffsetRange
from headrace.models.pipeline import Pipeline
from headrace.models.registry import Versions
from headrace.models.session import Session, expect_classes
from headrace.scheduler.attempts import Candidate
from headrace.scheduler.decide import Run
from headrace.streams.codec import clock_ms
from headrace.trainer import process
from headrace.trainer.messages import Champion, Failed, RunRequest, RunResult, champion_of
from headrace.trainer.run import MODEL
from headrace.trainer.run_folder import STOP, has_outcome, is_worked_on, said

_log = logging.getLogger("headrace.scheduler")
_MANIFEST, _SOURCES, _REQUEST = "manifest.json", "sources.zip", "request.json"  # as they were when the run began
RUNS = "runs"  # a folder for each
_KEPT_RUNS = 100
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_ROWS = ("rows", "holdout_rows")  # told once, true of all that comes after
_NOWHERE = Blob(sha256="", size=0, partition=0, offset=0, chunks=0)


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


class LocalTraining:
    """Trainings as forks on this machine."""

    def __init__(
        self, settings: Settings, names: Names, origin: Origin, trainer: process.Trainer, registry: KafkaRegistry
    ) -> None:
        self._settings, self._names, self._origin = settings, names, origin
        self._trainer, self._registry = trainer, registry
        self._home = training_home(settings, names)
        self._champion = Champion()
        self._data = RunData(settings, names, self._home, keep=self._in_use())

    @property
    def host(self) -> str:
        return socket.gethostname()

    def fetch(self, ranges: tuple[OffsetRange, ...]) -> tuple[OffsetRange, ...]:
        return self._data.fetch(ranges)

    def start(self, run: Run, at: int, versions: Versions, ranges: tuple[OffsetRange, ...]) -> "LocalAttempt":
        """What a leader needs to take it up is written before there is a process."""
        self._cleaned()
        folder, file = self._folder(run.run), self._origin.file
        request = RunRequest(
            run=run.run,
            loader="headrace.infra.pipeline_file:read_pipeline",
            pipeline=f"{file.path}:{self._origin.name_in_file}",
            at_ms=at,
            data=str(self._data.folder),
            out=str(folder),
            cache=str(self._settings.home.absolute() / "training" / "cache"),
            champion=self._served_now(versions),
            import_path=(str(file.path.parent),),
            threads=self._origin.pipeline.run.cpus,
            sanity=run.sanity,
        )
        draft = self._draft(run, parent=request.champion.version, ranges=ranges, as_of=iso(at))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _SOURCES).write_bytes(archived(file.path))
        (folder / _REQUEST).write_bytes(msgspec.json.encode(request))
        (folder / _MANIFEST).write_bytes(manifests.encode(draft))
        going = self._trainer.start(request, self._origin.pipeline.run)
        return self._attempt(going, folder, draft, versions)

    def take_up(self, run: str, versions: Versions, *, failed: bool) -> "LocalAttempt | None":
        folder = self._folder(run)
        alive, messages = is_worked_on(folder), said(folder)
        if not alive and (not has_outcome(messages) or (isinstance(messages[-1], Failed) and not failed)):
            return None
        try:
            draft = manifests.decode((folder / _MANIFEST).read_bytes())
        except (OSError, RegistryRefused) as error:
            _log.warning("run %s is begun anew: %s", run, error)
            self.stop(run)
            return None
        return self._attempt(process.Run(folder), folder, draft, versions)

    def stop(self, run: str) -> None:
        if is_worked_on(self._folder(run)):
            (self._folder(run) / STOP).touch()

    def stop_others(self, runs: Sequence[str]) -> None:
        kept = [self._folder(run) for run in runs]
        for folder in self._folders():
            if folder not in kept and is_worked_on(folder):
                (folder / STOP).touch()

    def initial(self, path: str) -> Candidate:
        """The user's own graph, by the contract in `models/session.py`, with the declaration's features."""
        pipeline, file = self._origin.pipeline, self._origin.file
        place = (file.path.parent / path).resolve()
        try:
            graph = place.read_bytes()
            check(graph, pipeline.operators)
            expect_classes(Session(graph, pipeline.schema), pipeline.label.classes)
        except OSError as error:
            raise BadInput(f"Pipeline.initial: expected an ONNX file, {place} cannot be read: {error}") from error
        except RegistryRefused as error:
            raise BadInput(f"Pipeline.initial: {place} does not fit the features: {error.detail}") from error
        draft = self._draft(Run(run="initial", tick=None, trigger=f"initial={path}"))
        sources = put(self._settings, archived(file.path))
        return Candidate(
            promote=True,
            reason=f"the model that the pipeline starts with, {path}",
            onnx=self._placed(graph),
            manifest=lambda version, blob: _published(draft, sources, version, blob),
        )

    def _attempt(self, going: process.Run, folder: Path, draft: Manifest, versions: Versions) -> "LocalAttempt":
        return LocalAttempt(going, folder, lambda result: self._candidate(folder, draft, result, versions))

    def _candidate(self, folder: Path, draft: Manifest, result: RunResult, versions: Versions) -> Candidate:
        """What goes to the object store, and the sources, are written before the leader's transaction begins."""
        try:
            graph, archive = (folder / MODEL).read_bytes(), (folder / _SOURCES).read_bytes()
        except OSError as error:
            raise RunFailed("crashed", f"the run left no model: {error}") from error
        sources = self._put_sources(archive, versions) if result.promote else None
        made = _with_result(draft, result)
        return Candidate(
            promote=result.promote,
            reason=result.verdict,
            onnx=self._placed(graph) if result.promote else graph,
            manifest=lambda version, blob: _published(made, sources, version, blob),
            rows=result.rows,
            holdout_rows=result.holdout_rows,
            metrics=result.metrics,
            champion_metrics=result.champion_metrics,
            seconds=result.seconds,
            curves=result.curves,
            findings=result.findings,
        )

    def _placed(self, graph: bytes) -> bytes | Blob:
        return put(self._settings, graph) if in_store(self._settings, len(graph)) else graph

    def _put_sources(self, archive: bytes, versions: Versions) -> Blob:
        """Those of the version before where they are the same: they are on record, so no gc takes them."""
        known = self._published_sources(versions)
        if known is not None and known.sha256 == hashlib.sha256(archive).hexdigest():
            return known
        return put(self._settings, archive)

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
        if manifest.classes != tuple(self._origin.pipeline.label.classes):
            raise RegistryRefused("wrong_classes", f"it is for {', '.join(manifest.classes) or 'one score per row'}")
        path = self._home / f"champion-{version}.onnx"
        path.write_bytes(self._registry.onnx(manifest))
        if self._champion.onnx:
            Path(self._champion.onnx).unlink(missing_ok=True)
        self._champion = champion_of(version, path, manifest.schema, manifest)
        return self._champion

    def _draft(self, run: Run, *, parent: int = 0, ranges: tuple[OffsetRange, ...] = (), as_of: str = "") -> Manifest:
        """What is known of a version before it is trained."""
        pipeline, origin = self._origin.pipeline, self._origin
        return Manifest(
            pipeline=pipeline.name,
            version=0,
            parent=parent,
            task=pipeline.label.task,
            features=tuple(pipeline.features),
            schema=pipeline.schema,
            onnx=_NOWHERE,
            run=run.run,
            tick=run.tick_text,
            trigger=run.trigger,
            created_at="",
            created_by=origin.by,
            ranges=ranges,
            dataset_sha256="",
            rows=0,
            holdout_rows=0,
            trained_from="",
            trained_through="",
            null_shares={},
            hyperparameters={},
            metrics={},
            champion_metrics={},
            verdict="",
            libraries={"onnx": onnx_library.__version__},
            source=origin.file.source,
            git_commit=origin.file.git_commit,
            pipeline_file=f"{origin.file.path.name}:{origin.name_in_file}",
            as_of=as_of,
            platform=platform.platform(),
            classes=tuple(pipeline.label.classes),
        )

    def _folder(self, run: str) -> Path:
        return run_folder(self._settings, self._names, run)

    def _folders(self) -> list[Path]:
        return list((self._home / RUNS).glob("*/"))

    def _cleaned(self) -> list[Path]:
        return cleaned(self._home, Path(self._champion.onnx) if self._champion.onnx else None)

    def _in_use(self) -> set[Path]:
        """Folders that a training reads which goes on."""
        found = set()
        for folder in self._cleaned():
            with suppress(OSError, msgspec.DecodeError):
                found.add(Path(msgspec.json.decode((folder / _REQUEST).read_bytes(), type=RunRequest).data))
        return found


def _with_result(draft: Manifest, result: RunResult) -> Manifest:
    return replace(
        draft,
        dataset_sha256=result.dataset_sha256,
        anchor_sha256=result.anchor_sha256,
        rows=result.rows,
        holdout_rows=result.holdout_rows,
        trained_from=result.trained_from,
        trained_through=result.trained_through,
        null_shares=result.null_shares,
        hyperparameters=result.hyperparameters,
        metrics=result.metrics,
        champion_metrics=result.champion_metrics,
        verdict=result.verdict,
        libraries=result.libraries,
        golden=result.golden,
        reference=result.reference,
        findings=result.findings,
        numbers=result.numbers,
        platform=result.platform,
    )


def _published(made: Manifest, sources: Blob | None, version: int, graph: Blob) -> Manifest:
    return replace(made, version=version, onnx=graph, sources=sources, created_at=iso(clock_ms()))


def training_home(settings: Settings, names: Names) -> Path:
    """Where a pipeline's trainings have their files."""
    return settings.home.absolute() / "training" / names.store_namespace


def run_folder(settings: Settings, names: Names, run: str) -> Path:
    return training_home(settings, names) / RUNS / plain(run)


def plain(run: str) -> str:
    """A name for paths and addresses. Whoever asks for a run chooses its id, on a topic: one that is no plain name
    must not lead anywhere else."""
    return run if _PLAIN.fullmatch(run) else hashlib.sha256(run.encode()).hexdigest()


def cleaned(home: Path, champion: Path | None) -> list[Path]:
    """The folders of runs that go on. Of those that have ended, the newest are kept; where none goes on, nobody reads
    any graph of an earlier leader but `champion`."""
    folders = list((home / RUNS).glob("*/"))
    alive = [folder for folder in folders if is_worked_on(folder)]
    for ended in sorted(set(folders) - set(alive), key=_changed)[:-_KEPT_RUNS]:
        shutil.rmtree(ended, ignore_errors=True)
    if not alive:
        for graph in set(home.glob("champion-*.onnx")) - {champion}:
            graph.unlink(missing_ok=True)
    return alive


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another leader was quicker


def baseline_of(pipeline: Pipeline) -> Champion:
    """What a first version is judged against."""
    rule = pipeline.baseline
    return Champion(baseline=float(rule) if isinstance(rule, int | float) else answer_of(pipeline.label))


class LocalAttempt:
    """A process that trains, or has."""

    def __init__(self, going: process.Run, folder: Path, candidate: Callable[[RunResult], Candidate]) -> None:
        self._going, self._folder, self._candidate = going, folder, candidate
        self._stage: str = "start"
        self._facts: dict[str, float] = {}
        self._rows: dict[str, float] = {}

    def progress(self) -> tuple[str, dict[str, float]]:
        return self._stage, self._rows | self._facts

    def wait(self, seconds: float) -> Candidate | None:
        result = self._going.wait(seconds, self._heard)
        return None if result is None else self._candidate(result)

    def _heard(self, stage: str, facts: dict[str, float]) -> None:
        self._stage, self._facts = stage, facts
        self._rows |= {name: value for name, value in facts.items() if name in _ROWS}
