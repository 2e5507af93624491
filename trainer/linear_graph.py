"""linear model + its past ⇄ one ONNX graph, by the contract of `models.session`: no exporter, a few nodes per category.

The past is in the graph's metadata, so that whoever goes on from it knows which rows are new, whatever became of the
run's own files.
"""

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from headrace.models.schema import CATEGORIES, NUMBERS
from headrace.trainer.encoding import Encoder
from headrace.trainer.graph import CORE, OPSET, assemble
from headrace.trainer.head import Head
from headrace.trainer.sgd import Linear
from headrace.trainer.warm_start import FromScratch, Start

_NOTES = "headrace.online"
_WEIGHTS, _TABLE, _BIAS = "online.weights", "online.table_", "online.bias"


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph says of its own past."""

    steps: Annotated[int, msgspec.Meta(ge=0)] = 0  # of descent, with which the learning rate falls
    rows: Annotated[int, msgspec.Meta(ge=0)] = 0
    through: int = -1  # newest event time that was trained on, Unix ms
    known: int = -1  # when the newest label was known, Unix ms


def zeros(encoder: Encoder, head: Head) -> Linear:
    shape = encoder.inputs
    width = shape.numbers + sum(int(np.prod(sizes)) for sizes in shape.tensors)
    return Linear(
        weights=np.zeros((width, head.outputs)),
        tables=tuple(np.zeros((size, head.outputs)) for size in shape.categories),
        bias=np.zeros(head.outputs),
    )


def graph_of(model: Linear, encoder: Encoder, head: Head, learnt: Learnt) -> bytes:
    nodes = []

    def node(op: str, given: list[str], output: str, **attributes: int) -> str:
        nodes.append(helper.make_node(op, given, [output], output, **attributes))
        return output

    constants = {name: part.astype(np.float32) for name, part in _parts(model).items()}
    terms, dense = [_BIAS], [CORE + NUMBERS] if encoder.inputs.numbers else []
    tensors = range(len(encoder.inputs.tensors))
    dense += [node("Flatten", [f"{CORE}tensor_{place}"], f"flat_{place}", axis=1) for place in tensors]
    if dense:
        terms.append(node("MatMul", [node("Concat", dense, "dense", axis=1), _WEIGHTS], "product"))
    for place in range(len(encoder.vocabularies)):
        constants[f"{CORE}column_{place}"] = np.array(place, np.int64)
        index = node("Gather", [CORE + CATEGORIES, f"{CORE}column_{place}"], f"category_{place}", axis=1)
        terms.append(node("Gather", [f"{_TABLE}{place}", index], f"term_{place}", axis=0))
    total = terms[0]
    for place, term in enumerate(terms[1:]):
        total = node("Add", [total, term], f"sum_{place}")
    constants[f"{CORE}shape"] = np.array([-1, head.classes] if head.classes else [-1], np.int64)
    node("Reshape", [total, f"{CORE}shape"], CORE + "output")
    initializers = [numpy_helper.from_array(part, name) for name, part in constants.items()]
    core = helper.make_model(
        helper.make_graph(nodes, "linear", [], [], initializers), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    return assemble(core, encoder, head, {_NOTES: msgspec.json.encode(learnt).decode()})


def model_of(start: Start) -> Linear:
    """Raises FromScratch where the champion is not of this kind."""
    expected = {name: part.shape for name, part in _parts(zeros(start.encoder, start.head)).items()}
    there = {name: part.shape for name, part in start.weights.items()}
    if there != expected or not all(np.isfinite(part).all() for part in start.weights.values()):
        raise FromScratch(f"version {start.version} is no linear model of Online's")
    held = {name: part.astype(np.float64) for name, part in start.weights.items()}
    tables = tuple(held[f"{_TABLE}{place}"] for place in range(len(start.encoder.vocabularies)))
    return Linear(weights=held[_WEIGHTS], tables=tables, bias=held[_BIAS])


def learnt_of(start: Start) -> Learnt:
    try:
        return msgspec.json.decode(start.notes[_NOTES], type=Learnt)
    except (KeyError, msgspec.DecodeError, RecursionError) as error:
        raise FromScratch(f"version {start.version} does not say what it was trained on") from error


def _parts(model: Linear) -> dict[str, NDArray[np.float64]]:
    tables = {f"{_TABLE}{place}": table for place, table in enumerate(model.tables)}
    return {_WEIGHTS: model.weights, _BIAS: model.bias} | tables
