"""a model from elsewhere → a version; a version → a directory, and MLflow's registry."""

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import onnx

from headrace.infra.artifacts import Artifacts, put
from headrace.infra.mlflow_model import Found, read_model, write_model
from headrace.infra.mlflow_registry import Registered, register_model
from headrace.infra.names import Names
from headrace.infra.services.changes.moves import ask
from headrace.infra.services.versions.catalog import version
from headrace.infra.settings import Settings
from headrace.infra.training import Origin
from headrace.models import manifest as manifests
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.graph_check import check
from headrace.models.manifest import Blob, Manifest
from headrace.models.pipeline import Pipeline
from headrace.models.session import Session, expect_classes
from headrace.streams.codec import clock_ms


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    promoted: bool
    origin: str
    graph_sha256: str
    seq: int


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    folder: str
    graph_sha256: str
    registered: Registered | None


def import_model(settings: Settings, origin: Origin, place: Path, *, promote: bool = False, why: str = "") -> Imported:
    """(1) the checks of a worker, (2) graph and manifest as artifacts, (3) the leader gives it the next number.

    Raises BadInput for a model that could not serve, and where the leader refuses.
    """
    found = read_model(place)
    draft = _manifest(origin, found, Blob(sha256="", size=0, partition=0, offset=0, chunks=0))
    _expect_servable(found, draft, origin.pipeline)
    graph = put(settings, found.graph)
    encoded = manifests.encode(msgspec.structs.replace(draft, onnx=graph))
    reply = ask(settings, origin, "import", manifest=put(settings, encoded), why=why or found.origin)
    if promote:
        reply = ask(settings, origin, "promote", version=reply.version, why=why or found.origin)
    return Imported(
        version=reply.version, promoted=promote, origin=found.origin, graph_sha256=graph.sha256, seq=reply.seq
    )


def export_model(
    settings: Settings, origin: Origin, wanted: int | None, folder: Path, *, mlflow: str | None = None
) -> Exported:
    """Raises BadInput for a directory that holds something, and with what MLflow refuses."""
    found = version(settings, Names(settings.prefix, origin.pipeline), wanted)
    with closing(Artifacts(settings)) as artifacts:
        graph = artifacts.read(found.manifest.onnx)
    write_model(folder, found.manifest, graph)
    registered = register_model(mlflow, found.manifest, folder, found.aliases) if mlflow else None
    return Exported(
        version=found.version, folder=str(folder), graph_sha256=found.manifest.onnx.sha256, registered=registered
    )


def _expect_servable(found: Found, draft: Manifest, pipeline: Pipeline) -> None:
    try:
        check(found.graph, pipeline.operators)
        expect_classes(Session(found.graph, draft.schema), pipeline.label.classes, draft.classes)
    except RegistryRefused as error:
        raise BadInput(
            f"model import: the graph cannot serve {pipeline.name}, {error}. "
            "See 'The ONNX contract' in docs/topics.md: inputs by the features, one float32 per row, or per class."
        ) from error


def _manifest(origin: Origin, found: Found, graph: Blob) -> Manifest:
    """The leader puts in version and parent. An export of headrace's keeps its lineage, and loses what only the
    cluster that it comes from could read: offsets and sources."""
    pipeline, file = origin.pipeline, origin.file
    where: dict[str, Any] = {
        "pipeline": pipeline.name,
        "version": 0,
        "parent": 0,
        "onnx": graph,
        "run": "import",
        "tick": "",
        "trigger": found.origin,
        "created_at": iso(clock_ms()),
        "created_by": origin.by,
        "ranges": (),
        "sources": None,
        "as_of": "",
    }
    if found.manifest is not None:
        if found.manifest.task != pipeline.label.task:
            task = found.manifest.task
            raise BadInput(f"model import: expected a {pipeline.label.task} model, {found.origin} is a {task} one.")
        return msgspec.structs.replace(found.manifest, **where)
    return Manifest(
        **where,
        task=pipeline.label.task,
        features=tuple(pipeline.features),
        schema=pipeline.schema,
        classes=tuple(pipeline.label.classes),
        dataset_sha256="",
        rows=0,
        holdout_rows=0,
        trained_from="",
        trained_through="",
        null_shares={},
        hyperparameters=dict(found.facts),
        metrics={},
        champion_metrics={},
        verdict="",
        libraries={"onnx": onnx.__version__},
        source=file.source,
        git_commit=file.git_commit,
    )
