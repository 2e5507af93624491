"""a version's number → something that scores served rows again: by its manifest's schema, on the features as served.

Version 0 is the declaration's rule as it is now; it was never published. Any other is tried in a sandbox first, as
workers do: whoever looks at a version may be the first who loads it.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.artifacts import Artifacts
from headrace.infra.names import Names
from headrace.infra.onnx import onnx_runtime
from headrace.infra.sandbox import Sandbox
from headrace.infra.settings import Settings
from headrace.models import manifest as manifests
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.features import Column, Function
from headrace.models.manifest import Manifest
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns
from headrace.models.registry import Versions
from headrace.models.session import Predictor, Session, expect_classes
from headrace.streams.features import synthetic_row
from headrace.streams.model import Baseline
from headrace.streams.served import served_schema
from headrace.trainer.columns import to_numpy


@dataclass(frozen=True, kw_only=True)
class Version:
    number: int
    manifest: Manifest | None  # None for the baseline
    columns: tuple[Column, ...]  # what it reads
    predictor: Predictor

    def lacking(self, logged: pa.Schema) -> list[str]:
        """Columns that it needs and that were not logged, or as another type."""
        found = []
        for field in list(served_schema(self.columns))[len(served_schema(())) :]:
            at = logged.get_field_index(field.name)
            if at < 0 or logged.field(at).type != field.type:
                found.append(field.name)
        return found

    def scores(self, rows: pa.RecordBatch | pa.Table) -> NDArray[np.float64]:
        """[n] in one run of the model, as it is when served. Raises RegistryRefused where the model raises."""
        return self.predictor.predict(self.inputs(rows), rows.num_rows)

    def inputs(self, rows: pa.RecordBatch | pa.Table) -> Columns:
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        return {column.name: to_numpy(table, column) for column in self.columns}

    def answers(self, rows: pa.RecordBatch | pa.Table) -> NDArray[np.float64]:
        """The same, NaN for rows that the model cannot answer: where it raises on all, it is asked one by one.

        Raises RegistryRefused where it gives no answer in time.
        """
        try:
            return self.scores(rows)
        except RegistryRefused as error:
            if error.reason == "timeout":
                raise
        classes = () if self.manifest is None else self.manifest.classes
        found = np.full((rows.num_rows, len(classes)) if classes else rows.num_rows, np.nan)
        for row in range(rows.num_rows):
            try:
                found[row] = self.scores(rows.slice(row, 1))[0]
            except RegistryRefused as error:
                if error.reason == "timeout":
                    raise
        return found


class Scoring:
    """Opens versions of one pipeline; they outlive it. Used by one thread."""

    def __init__(self, settings: Settings, names: Names, versions: Versions) -> None:
        self._names, self._versions = names, versions
        self._artifacts, self._runtime = Artifacts(settings), onnx_runtime(settings)
        self._sandbox = Sandbox(memory_mb=settings.model_memory_mb, seconds=settings.onnx_timeout_s)

    def manifest(self, number: int) -> Manifest | None:
        """None for the baseline. Raises BadInput for a version that the registry has not, RegistryRefused for bytes
        that are not there or differ from what it says."""
        if number == 0:
            return None
        if number not in self._versions.published:
            raise BadInput(
                f"version {number} of {self._names.pipeline.name}: not published. See `headrace model list`."
            )
        try:
            return manifests.decode(self._artifacts.read(self._versions.published[number].manifest))
        except RegistryRefused as error:
            raise _cannot(number, "its manifest", error) from error

    def version(self, number: int) -> Version:
        """Raises as `manifest` does."""
        manifest = self.manifest(number)
        if manifest is None:
            pipeline = self._names.pipeline
            return Version(number=0, manifest=None, columns=_of_rule(pipeline), predictor=Baseline(pipeline))
        schema = manifest.schema
        try:
            graph = self._artifacts.read(manifest.onnx)
            self._sandbox.prove(graph, schema, synthetic_row(schema.columns), 1, self._names.pipeline.operators)
            session = Session(graph, schema, self._runtime)
            expect_classes(session, self._names.pipeline.label.classes, manifest.classes)
        except RegistryRefused as error:
            raise _cannot(number, "its graph", error) from error
        return Version(number=number, manifest=manifest, columns=schema.columns, predictor=session)

    def close(self) -> None:
        self._artifacts.close()
        self._sandbox.close()


def _of_rule(pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns that the rule reads, if it is one."""
    rule = pipeline.baseline
    read = rule.input_columns if isinstance(rule, Function) else ()
    return tuple(column for column in pipeline.columns if column.name in read)


def _cannot(number: int, what: str, error: RegistryRefused) -> RegistryRefused:
    return RegistryRefused(error.reason, f"version {number} cannot be run again, {what}: {error.detail}")
