"""a version ↔ an MLflow model directory: MLmodel, model.onnx with its signature, requirements, manifest.json.

Written without mlflow: MLmodel is YAML, of which JSON is a part, and the layout is MLflow's own documented one. Reading
somebody else's takes a YAML parser, which comes with `headrace[mlflow]`.
"""

import json
import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec
import onnx

from headrace.models import manifest as manifests
from headrace.models.errors import BadInput
from headrace.models.manifest import Manifest
from headrace.models.schema import CATEGORIES, NUMBERS, PREDICTION, Schema

MLMODEL, GRAPH, MANIFEST = "MLmodel", "model.onnx", "manifest.json"
_CONVERT = (
    "Convert the model with skl2onnx.to_onnx(model, …) (onnxmltools for XGBoost and LightGBM), with inputs and output "
    "as docs/topics.md says under 'The ONNX contract', and import the ONNX file"
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that somebody brings."""

    graph: bytes
    origin: str  # one line for the manifest
    facts: dict[str, str]  # what its directory says of it
    manifest: Manifest | None = None  # where headrace exported it


def read_model(place: Path) -> Found:
    """An ONNX file, or a directory with an MLmodel that has the onnx flavour. Raises BadInput."""
    if place.is_file():
        return Found(graph=_graph(place), origin=f"import of {place.name}", facts={})
    if not (place / MLMODEL).is_file():
        raise BadInput(f"model import: expected an ONNX file or a directory with an {MLMODEL}, {place} is neither.")
    described = _described(place / MLMODEL)
    flavours = described.get("flavors") or {}
    data = (flavours.get("onnx") or {}).get("data")
    if not isinstance(data, str):
        raise BadInput(f"{place}: expected an MLmodel with the onnx flavour, it has {sorted(flavours)}. {_CONVERT}.")
    path = (place / data).resolve()
    if not path.is_relative_to(place.resolve()):
        raise BadInput(f"{place / MLMODEL}: expected a file of its directory, got {data!r}.")
    if path.is_dir():  # MLflow's own name inside of it
        path /= GRAPH
    graph, ours = _graph(path), _exported(place / MANIFEST)
    names = {"run_id": "mlflow_run_id", "model_id": "mlflow_model_id", "model_uuid": "mlflow_model_uuid"}
    facts = {name: str(described[key]) for key, name in names.items() if described.get(key)}
    from_here = ours is not None and ours.onnx.size == len(graph)
    return Found(
        graph=graph,
        origin=f"import of {ours.pipeline} version {ours.version}" if from_here and ours else f"import of {place.name}",
        facts=facts,
        manifest=ours if from_here else None,
    )


def write_model(folder: Path, manifest: Manifest, graph: bytes) -> None:
    """Into a directory that is not there yet, or is empty: whole or not at all."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"--to: expected a directory that is not there yet or is empty, {folder} is neither.")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    draft.mkdir(parents=True)
    (draft / GRAPH).write_bytes(graph)
    (draft / MLMODEL).write_text(json.dumps(_mlmodel(manifest, len(graph)), indent=2) + "\n")
    (draft / MANIFEST).write_bytes(msgspec.json.format(manifests.encode(manifest), indent=2) + b"\n")
    (draft / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements(manifest)))
    (draft / "python_env.yaml").write_text(
        f"python: {_python(manifest)}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n"
    )
    draft.replace(folder)


def _graph(path: Path) -> bytes:
    """One file: weights that lie beside it, as mlflow saves large ones, go in."""
    try:
        data = path.read_bytes()
        model = onnx.load_model_from_string(data)
        if any(weights.data_location == onnx.TensorProto.EXTERNAL for weights in model.graph.initializer):
            onnx.load_external_data_for_model(model, str(path.parent))
            data = model.SerializeToString()
    except OSError as error:
        raise BadInput(f"model import: {path} cannot be read: {error}") from error
    except Exception as error:  # protobuf's and onnx's own kinds
        raise BadInput(f"model import: expected an ONNX file, {path}: {error}") from error
    return data


def _described(path: Path) -> dict[str, Any]:
    try:
        import yaml  # noqa: PLC0415  comes with the extra
    except ModuleNotFoundError as error:
        raise BadInput("model import: an MLmodel is read with PyYAML. Run: pip install 'headrace[mlflow]'") from error
    try:
        described = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: expected YAML, {error}") from error
    if not isinstance(described, dict):
        raise BadInput(f"{path}: expected what mlflow writes, got {type(described).__name__}.")
    return described


def _exported(path: Path) -> Manifest | None:
    return manifests.decode(path.read_bytes()) if path.is_file() else None


def _mlmodel(manifest: Manifest, size: int) -> dict[str, Any]:
    created = datetime.fromisoformat(manifest.created_at)
    return {
        "flavors": {
            "onnx": {
                "code": None,
                "data": GRAPH,
                "onnx_session_options": None,
                "onnx_version": manifest.libraries.get("onnx", onnx.__version__),
                "providers": ["CPUExecutionProvider"],
            },
            "python_function": {
                "data": GRAPH,
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.onnx",
                "python_version": _python(manifest),
            },
        },
        "metadata": {"headrace_pipeline": manifest.pipeline, "headrace_version": manifest.version},
        "model_size_bytes": size,
        "model_uuid": uuid5(NAMESPACE_URL, f"{manifest.pipeline}/{manifest.version}/{manifest.onnx.sha256}").hex,
        "signature": {
            "inputs": json.dumps(_inputs(manifest.schema)),
            "outputs": json.dumps(
                [_tensor(PREDICTION, "float32", [len(manifest.classes)] if manifest.classes else [])]
            ),
            "params": None,
        },
        "utc_time_created": created.strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def _inputs(schema: Schema) -> list[dict[str, Any]]:
    """In the words of mlflow's TensorSpec; -1 is as many rows as one likes."""
    inputs = [_tensor(NUMBERS, "float32", [len(schema.numbers)])] if schema.numbers else []
    inputs += [_tensor(CATEGORIES, "object", [len(schema.categories)])] if schema.categories else []
    return inputs + [_tensor(column.name, "float32", list(column.shape)) for column in schema.tensors]


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}


def _requirements(manifest: Manifest) -> list[str]:
    """What serves it; what trained it is in the manifest."""
    found = ["mlflow"]
    for name in ("onnx", "onnxruntime", "numpy"):
        recorded = manifest.libraries.get(name)
        try:
            found.append(f"{name}=={recorded or version(name)}")
        except PackageNotFoundError:
            found.append(name)
    return found


def _python(manifest: Manifest) -> str:
    return manifest.libraries.get("python", platform.python_version())
