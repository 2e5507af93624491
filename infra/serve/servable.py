"""a model and the tensors of several requests → scores for each of them, in one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.infra.serve.refusals import RequestRefused, Unavailable, Unprocessable
from headrace.infra.serve.tensors import Tensors, TensorSpec, bad_row, inputs_of, output, stacked
from headrace.models.errors import RegistryRefused
from headrace.models.features import Column
from headrace.models.pipeline import Pipeline
from headrace.models.session import Session
from headrace.streams.model import LiveModel

_MOST_LATE = 2  # requests without an answer in time, until the rest of their batch is not tried any more
Scores = NDArray[Any]  # float32[rows] or [rows, classes]; of the baseline float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Servable:
    """A version as it answers on demand: what the stream serves, and its tensors."""

    pipeline: str
    model: LiveModel
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec

    @property
    def version(self) -> int:
        return self.model.version

    def infer(self, requests: Sequence[Tensors]) -> "list[Scores | Exception]":
        """In one run; where that fails, or gives what is no number, request by request."""
        try:
            return list(self._infer(requests))
        except Exception as whole:  # noqa: BLE001  a user's rule may raise anything
            if len(requests) == 1:
                return [self._failed(whole)]
        answers: list[Scores | Exception] = []
        late = 0
        for request in requests:
            if late == _MOST_LATE:
                answers.append(Unavailable(f"version {self.version}: it does not answer in time", 5))
                continue
            try:
                answers += self._infer([request])
            except Exception as error:  # noqa: BLE001  as above
                answers.append(self._failed(error))
                late += isinstance(answers[-1], Unavailable)
        return answers

    def _infer(self, requests: Sequence[Tensors]) -> list[Scores]:
        rows = sum([request.rows for request in requests])
        arrays = {}
        for place, spec in enumerate(self.inputs):
            array = stacked(spec, [request.flat[place] for request in requests], rows)
            if (bad := bad_row(spec, array)) is not None:
                raise bad
            arrays[spec.name] = array
        scores = self._run(arrays, rows)
        if not np.isfinite(scores).all():
            raise Unprocessable("score_not_finite", f"version {self.version} answered NaN or infinity")
        if len(requests) == 1:
            return [scores]
        ends = list(accumulate([request.rows for request in requests], initial=0))
        return [scores[first:end] for first, end in pairwise(ends)]

    def _run(self, arrays: dict[str, NDArray[Any]], rows: int) -> Scores:
        predictor = self.model.predictor
        if isinstance(predictor, Session):
            return predictor.run(arrays, rows)
        columns = {}
        for spec in self.inputs:
            if spec.columns:
                for place, column in enumerate(spec.columns):
                    values = arrays[spec.name][:, place]
                    columns[column.name] = _column(column, values)
            else:
                columns[spec.name] = arrays[spec.name]
        return predictor.predict(columns, rows)

    def _failed(self, error: Exception) -> RequestRefused:
        if isinstance(error, RequestRefused):
            return error
        if isinstance(error, RegistryRefused) and error.reason == "timeout":
            return Unavailable(f"version {self.version}: {error}", 5)
        return Unprocessable("model_failed", f"version {self.version}: {error}")


def servable(pipeline: Pipeline, model: LiveModel) -> Servable:
    """The baseline takes the declaration's columns."""
    predictor = model.predictor
    schema = predictor.schema if isinstance(predictor, Session) else pipeline.schema
    answer = output("FP32" if isinstance(predictor, Session) else "FP64", model.classes)
    return Servable(pipeline=pipeline.name, model=model, inputs=inputs_of(schema), output=answer)


def _column(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    """A column has None where a tensor has the empty text."""
    if column.kind == "number":
        return values.astype(np.float64)
    if not column.nullable:
        return values
    texts = values.copy()
    texts[values == ""] = None
    return texts
