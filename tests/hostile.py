"""Graphs that must not be loaded, made by hand: each keeps the contract of `models.session` as far as it can."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headrace.models.schema import NUMBERS, PREDICTION

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def constant(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.array(value), name)


def model(
    nodes: Sequence[Any], constants: Sequence[Any] = (), *, columns: int = 2, sparse: Sequence[Any] = (), **more: Any
) -> Any:
    """sigmoid(the first number + `extra`), where `nodes` make the value `extra`, one per row or one for all."""
    own = [
        helper.make_node("Gather", [NUMBERS, "headrace_first"], ["headrace_logits"], axis=1),
        *nodes,
        helper.make_node("Add", ["headrace_logits", "extra"], ["headrace_moved"]),
        helper.make_node("Sigmoid", ["headrace_moved"], [PREDICTION]),
    ]
    graph = helper.make_graph(
        own,
        "hostile",
        [helper.make_tensor_value_info(NUMBERS, FLOAT, ["n", columns])],
        [helper.make_tensor_value_info(PREDICTION, FLOAT, ["n"])],
        [constant("headrace_first", np.int64(0)), *constants],
        sparse_initializer=sparse,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("evil", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def data(made: Any) -> bytes:
    return bytes(made.SerializeToString())


def elsewhere(name: str = "extra", location: str = "secret.bin") -> Any:
    """A tensor whose bytes are in a file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def summed(name: str, into: str = "extra") -> Any:
    return helper.make_node("ReduceSum", [name], [into], keepdims=0)


def external_initializer() -> bytes:
    return data(model([summed("far")], [elsewhere("far")]))


def external_attribute() -> bytes:
    return data(model([helper.make_node("Constant", [], ["far"], value=elsewhere("far")), summed("far")]))


def external_in_a_branch() -> bytes:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["then"], value=elsewhere("then"))],
        "branch",
        [],
        [helper.make_tensor_value_info("then", FLOAT, [1])],
    )
    node = helper.make_node("If", ["yes"], ["far"], then_branch=branch, else_branch=branch)
    return data(model([node, summed("far")], [constant("yes", True)]))


def external_in_a_function() -> bytes:
    made = model([helper.make_node("Far", [], ["far"], domain="evil"), summed("far")])
    body = [helper.make_node("Constant", [], ["out"], value=elsewhere("out"))]
    made.functions.append(helper.make_function("evil", "Far", [], ["out"], body, [helper.make_opsetid("", 18)]))
    return data(made)


def external_in_a_sparse_initializer() -> bytes:
    sparse = onnx.SparseTensorProto(values=elsewhere("far"), indices=constant("", [0]), dims=[1])
    return data(model([summed("far")], sparse=[sparse]))


def external_in_sparse_indices() -> bytes:
    indices = elsewhere("")
    indices.data_type = INT
    sparse = onnx.SparseTensorProto(values=constant("far", [np.float32(1)]), indices=indices, dims=[1])
    return data(model([summed("far")], sparse=[sparse]))


def custom_domain() -> bytes:
    return data(model([helper.make_node("Open", [], ["extra"], domain="evil")]))


def own_function() -> bytes:
    made = model([helper.make_node("Twice", ["headrace_logits"], ["extra"], domain="evil")])
    body = [helper.make_node("Add", ["a", "a"], ["out"])]
    made.functions.append(helper.make_function("evil", "Twice", ["a"], ["out"], body, [helper.make_opsetid("", 18)]))
    return data(made)


def random_numbers() -> bytes:
    return data(model([helper.make_node("RandomNormalLike", ["headrace_logits"], ["extra"])]))


def endless_loop(rounds: int = 1 << 62) -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["goes_on"]), helper.make_node("Identity", ["sum_in"], ["sum_out"])],
        "body",
        [
            helper.make_tensor_value_info("round", INT, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", FLOAT, []),
        ],
    )
    # from the rows, so that it is not folded away when the graph is loaded
    nodes = [
        helper.make_node("ReduceSum", ["headrace_logits"], ["begin"], keepdims=0),
        helper.make_node("Loop", ["rounds", "true", "begin"], ["extra"], body=body),
    ]
    return data(model(nodes, [constant("rounds", np.int64(rounds)), constant("true", True)]))


def giant_constant(elements: int = 1 << 32) -> bytes:
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["giant"]), summed("giant")]
    return data(model(nodes, [constant("size", [elements])]))


