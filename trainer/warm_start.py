"""the champion's graph → its encoder, its weights and its notes: what a training that goes on from it begins with.

The graph came over the wire. It is parsed as data: nothing of it is run, unpickled or looked up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from headrace.models.protocols import ChampionGraph, Columns
from headrace.models.schema import Schema
from headrace.trainer.encoding import Encoder
from headrace.trainer.graph import CORE
from headrace.trainer.head import Head

# of a category's values that the champion's vocabulary lacks, each of which its network sees as "unknown"
MAX_UNKNOWN = 0.05


class FromScratch(Exception):
    """The champion cannot be gone on from; the message is the reason that a manifest gives."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the champion was, as our own learners write it."""

    version: int
    encoder: Encoder
    head: Head
    weights: Mapping[str, NDArray[Any]]  # the network's initializers, by name
    notes: Mapping[str, str]  # of the graph's metadata


def start_of(champion: ChampionGraph | None, schema: Schema, head: Head) -> Start:
    """`head` is today's; a regression keeps the champion's own scale. Raises FromScratch."""
    if champion is None:
        raise FromScratch("no version serves yet")
    named = f"version {champion.version}"
    if champion.unfit:
        raise FromScratch(f"{named} cannot be gone on from: {champion.unfit}")
    if champion.schema != schema:
        raise FromScratch(f"{named} has other features")
    try:
        model = onnx.load_from_string(champion.onnx)
        weights = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
        ours = {name.removeprefix(CORE): weights.pop(name) for name in list(weights) if name.startswith(CORE)}
        encoder = _encoder(model, ours, schema)
        if ("label_mean" in ours) != (head.task == "regression"):
            raise ValueError("it is of another task")  # noqa: TRY301  as all that is wrong with it
        if head.task == "regression":
            head = replace(head, center=float(ours["label_mean"]), spread=float(ours["label_scale"]))
            if not np.isfinite(head.center) or not 0 < head.spread < np.inf:
                raise ValueError("its labels' scale is none")  # noqa: TRY301  as all that is wrong with it
    except (KeyError, ValueError, TypeError, DecodeError) as error:
        raise FromScratch(f"{named} was not made by one of headrace's learners: {error}") from error
    notes = {entry.key: entry.value for entry in model.metadata_props}
    return Start(version=champion.version, encoder=encoder, head=head, weights=weights, notes=notes)


def check_vocabularies(start: Start, columns: Columns) -> None:
    """Raises FromScratch where too many values are new to it."""
    for column, vocabulary in zip(start.encoder.schema.categories, start.encoder.vocabularies, strict=True):
        values = pa.array(columns[column.name], pa.string(), from_pandas=True)
        given = pc.and_kleene(values.is_valid(), pc.not_equal(values, ""))
        known = pc.is_in(values, value_set=pa.array(vocabulary, pa.string()))
        there, lacking = (pc.sum(which).as_py() or 0 for which in (given, pc.and_not_kleene(given, known)))
        if lacking > MAX_UNKNOWN * there:
            share = f"{lacking / there:.1%} of the values of {column.name!r} are new to it"
            raise FromScratch(f"version {start.version} is too old: {share}, at most {MAX_UNKNOWN:.0%} may be")


def _array(tensor: Any) -> NDArray[Any]:
    if tensor.data_location != TensorProto.DEFAULT:
        raise ValueError(f"tensor {tensor.name!r} has its bytes elsewhere")
    return np.array(numpy_helper.to_array(tensor))  # a copy that may be written to


def _encoder(model: Any, ours: Mapping[str, NDArray[Any]], schema: Schema) -> Encoder:
    width = len(schema.numbers)
    mean, scale = (ours[name] if width else np.empty(0, np.float32) for name in ("mean", "scale"))
    usable = all(part.shape == (width,) and part.dtype == np.float32 for part in (mean, scale))
    if not usable or not np.isfinite(mean).all() or not (scale > 0).all():
        raise ValueError("its normalisation is not one of ours")
    nodes = {node.name: node for node in model.graph.node if node.op_type == "LabelEncoder"}
    vocabularies = []
    for place in range(len(schema.categories)):
        (keys,) = [a.strings for a in nodes[f"{CORE}index_{place}"].attribute if a.name == "keys_strings"]
        vocabularies.append(tuple(key.decode() for key in keys if key))
    return Encoder(schema, mean, scale, tuple(vocabularies))
