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
from headrace.trainer.encoding import Encoded, Encoder
from headrace.trainer.graph import CORE, OPSET, assemble
from headrace.trainer.head import Head
from headrace.trainer.parity import Network, parity


def export(module: torch.nn.Module, encoder: Encoder, head: Head, sample: Columns, cache: Path) -> bytes:
    """The graph of a module in eval mode. `sample` are a few real rows. Raises RunFailed("parity")."""
    template = cache / f"{_architecture(module, encoder)}.onnx"
    core = _from_template(module, template)
    if core is not None:
        graph = assemble(core, encoder, head)
        try:
            parity(_forward_of(module), encoder, graph, sample, head)
        except RunFailed:  # the weights are not all of what the forward pass depends on: export afresh
            template.unlink(missing_ok=True)
        else:
            return graph
    core = _export_core(module, encoder)
    graph = assemble(core, encoder, head)
    parity(_forward_of(module), encoder, graph, sample, head)
    if _is_template(core, module):
        cache.mkdir(parents=True, exist_ok=True)
        draft = template.with_suffix(f".{os.getpid()}")  # two runs may write it at once: each whole, one wins
        draft.write_bytes(core.SerializeToString())
        draft.replace(template)
    return graph


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


def _forward_of(module: torch.nn.Module) -> Network:
    def forward(encoded: Encoded) -> NDArray[Any]:
        with torch.no_grad():
            values = module(*map(torch.from_numpy, (encoded.numbers, encoded.categories, *encoded.tensors)))
        return np.asarray(values.numpy())

    return forward
