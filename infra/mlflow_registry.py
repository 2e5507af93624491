"""an exported version → a run and a registered model in MLflow, with its lineage as tags."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.models.aliases import CHAMPION
from headrace.models.errors import BadInput
from headrace.models.manifest import Manifest

_TAG_LENGTH = 5_000  # MLflow's limit for a registered version's tags
_PATH = "model"


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """Where it is now. Numbers are MLflow's own: it counts what was exported, headrace what was published."""

    model: str
    mlflow_version: str
    run_id: str
    new: bool  # False: it was there


def register_model(uri: str, manifest: Manifest, folder: Path, aliases: Sequence[str]) -> Registered:
    """Once per version: what was registered before is found by its tags, and only its aliases are moved.

    Raises BadInput with what MLflow says.
    """
    try:
        from mlflow import MlflowClient  # noqa: PLC0415  an extra, and heavy
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BadInput("--mlflow: mlflow is not installed. Run: pip install 'headrace[mlflow]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what mlflow will once change in itself
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = _known(client, manifest) or _registered(client, manifest, folder)
            for alias in aliases:
                client.set_registered_model_alias(found.model, alias, found.mlflow_version)
    except MlflowException as error:
        raise BadInput(f"--mlflow {uri}: {str(error).splitlines()[0]}") from error
    return found


def tags_of(manifest: Manifest) -> dict[str, str]:
    """Lineage in words; the whole of it is in manifest.json beside the model."""
    texts = {
        "pipeline": manifest.pipeline,
        "version": str(manifest.version),
        "parent": str(manifest.parent),
        "run": manifest.run,
        "tick": manifest.tick,
        "trigger": manifest.trigger,
        "verdict": manifest.verdict,
        "created_at": manifest.created_at,
        "created_by": manifest.created_by,
        "as_of": manifest.as_of,
        "trained_from": manifest.trained_from,
        "trained_through": manifest.trained_through,
        "rows": str(manifest.rows),
        "ranges": ", ".join(f"{part.topic}/{part.partition} {part.first}..{part.end}" for part in manifest.ranges),
        "dataset_sha256": manifest.dataset_sha256,
        "graph_sha256": manifest.onnx.sha256,
        "sources_sha256": manifest.sources.sha256 if manifest.sources else "",
        "git_commit": manifest.git_commit,
        "platform": manifest.platform,
        "libraries": ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
    }
    return {f"headrace.{name}": text[:_TAG_LENGTH] for name, text in texts.items() if text}


def _known(client: Any, manifest: Manifest) -> Registered | None:
    ours = {"headrace.version": str(manifest.version), "headrace.graph_sha256": manifest.onnx.sha256}
    for found in client.search_model_versions(f"name='{manifest.pipeline}'"):
        if ours.items() <= dict(found.tags).items():
            return Registered(
                model=manifest.pipeline, mlflow_version=str(found.version), run_id=found.run_id or "", new=False
            )
    return None


def _registered(client: Any, manifest: Manifest, folder: Path) -> Registered:
    """(1) the run with parameters, metrics and files, (2) the registered version, with the tags that (0) looks for."""
    name, tags = manifest.pipeline, tags_of(manifest)
    experiment = client.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment is not None else client.create_experiment(name)
    run_id = client.create_run(place, run_name=f"{name} {manifest.version}", tags=tags).info.run_id
    for key, value in manifest.hyperparameters.items():
        client.log_param(run_id, key, value)
    for key, figure in manifest.metrics.items():
        client.log_metric(run_id, key, figure)
    for key, figure in manifest.champion_metrics.items():
        client.log_metric(run_id, f"{CHAMPION}_{key}", figure)
    client.log_artifacts(run_id, str(folder), _PATH)
    client.set_terminated(run_id)
    if not any(model.name == name for model in client.search_registered_models(f"name='{name}'")):
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{_PATH}"
    made = client.create_model_version(name, source, run_id, tags=tags, description=manifest.verdict or None)
    return Registered(model=name, mlflow_version=str(made.version), run_id=run_id, new=True)
