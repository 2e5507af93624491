"""ONNX bytes → a graph that ONNX Runtime may see, or RegistryRefused: what can be told of a graph without running it.

The parser and ONNX's shape inference are native code and can be made to take much memory: call this in a process that
may die (`infra.sandbox`). What is left to find out by running is in `Checked.sizes_known`.

    too_large            more bytes than a graph may have
    not_onnx             not a graph; tensors whose bytes do not fit their shape; fields that our parser does not know
    too_deep             graphs in graphs in graphs
    too_many_nodes       more nodes, or more tensors and attributes, than a model has
    external_data        a tensor whose bytes are elsewhere: in a file of the machine that loads it
    operator             one that is not on the list of `graph_operators`, of another domain, or a function of its own
    not_finite_weights   NaN or infinity where a model has weights
    shape_budget         one row needs more memory than any of ours; or an event's values would say how much
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import TensorProto, numpy_helper

from headrace.models.errors import RegistryRefused
from headrace.models.graph_operators import ALLOWED, ML
from headrace.models.graph_shapes import check_sizes, check_sources

MAX_BYTES: Final = (1 << 31) - 1  # of a protobuf message; a sandbox has its own, lower limit
_MAX_NODES: Final = 10_000  # a large transformer has 3,000
_MAX_PARTS: Final = 100_000  # messages of any kind: an initializer is one, an attribute another
_MAX_DEPTH: Final = 20  # messages in messages: a tensor in a node's attribute is at 4, each graph in a graph adds 3

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_WHOLE = frozenset(
    {
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    }
)
# attributes of these names hold keys, limits and stand-ins for missing values; NaN and infinity mean something there
_NOT_WEIGHTS = frozenset(
    {
        *("keys_floats", "keys_tensor", "values_floats", "values_tensor", "default_tensor", "membership_values"),
        *("imputed_value_floats", "nodes_values", "nodes_splits", "value_floats"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Checked:
    sizes_known: bool  # False: some intermediate's size could not be worked out, so it must be tried with many rows


def check(data: bytes, operators: Collection[str] = ()) -> Checked:
    """`operators` are names of the default domain beside the usual ones. Raises RegistryRefused."""
    model = _parsed(data)
    _check_parts(model)
    _check_operators(model, frozenset(operators))
    check_sources(model.graph)
    return Checked(sizes_known=check_sizes(model))


def _parsed(data: bytes) -> Any:
    if not data or len(data) > MAX_BYTES:
        raise RegistryRefused("too_large" if data else "not_onnx", f"expected 1 to {MAX_BYTES} bytes, got {len(data)}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise RegistryRefused("not_onnx", f"expected an ONNX graph, got {len(data)} other bytes: {error}") from error
    if not model.HasField("graph") or not model.graph.node:
        raise RegistryRefused("not_onnx", "expected an ONNX graph with nodes, got one without")
    return model


# ── every message, wherever it hides ──────────────────────────────────────────────────────────────────────────────────


def _check_parts(model: Message) -> None:
    nodes = 0
    for parts, (message, attribute) in enumerate(_messages(model), start=1):
        nodes += isinstance(message, onnx.NodeProto)
        if nodes > _MAX_NODES or parts > _MAX_PARTS:
            raise RegistryRefused("too_many_nodes", f"expected up to {_MAX_NODES} nodes and {_MAX_PARTS} parts")
        if len(UnknownFieldSet(message)):
            kind = message.DESCRIPTOR.name
            raise RegistryRefused("not_onnx", f"a {kind} has fields that onnx {onnx.__version__} does not know")
        if isinstance(message, TensorProto):
            _check_tensor(message, is_weights=attribute not in _NOT_WEIGHTS)
        elif isinstance(message, onnx.AttributeProto) and message.floats and message.name not in _NOT_WEIGHTS:
            _check_finite(message.name, np.array(message.floats, np.float64))


def _messages(root: Message) -> Iterator[tuple[Message, str]]:
    """The message and all in it, each with the name of the attribute that it is in. No recursion of ours, no field that
    is forgotten: also those of functions, subgraphs, sparse tensors, training information and types."""
    waiting: list[tuple[Message, str, int]] = [(root, "", 0)]
    while waiting:
        message, attribute, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise RegistryRefused("too_deep", f"expected parts in parts up to {_MAX_DEPTH} deep, there are more")
        yield message, attribute
        if isinstance(message, onnx.AttributeProto):
            attribute = message.name
        for field, value in message.ListFields():
            if field.message_type is not None:
                inside = [value] if isinstance(value, Message) else value
                waiting += [(part, attribute, depth + 1) for part in inside]


def _check_tensor(tensor: Any, *, is_weights: bool) -> None:
    name = tensor.name[:80]
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise RegistryRefused("external_data", f"tensor {name!r} has its bytes in a file: put them into the graph")
    if tensor.HasField("segment") or any(size < 0 for size in tensor.dims):
        raise RegistryRefused("not_onnx", f"tensor {name!r} has segments or a negative size")
    if tensor.data_type == TensorProto.STRING:
        if len(tensor.string_data) != prod(tensor.dims):
            raise RegistryRefused("not_onnx", f"tensor {name!r} has {len(tensor.string_data)} strings for its shape")
    elif tensor.data_type in _FLOATS | _WHOLE:
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:  # what the library says of bytes that do not fit
            raise RegistryRefused("not_onnx", f"tensor {name!r} does not fit its shape: {error}") from error
        if is_weights and tensor.data_type in _FLOATS:
            _check_finite(name, values)
    else:
        raise RegistryRefused("not_onnx", f"tensor {name!r} is of type {tensor.data_type}, which no model here needs")


def _check_finite(name: str, values: Any) -> None:
    """A single value may be what missing or masked ones are compared with: a broken one shows in every score. Of many,
    one that is broken may show on rare rows alone; a mask, 0 and -infinity, is not broken."""
    if values.size <= 1:
        return
    finite = np.isfinite(values)
    if finite.all():
        return
    broken = values[~finite]
    if np.isnan(broken).any() or (broken > 0).any() or values[finite].any():
        count = len(broken)
        raise RegistryRefused("not_finite_weights", f"{count} of {values.size} values of {name!r} are NaN or infinite")


def _check_operators(model: Any, further: frozenset[str]) -> None:
    if model.functions:
        named = model.functions[0].name[:80]
        how = "write them out with onnx.inliner.inline_local_functions"
        raise RegistryRefused("operator", f"the graph brings functions of its own ({named!r}): {how}")
    for message, _ in _messages(model):
        if isinstance(message, onnx.NodeProto):
            domain = "" if message.domain == "ai.onnx" else message.domain
            if (domain, message.op_type) in ALLOWED or (not domain and message.op_type in further):
                continue
            what = f"{message.domain}:{message.op_type}" if message.domain else message.op_type
            remedy = "if the pipeline needs it, name it in Pipeline(operators=[…])"
            where = f"expected operators of ONNX and {ML} that are known to end and to answer the same again"
            raise RegistryRefused("operator", f"{where}, got {what[:80]!r}; {remedy if not domain else 'leave it out'}")
