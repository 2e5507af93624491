"""ONNX bytes → a warmed predict(columns).

The contract of a version's graph, n rows at a time (the first dimension is dynamic):

    numbers      float32[n, p]   the schema's number columns in order, NaN where missing    (absent if p is 0)
    categories   string[n, q]    the schema's category columns in order, "" where missing   (absent if q is 0)
    <tensor>     float32[n, …]   one input per tensor column, by its name
    → prediction float32[n]      a probability, or the value of a regression;
                 float32[n, k]   a probability per class, where there are several

Normalisation, missing flags and vocabularies are inside the graph, so that any ONNX runtime can serve it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from headrace.models.deadline import within
from headrace.models.errors import RegistryRefused
from headrace.models.protocols import Columns
from headrace.models.schema import CATEGORIES, NUMBERS, PREDICTION, Schema
from headrace.models.scores import finite

CPU = "CPUExecutionProvider"


class Predictor(Protocol):
    """What serves: a baseline or a session."""

    def predict(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """[rows], or [rows, k] where there are k classes."""


def graph_inputs(schema: Schema, columns: Columns, rows: int) -> dict[str, NDArray[Any]]:
    """The batch as the graph takes it. `rows` counts them where the schema has no column."""
    inputs: dict[str, NDArray[Any]] = {}
    if schema.numbers:
        numbers = np.empty((rows, len(schema.numbers)), np.float32)
        with np.errstate(over="ignore"):  # beyond float32 it is infinite, which the graph's clipping takes
            for place, column in enumerate(schema.numbers):
                numbers[:, place] = columns[column.name]
        inputs[NUMBERS] = numbers
    if schema.categories:
        categories = np.empty((rows, len(schema.categories)), object)
        for place, column in enumerate(schema.categories):
            values = columns[column.name]
            categories[:, place] = np.where(values == None, "", values) if column.nullable else values  # noqa: E711  element by element
        inputs[CATEGORIES] = categories
    for column in schema.tensors:
        inputs[column.name] = np.ascontiguousarray(columns[column.name], np.float32)
    return inputs


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How ONNX Runtime runs a graph. One thread per worker: more workers, not more threads, share a machine's cores."""

    threads: int = 1
    providers: tuple[str, ...] = (CPU,)  # in order of preference, as `onnxruntime.get_available_providers()` names them
    seconds: float = 20.0  # for one batch; then the run is ended


def expect_classes(session: "Session", classes: Sequence[str], made_for: Sequence[str] | None = None) -> None:
    """`classes` are the pipeline's, `made_for` the version's own, where it says them. Raises RegistryRefused."""
    if session.classes != len(classes) or (made_for is not None and tuple(made_for) != tuple(classes)):
        wanted = f"a probability for each of {', '.join(classes)}" if classes else "one score per row"
        found = f"for {', '.join(made_for)}" if made_for else f"{session.classes} per row" if session.classes else "one"
        raise RegistryRefused("wrong_classes", f"expected {wanted}, the graph gives {found}")


class Session:
    """A version's graph, loaded and checked against its schema."""

    def __init__(self, onnx: bytes, schema: Schema, runtime: Runtime = Runtime()) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = runtime.threads
        options.inter_op_num_threads = 1
        # an idle pool that spins takes the core from the broker and from every other worker
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(onnx, options, providers=list(runtime.providers))
        except Exception as error:
            raise RegistryRefused("not_onnx", f"onnxruntime cannot load the graph: {error}") from error
        self.schema, self._seconds = schema, runtime.seconds
        self._per_row: tuple[int, ...] = ()
        self._check_contract()

    @property
    def classes(self) -> int:
        """How many it answers for; 0 where it gives one score."""
        return self._per_row[0] if self._per_row else 0

    def predict(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """Scores [rows], or [rows, classes]. Raises RegistryRefused as `run` does."""
        return np.asarray(self.run(graph_inputs(self.schema, columns, rows), rows), np.float64)

    def run(self, inputs: dict[str, NDArray[Any]], rows: int) -> NDArray[np.float32]:
        """The graph's own tensors, by name, to scores [rows] or [rows, classes]. Raises RegistryRefused: `raised`,
        `timeout`, or `wrong_shape` for another number of rows."""
        options = ort.RunOptions()
        with within(self._seconds, options) as deadline:
            try:
                (scores,) = self._session.run([PREDICTION], inputs, options)
            except Exception as error:  # onnxruntime's own kinds
                if deadline.expired:
                    raise RegistryRefused("timeout", f"no answer for {rows} rows within {self._seconds:g} s") from error
                raise RegistryRefused("raised", f"the graph raised on {rows} rows: {error}") from error
        if scores.shape != (rows, *self._per_row):
            expected = (rows, *self._per_row)
            raise RegistryRefused("wrong_shape", f"expected scores of shape {expected}, the graph gave {scores.shape}")
        answer: NDArray[np.float32] = scores
        return answer

    def warm(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """Scores of real rows, so that the first served batch finds everything allocated; and of another number of
        rows, as the graph may have been made for one alone."""
        scores = self.predict(columns, rows)
        another = [0] if rows > 1 else [0, 0]
        self.predict({name: values[another] for name, values in columns.items()}, len(another))
        if not finite(scores).all():
            raise RegistryRefused("not_finite", "the graph answers NaN or infinity to rows that are being served")
        return scores

    def _check_contract(self) -> None:
        expected: dict[str, tuple[str, list[int]]] = {}
        if self.schema.numbers:
            expected[NUMBERS] = ("tensor(float)", [len(self.schema.numbers)])
        if self.schema.categories:
            expected[CATEGORIES] = ("tensor(string)", [len(self.schema.categories)])
        for column in self.schema.tensors:
            expected[column.name] = ("tensor(float)", list(column.shape))
        found = {node.name: (node.type, list(node.shape)[1:]) for node in self._session.get_inputs()}
        if found != expected:
            raise RegistryRefused("wrong_inputs", f"the graph takes {found}, its schema says {expected}")
        outputs = {node.name: (node.type, tuple(node.shape)[1:]) for node in self._session.get_outputs()}
        kind, per_row = outputs.get(PREDICTION, ("nothing", ()))
        if kind != "tensor(float)":
            raise RegistryRefused("wrong_outputs", f"expected {PREDICTION!r} as tensor(float), the graph has {outputs}")
        if len(per_row) > 1 or not all(isinstance(size, int) and size > 1 for size in per_row):
            raise RegistryRefused(
                "wrong_outputs", f"expected one score per row, or one per class, the graph has {outputs}"
            )
        self._per_row = per_row
