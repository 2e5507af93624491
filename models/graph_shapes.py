"""a graph → how much memory its intermediates take, as far as that can be worked out without running it.

A graph of 4 KB can ask for 4 GB. So (1) sizes may not depend on what an event says, only on constants and on the number
of rows, and (2) one row may not need more than a budget, nor many rows more than as many budgets.
"""

from collections.abc import Iterable
from math import prod
from typing import Any, Final, NoReturn

import onnx
from onnx import TensorProto, shape_inference

from headrace.models.errors import RegistryRefused
from headrace.models.graph_operators import SHAPED_BY, SIZED_BY

MANY_ROWS: Final = 4_096  # more than a chunk has
_ROW_BYTES: Final = 64 << 20  # an intermediate of one row: an image of 224 by 224 needs 3 MB
_SHARED_BYTES: Final = 64 << 10  # a row's share of what grows faster than its rows: row by row is 16 KB of these
_SMALL: Final = 1_024  # elements: what a constant may have that shapes are worked out from
_ITEM_BYTES: Final = {TensorProto.DOUBLE: 8, TensorProto.INT64: 8, TensorProto.UINT64: 8, TensorProto.STRING: 32}


def check_sources(graph: Any) -> None:
    """Raises RegistryRefused where a size depends on the values of an input, and not on its shape alone."""
    held = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    given = {value.name for value in graph.input} - held
    _follow(graph.node, held | given | {""}, given, set())


def _follow(nodes: Iterable[Any], known: set[str], valued: set[str], shaped: set[str]) -> None:
    """`valued`: names of tensors whose values depend on an event's; `shaped`: those whose shapes do."""
    for node in nodes:
        names, outputs = list(node.input), {name for name in node.output if name}
        if not known.issuperset(names) or not known.isdisjoint(outputs):
            raise RegistryRefused("not_onnx", f"{_named(node)}: expected nodes in order, each value made once, first")
        for place in SIZED_BY.get(node.op_type, ()):
            if place < len(names) and names[place] in valued:
                how = "an event would say how much memory is taken"
                raise RegistryRefused("shape_budget", f"the size of {_named(node)} depends on input values: {how}")
        graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) if graph.node]
        for graph in graphs:  # of control flow that the pipeline allows: what it is given may be anything
            inner = {value.name for value in graph.input}
            held = {tensor.name for tensor in graph.initializer}
            held |= {sparse.values.name for sparse in graph.sparse_initializer}
            _follow(graph.node, known | inner | held, valued | inner, shaped | inner)
        known |= outputs
        places = SHAPED_BY.get(node.op_type, ())
        steering = names if places is None else [names[place] for place in places if place < len(names)]
        if graphs or not shaped.isdisjoint(names) or not valued.isdisjoint(steering):
            shaped |= outputs
        of_shape = node.op_type in ("Shape", "Size")
        if graphs or not (shaped if of_shape else valued).isdisjoint(names):
            valued |= outputs


def check_sizes(model: Any) -> bool:
    """Whether the sizes of all intermediates are known. Raises RegistryRefused for those over the budget."""
    one, many = _outline(model, 1), _outline(model, MANY_ROWS)
    # the values of shapes are followed only where it must be: that takes memory itself, by what is too large already
    return any(_within_budget(one, many, follow_values=follow) for follow in (False, True))


def _within_budget(one: Any, many: Any, *, follow_values: bool) -> bool:
    sizes, all_of_one = _sizes(one, follow_values)
    for name, size in sizes.items():
        if size > _ROW_BYTES:
            _refuse(name, size, _ROW_BYTES, "one row")
    sizes_of_many, all_of_many = _sizes(many, follow_values)
    for name, size in sizes_of_many.items():
        budget = MANY_ROWS * max(sizes.get(name, 0), _SHARED_BYTES)
        if size > budget:
            _refuse(name, size, budget, f"{MANY_ROWS:,} rows")
    return all_of_one and all_of_many


def _refuse(name: str, size: int, budget: int, rows: str) -> NoReturn:
    raise RegistryRefused("shape_budget", f"{name[:80]!r} takes {size:,} bytes for {rows}, expected up to {budget:,}")


def _outline(model: Any, rows: int) -> Any:
    """The graph with so many rows and without its weights: shapes do not depend on those, and they cost time."""
    outline, graph = onnx.ModelProto(), model.graph
    outline.ir_version = model.ir_version
    outline.opset_import.extend(model.opset_import)
    outline.graph.name = "outline"
    outline.graph.node.extend(graph.node)
    outline.graph.output.extend(graph.output)
    held = set()
    for tensor in graph.initializer:
        held.add(tensor.name)
        if prod(tensor.dims) <= _SMALL:
            outline.graph.initializer.append(tensor)
        else:
            _declare(outline.graph.input, tensor.name, tensor.data_type, tensor.dims)
    for sparse in graph.sparse_initializer:
        held.add(sparse.values.name)
        _declare(outline.graph.input, sparse.values.name, sparse.values.data_type, sparse.dims)
    for value in graph.input:
        if value.name not in held:
            tensor = value.type.tensor_type
            sizes = [size.dim_value if size.HasField("dim_value") else rows for size in tensor.shape.dim]
            _declare(outline.graph.input, value.name, tensor.elem_type, sizes)
    for value in outline.graph.output:
        value.type.tensor_type.ClearField("shape")  # what it claims is not to be believed
    return outline


def _declare(inputs: Any, name: str, kind: int, sizes: Iterable[int]) -> None:
    value = inputs.add(name=name)
    value.type.tensor_type.elem_type = kind
    value.type.tensor_type.shape.SetInParent()
    for size in sizes:
        value.type.tensor_type.shape.dim.add(dim_value=size)


def _sizes(outline: Any, follow_values: bool) -> tuple[dict[str, int], bool]:
    """Bytes by name of what is known, and whether that is all."""
    try:
        inferred = shape_inference.infer_shapes(outline, data_prop=follow_values).graph
    except Exception as error:  # shapes that contradict each other, and whatever else its native code raises
        raise RegistryRefused("not_onnx", f"its shapes do not fit together: {error}") from error
    sizes: dict[str, int] = {}
    for value in (*inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        if value.type.HasField("tensor_type") and tensor.HasField("shape"):
            dimensions = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
            if None not in dimensions:
                sizes[value.name] = prod(d for d in dimensions if d is not None) * _ITEM_BYTES.get(tensor.elem_type, 4)
    made = {name for node in outline.graph.node for name in node.output if name}
    inside = any(attribute.g.node or attribute.graphs for node in outline.graph.node for attribute in node.attribute)
    return sizes, made <= sizes.keys() and not inside


def _named(node: Any) -> str:
    return f"{node.op_type} {node.name[:80]!r}" if node.name else str(node.op_type)