def many_large(count: int = 40, elements: int = 15_000_000) -> bytes:
    """60 MB each, which is allowed, and all of them are needed at once."""
    nodes = [helper.make_node("ReduceSum", ["headrace_logits"], ["begin"])]
    for number in range(count):  # each another, or they are made once
        nodes.append(helper.make_node("Add", ["begin", f"number_{number}"], [f"small_{number}"]))
        nodes.append(helper.make_node("Expand", [f"small_{number}", "size"], [f"large_{number}"]))
    nodes.append(helper.make_node("Sum", [f"large_{number}" for number in range(count)], ["all"]))
    numbers = [constant(f"number_{number}", np.float32(number)) for number in range(count)]
    return data(model([*nodes, summed("all")], [*numbers, constant("size", [elements])]))


def giant_tile(times: int = 1 << 30) -> bytes:
    nodes = [helper.make_node("Tile", ["headrace_logits", "times"], ["giant"]), summed("giant")]
    return data(model(nodes, [constant("times", [times])]))


def giant_range() -> bytes:
    nodes = [helper.make_node("Range", ["from", "to", "step"], ["giant"]), summed("giant")]
    limits = [constant(name, np.float32(value)) for name, value in (("from", 0), ("to", 1e9), ("step", 1))]
    return data(model(nodes, limits))


def rows_times_rows() -> bytes:
    """Small for one row, 10^14 for a chunk's, though no operator makes anything larger by itself."""
    nodes = [
        helper.make_node("Unsqueeze", ["headrace_logits", "one"], ["down"]),
        helper.make_node("Unsqueeze", ["headrace_logits", "zero"], ["across"]),
        helper.make_node("Add", ["down", "across"], ["square"]),
        helper.make_node("Reshape", ["square", "flat"], ["long"]),
        helper.make_node("Unsqueeze", ["long", "one"], ["long_down"]),
        helper.make_node("Unsqueeze", ["long", "zero"], ["long_across"]),
        helper.make_node("Add", ["long_down", "long_across"], ["giant"]),
        summed("giant"),
    ]
    return data(model(nodes, [constant("zero", [0]), constant("one", [1]), constant("flat", [-1])]))


def sized_by_the_event(operator: str = "ConstantOfShape") -> bytes:
    """As many as the event's largest number says: it passes with every row but the one that an attacker sends."""
    nodes = [
        helper.make_node("ReduceMax", [NUMBERS], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["whole"], to=INT),
        helper.make_node("Reshape", ["whole", "flat"], ["size"]),
    ]
    given = {"ConstantOfShape": ["size"], "Tile": ["flat_one", "size"], "Expand": ["flat_one", "size"]}[operator]
    nodes += [helper.make_node(operator, given, ["giant"]), summed("giant")]
    return data(model(nodes, [constant("flat", [1]), constant("flat_one", np.ones(1, np.float32))]))


def nested(depth: int) -> bytes:
    leaf = graph = helper.make_graph(
        [helper.make_node("Identity", ["headrace_logits"], ["x"])],
        "leaf",
        [],
        [helper.make_tensor_value_info("x", FLOAT, None)],
    )
    for _ in range(depth):
        node = helper.make_node("If", ["yes"], ["x"], then_branch=graph, else_branch=leaf)
        graph = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("x", FLOAT, None)])
    node = helper.make_node("If", ["yes"], ["extra"], then_branch=graph, else_branch=leaf)
    return data(model([node], [constant("yes", True)]))


def nested_without_end(depth: int = 1_000) -> bytes:
    """Deeper than a parser goes, so written by hand: model.graph.node.attribute.g.node.attribute.g …"""
    inner = b""
    for field in [6, 5, 1] * depth + [7]:  # AttributeProto.g, NodeProto.attribute, GraphProto.node
        size = len(inner)
        length = b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        inner = bytes([field << 3 | 2]) + length + bytes([size]) + inner
    return inner


def many_nodes(count: int) -> bytes:
    nodes = [helper.make_node("Identity", [f"v{n}" if n else "headrace_logits"], [f"v{n + 1}"]) for n in range(count)]
    return data(model([*nodes, helper.make_node("Identity", [f"v{count}"], ["extra"])]))


def weighted(values: Any, operator: str = "Mul") -> bytes:
    """`values` [2] are weights of the graph."""
    nodes = [helper.make_node(operator, [NUMBERS, "weights"], ["product"]), summed("product")]
    return data(model(nodes, [constant("weights", np.array(values, np.float32))]))


def linear_regressor(coefficients: Sequence[float]) -> bytes:
    regressor = helper.make_node(
        "LinearRegressor",
        [NUMBERS],
        ["answers"],
        domain="ai.onnx.ml",
        coefficients=list(coefficients),
        intercepts=[0.0],
    )
    return data(model([regressor, summed("answers")]))
