"""a version's manifest → the same training again → equal, or where it parts. Nothing is published.

The rows are read from the recorded offsets, the code is the recorded one, and the new model is judged on the same
held-out rows against the same champion: the version's parent.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from headrace.infra.artifacts import Artifacts
from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.services.versions.catalog import version
from headrace.infra.settings import Settings
from headrace.infra.sources import archived, contents, unpacked
from headrace.infra.training import Origin, baseline_of
from headrace.models.durations import to_ms
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.manifest import Manifest
from headrace.models.pipeline import Pipeline
from headrace.trainer.messages import Champion, RunRequest, RunResult, champion_of
from headrace.trainer.process import Trainer
from headrace.trainer.run import MODEL

SAME = 1e-6  # scores and metrics that differ by less are the same: float32 has seven digits

Said = Callable[[str], None]
"""What is being done, for whoever waits."""


class Reproduction(msgspec.Struct, kw_only=True):
    """Pairs are (recorded, again)."""

    version: int
    parent: int  # what served when it was judged, and what it is judged against again
    equal: bool
    reason: str
    graph_sha256: tuple[str, str]
    dataset_sha256: tuple[str, str]
    max_difference: float | None  # of two scores of one held-out row; None where it cannot be said
    rows: tuple[int, int]
    holdout_rows: tuple[int, int]
    metrics: dict[str, tuple[float | None, float | None]]
    champion_metrics: dict[str, tuple[float | None, float | None]]
    libraries: dict[str, tuple[str, str]]  # those that differ
    platform: tuple[str, str]
    remarks: tuple[str, ...] = ()


def reproduce(
    settings: Settings, origin: Origin, wanted: int | None, *, run_recorded: bool = False, said: Said = lambda _: None
) -> Reproduction:
    """`run_recorded`: also where the recorded sources are not the ones that are here, since they are code to run.

    Raises BadInput where the version cannot be trained again, RunFailed where its training fails.
    """
    names = Names(settings.prefix, origin.pipeline)
    manifest = version(settings, names, wanted).manifest
    with ExitStack() as stack:
        artifacts = stack.enter_context(closing(Artifacts(settings)))
        archive = _expected_sources(manifest, origin, artifacts, run_recorded=run_recorded)
        settings.home.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproduce-", dir=settings.home)))
        sources = folder / "sources"
        unpacked(archive, sources)
        pipeline = _pipeline(sources, manifest, origin, same=archive == archived(origin.file.path))
        said("reading the recorded rows")
        files = DatasetFiles(settings, Names(settings.prefix, pipeline), folder / "dataset")
        files.fetch_again(manifest.ranges)
        champion, remarks = _champion(settings, names, manifest, pipeline, artifacts, folder)
        recorded = folder / "recorded.onnx"
        recorded.write_bytes(artifacts.read(manifest.onnx))
        request = RunRequest(
            run=f"reproduce-{manifest.version}",
            loader="headrace.infra.pipeline_file:read_pipeline",
            pipeline=f"{sources}/{manifest.pipeline_file}",
            at_ms=to_ms(datetime.fromisoformat(manifest.as_of)),
            data=str(files.folder),
            out=str(folder / "run"),
            cache=str(folder / "cache"),
            champion=champion,
            compare=Champion(version=manifest.version, onnx=str(recorded), schema=manifest.schema),
            import_path=(str(sources),),
            threads=pipeline.run.cpus,
        )
        trainer = stack.enter_context(Trainer())
        result = trainer.start(request, pipeline.run).wait(None, lambda stage, _facts: said(stage))
        assert result is not None  # noqa: S101  it waits as long as the run may take
        graph = hashlib.sha256((folder / "run" / MODEL).read_bytes()).hexdigest()
    return compared(manifest, result, graph, tuple(remarks))


def compared(manifest: Manifest, result: RunResult, graph_sha256: str, remarks: tuple[str, ...] = ()) -> Reproduction:
    """Equal: the same graph to the bit; or one that scores every held-out row the same, with the same metrics."""
    difference = float("inf") if result.max_difference is None else result.max_difference
    metrics = _pairs(manifest.metrics, result.metrics)
    same_graph = graph_sha256 == manifest.onnx.sha256
    same_data = result.dataset_sha256 == manifest.dataset_sha256
    same_scores = difference <= SAME and all(_is_same(*pair) for pair in metrics.values())
    if same_graph:
        reason = "the same graph, to the bit"
    elif same_scores and same_data:
        reason = f"another graph with the same scores: none differs by more than {difference:.1g}"
    elif same_data:
        reason = f"the same rows gave another model: scores differ by up to {difference:.3g}"
    else:
        reason = f"the rows are not those that it was trained on: scores differ by up to {difference:.3g}"
    libraries = _pairs(manifest.libraries, result.libraries)
    return Reproduction(
        version=manifest.version,
        parent=manifest.parent,
        equal=same_graph or (same_scores and same_data),
        reason=reason,
        graph_sha256=(manifest.onnx.sha256, graph_sha256),
        dataset_sha256=(manifest.dataset_sha256, result.dataset_sha256),
        max_difference=result.max_difference,
        rows=(manifest.rows, result.rows),
        holdout_rows=(manifest.holdout_rows, result.holdout_rows),
        metrics=metrics,
        champion_metrics=_pairs(manifest.champion_metrics, result.champion_metrics),
        libraries={name: (then or "none", now or "none") for name, (then, now) in libraries.items() if then != now},
        platform=(manifest.platform, result.platform),
        remarks=remarks,
    )


def _expected_sources(manifest: Manifest, origin: Origin, artifacts: Artifacts, *, run_recorded: bool) -> bytes:
    if not manifest.ranges or not manifest.as_of:
        raise BadInput(
            f"version {manifest.version} was not trained here: {manifest.trigger}. There is nothing to repeat."
        )
    if manifest.sources is None:
        raise BadInput(f"version {manifest.version} was published without its sources: it cannot be trained again.")
    archive = artifacts.read(manifest.sources)
    recorded, here = contents(archive), contents(archived(origin.file.path))
    if manifest.pipeline_file.partition(":")[0] not in recorded:
        raise BadInput(f"version {manifest.version}: its sources lack {manifest.pipeline_file!r}.")
    if recorded != here and not run_recorded:
        differ = sorted(name for name in recorded.keys() | here.keys() if recorded.get(name) != here.get(name))
        raise BadInput(
            f"version {manifest.version} was trained by other sources than those here: {', '.join(differ)} differ. "
            "To run the recorded ones, which come from the topic: --recorded-sources. To read them first: model export."
        )
    return archive


def _pipeline(sources: Path, manifest: Manifest, origin: Origin, *, same: bool) -> Pipeline:
    """As its file said then: what labels are, and which topics."""
    if same:
        return origin.pipeline
    here = origin.file.path.parent
    for name, module in list(sys.modules.items()):  # or the recorded file would import the files of today
        if (place := getattr(module, "__file__", None)) and Path(place).is_relative_to(here):
            del sys.modules[name]
    return next(iter(read_pipelines(f"{sources}/{manifest.pipeline_file}").pipelines.values()))


def _champion(
    settings: Settings, names: Names, manifest: Manifest, pipeline: Pipeline, artifacts: Artifacts, folder: Path
) -> tuple[Champion, list[str]]:
    """The parent; where that is gone, the baseline: it is compared with that, and a learner that goes on from the
    champion begins from scratch."""
    if manifest.parent == 0:
        return baseline_of(pipeline), []
    try:
        parent = version(settings, names, manifest.parent).manifest
        path = folder / "champion.onnx"
        path.write_bytes(artifacts.read(parent.onnx))
    except (BadInput, RegistryRefused) as error:
        return baseline_of(pipeline), [f"judged against the baseline, as version {manifest.parent} is gone: {error}"]
    return champion_of(manifest.parent, path, parent.schema, parent), []


def _pairs(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (then.get(name), now.get(name)) for name in sorted(then.keys() | now.keys())}


def _is_same(then: float | None, now: float | None) -> bool:
    return then is not None and now is not None and abs(then - now) <= SAME * max(1.0, abs(then))
