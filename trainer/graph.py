"""core network → the whole graph: normalisation, missing flags and vocabularies before it, the last step after it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headrace.models.schema import CATEGORIES, NUMBERS, PREDICTION
from headrace.trainer.encoding import CLIP, Encoder
from headrace.trainer.head import Head

OPSET, ML_OPSET = 18, 3
IR_VERSION = 9  # onnxruntime 1.20, our oldest, reads up to 10
CORE = "headrace."  # prefix of our own value names, and of the core's inputs and its output


def assemble(core: Any, encoder: Encoder, head: Head, notes: Mapping[str, str] | None = None) -> bytes:
    """The core between our own nodes; `onnx.checker` has seen the whole. `notes` are the graph's metadata."""
    used = {name for node in core.graph.node for name in node.input}
    inputs, before, constants = _preprocessing(encoder, used)
    after, scale = _postprocessing(head)
    shape = ["n", head.classes] if head.classes else ["n"]
    graph = helper.make_graph(
        [*before, *core.graph.node, *after],
        "headrace",
        inputs,
        [helper.make_tensor_value_info(PREDICTION, TensorProto.FLOAT, shape)],
        [*constants, *core.graph.initializer, *scale],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="headrace")
    helper.set_model_props(model, dict(notes or {}))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _preprocessing(encoder: Encoder, used: set[str]) -> tuple[list[Any], list[Any], list[Any]]:
    """Public inputs → the core's: what `Encoder.transform` does, as nodes. Returns inputs, nodes and constants."""
    schema, inputs, nodes, constants = encoder.schema, [], [], []

    def constant(name: str, value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, CORE + name))
        return CORE + name

    def node(op: str, given: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, given, [CORE + output], CORE + output, **attributes))
        return CORE + output

    if schema.numbers:
        inputs.append(helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, ["n", len(schema.numbers)]))
        missing = node("IsNaN", [NUMBERS], "missing")
        centered = node("Sub", [NUMBERS, constant("mean", encoder.mean)], "centered")
        scaled = node("Div", [centered, constant("scale", encoder.scale)], "scaled")
        filled = node("Where", [missing, constant("zero", np.array(0, np.float32)), scaled], "filled")
        limits = [constant("low", np.array(-CLIP, np.float32)), constant("high", np.array(CLIP, np.float32))]
        parts = [node("Clip", [filled, *limits], "clipped")]
        if encoder.flagged:
            places = constant("flagged", np.array(encoder.flagged, np.int64))
            numeric = node("Cast", [missing], "missing_as_float", to=TensorProto.FLOAT)
            parts.append(node("Gather", [numeric, places], "flags", axis=1))
        node("Concat", parts, NUMBERS, axis=1)
    if schema.categories:
        inputs.append(helper.make_tensor_value_info(CATEGORIES, TensorProto.STRING, ["n", len(schema.categories)]))
        parts = []
        for place, vocabulary in enumerate(encoder.vocabularies):
            at = constant(f"place_{place}", np.array([place], np.int64))
            values = node("Gather", [CATEGORIES, at], f"category_{place}", axis=1)
            parts.append(
                node(
                    "LabelEncoder",
                    [values],
                    f"index_{place}",
                    domain="ai.onnx.ml",
                    keys_strings=list(vocabulary) or [""],  # an empty list is no list; "" is missing, index 0 as well
                    values_int64s=list(range(1, len(vocabulary) + 1)) or [0],
                    default_int64=0,
                )
            )
        node("Concat", parts, CATEGORIES, axis=1)
    for place, column in enumerate(schema.tensors):
        inputs.append(helper.make_tensor_value_info(column.name, TensorProto.FLOAT, ["n", *column.shape]))
        node("Identity", [column.name], f"tensor_{place}")
    for absent, name, kind in (
        (not schema.numbers, NUMBERS, np.float32),
        (not schema.categories, CATEGORIES, np.int64),
    ):
        if absent and CORE + name in used:  # a network that takes [n, 0]
            shape = node("Shape", [inputs[0].name], f"{name}_rows", start=0, end=1)
            sizes = node("Concat", [shape, constant(f"{name}_none", np.array([0], np.int64))], f"{name}_shape", axis=0)
            node("ConstantOfShape", [sizes], name, value=numpy_helper.from_array(np.zeros(1, kind)))
    return inputs, nodes, constants


def _postprocessing(head: Head) -> tuple[list[Any], list[Any]]:
    """What `Head.scores` does, as nodes."""
    output = CORE + "output"
    if head.task == "multiclass":
        return [helper.make_node("Softmax", [output], [PREDICTION], CORE + "softmax", axis=1)], []
    if head.task == "binary":
        return [helper.make_node("Sigmoid", [output], [PREDICTION], CORE + "sigmoid")], []
    center, spread = CORE + "label_mean", CORE + "label_scale"
    nodes = [
        helper.make_node("Mul", [output, spread], [CORE + "spread"], CORE + "spread"),
        helper.make_node("Add", [CORE + "spread", center], [PREDICTION], CORE + "center"),
    ]
    values = ((center, head.center), (spread, head.spread))
    return nodes, [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values]
