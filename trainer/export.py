"""trained network + encoder → one ONNX graph by the contract of `models.session`, checked against torch.

torch exports the network alone, once per architecture; later runs put their weights into that template. `graph`
puts the encoder and the last step around it.
"""

import hashlib
import inspect
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from headrace.models.errors import RunFailed
from headrace.models.protocols import Columns
from headrace.models.schema import CATEGORIES, NUMBERS
from headrace.models.session import Session
from headrace.trainer.encoding import Encoded, Encoder
from headrace.trainer.graph import CORE, OPSET, Affine, assemble

TOLERANCE = 1e-4  # between torch and ONNX; of a probability, or of a regression label's standard deviation


def export(module: torch.nn.Module, encoder: Encoder, affine: Affine | None, sample: Columns, cache: Path) -> bytes:
    """The graph of a module in eval mode. `sample` are a few real rows. Raises RunFailed("parity")."""
    template = cache / f"{_architecture(module, encoder)}.onnx"
    core = _from_template(module, template)
    if core is not None:
        graph = assemble(core, encoder, affine)
        try:
            parity(module, encoder, graph, sample, affine)
        except RunFailed:  # the weights are not all of what the forward pass depends on: export afresh
            template.unlink(missing_ok=True)
        else:
            return graph
    core = _export_core(module, encoder)
    graph = assemble(core, encoder, affine)
    parity(module, encoder, graph, sample, affine)
    if _is_template(core, module):
        cache.mkdir(parents=True, exist_ok=True)
        draft = template.with_suffix(f".{os.getpid()}")  # two runs may write it at once: each whole, one wins
        draft.write_bytes(core.SerializeToString())
        draft.replace(template)
    return graph


def parity(
    module: torch.nn.Module, encoder: Encoder, graph: bytes, sample: Columns, affine: Affine | None = None
) -> float:
    """The largest difference between torch and ONNX, on real and on nasty rows, one by one and all at once."""
    columns, rows = _with_nasty_rows(encoder, sample)
    expected = _torch_scores(module, encoder.transform(columns, rows), affine)
    try:
        session = Session(graph, encoder.schema)
        found = session.predict(columns, rows)
        nasty = range(max(0, rows - 8), rows)
        alone = [session.predict({name: column[[row]] for name, column in columns.items()}, 1)[0] for row in nasty]
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise RunFailed("parity", f"onnxruntime does not run the exported graph: {error}") from error
    differences = np.abs(np.concatenate([found - expected, np.asarray(alone) - expected[list(nasty)]]))
    largest = float(differences.max(initial=0.0))
    if not largest <= TOLERANCE * (max(1.0, affine[1]) if affine else 1.0):  # written so that NaN fails
        raise RunFailed(
            "parity", f"torch and the exported graph differ by {largest:.3g}; see docs on what forward may do"
        )
    return largest


def _export_core(module: torch.nn.Module, encoder: Encoder) -> Any:
    """The network as a graph whose initializers are named as in its state_dict."""
    shape, rows = encoder.inputs, 2
    example = (
        torch.zeros(rows, shape.numbers),
        torch.zeros(rows, len(shape.categories), dtype=torch.int64),
        *(torch.zeros(rows, *sizes) for sizes in shape.tensors),
    )
    names = [CORE + name for name in (NUMBERS, CATEGORIES, *(f"tensor_{i}" for i in range(len(shape.tensors))))]
    file = io.BytesIO()
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but 0.02 s where the dynamo exporter takes 1 s
        try:
            torch.onnx.export(
                module,
                example,
                file,  # type: ignore[arg-type]  # the exporter that we ask for takes files, too
                input_names=names,
                output_names=[CORE + "output"],
                dynamic_axes={name: {0: "n"} for name in [*names, CORE + "output"]},
                opset_version=OPSET,
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,  # eval would fuse weights, and a template needs each alone
                dynamo=False,
            )
        except Exception as error:
            raise RunFailed("export", f"torch.onnx.export: {type(error).__name__}: {error}") from error
    return onnx.load_from_string(file.getvalue())


def _is_template(core: Any, module: torch.nn.Module) -> bool:
    """Whether every initializer is an entry of the state_dict, bit by bit, and every parameter is an initializer."""
    state, found = module.state_dict(), {tensor.name: tensor for tensor in core.graph.initializer}
    return all(name in found for name, _ in module.named_parameters()) and all(
        name in state and np.array_equal(numpy_helper.to_array(tensor), state[name].numpy(), equal_nan=True)
        for name, tensor in found.items()
    )


def _from_template(module: torch.nn.Module, template: Path) -> Any | None:
    if not template.exists():
        return None
    core, state = onnx.load_from_string(template.read_bytes()), module.state_dict()
    for tensor in core.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    return core


def _architecture(module: torch.nn.Module, encoder: Encoder) -> str:
    """A hash of what a forward pass depends on beside the weights: structure, shapes, source, versions."""
    parts = [torch.__version__, onnx.__version__, str(OPSET), repr(module), repr(encoder.inputs)]
    parts += [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in module.state_dict().items()]
    for name in sorted({type(part).__module__ for part in module.modules()}):
        if not name.startswith("torch."):
            try:
                parts.append(inspect.getsource(sys.modules[name]))
            except (OSError, TypeError, KeyError):  # typed at a prompt: parity decides
                parts.append(name)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _torch_scores(module: torch.nn.Module, encoded: Encoded, affine: Affine | None) -> NDArray[np.float64]:
    with torch.no_grad():
        inputs = (encoded.numbers, encoded.categories, *encoded.tensors)
        values = module(*map(torch.from_numpy, inputs))
    scores = torch.sigmoid(values) if affine is None else values * affine[1] + affine[0]
    return np.asarray(scores.numpy(), np.float64)


def _with_nasty_rows(encoder: Encoder, sample: Columns) -> tuple[dict[str, NDArray[Any]], int]:
    """The sample and, per column, a copy of its last row with that column missing, unknown or extreme."""
    schema, real = encoder.schema, len(next(iter(sample.values())))
    changes: list[tuple[str, Any]] = []
    for column in schema.numbers:
        changes += [(column.name, np.nan), (column.name, 3e38)]
    for column in schema.categories:
        changes += [(column.name, None if column.nullable else ""), (column.name, "\x00 never seen é")]
    rows = real + len(changes) + 1
    columns = {}
    for column in schema.columns:
        columns[column.name] = np.concatenate([sample[column.name], sample[column.name][[real - 1] * (rows - real)]])
    for row, (name, value) in enumerate(changes, start=real):
        columns[name][row] = value
    for column in (*schema.numbers, *schema.categories):  # the last row: everything missing
        nothing = np.nan if column.kind == "number" else None if column.nullable else ""
        columns[column.name][rows - 1] = nothing
    return columns, rows
