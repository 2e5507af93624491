"""a served batch and its version → the version's answer now, beside what was served: equal to the bit, or how near.

A row's answer may depend in its last bit on how many rows ran with it, so the rows of its served batch run together, as
they did; where a chunk had rows of other partitions, too, or its batch was split, that is not all of them, and the rows
twice over and the row alone are tried as well.
"""

from typing import Literal

import msgspec
import numpy as np
import onnxruntime as ort
import pyarrow as pa

from headrace.infra.served_log import Batch
from headrace.infra.services.scores.scoring import Version
from headrace.models.errors import RegistryRefused
from headrace.streams.served import scores_of

TOLERANCE = 1e-5  # of a probability, or of a larger value's size: float32 sums in another order


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    verdict: Literal["equal to the bit", "equal within the tolerance", "different", "not possible"]
    procedure: str = ""
    score: float | None = None
    served: float
    difference: float | None = None
    tolerance: float = 0.0
    runtime: dict[str, str]  # here
    made_with: dict[str, str] = {}  # the same libraries, where the version was trained
    why_not: str = ""


def run_again(version: Version, batch: Batch, row: int) -> Rerun:
    """The version on the features as served, beside what was served."""
    rows, served = pa.Table.from_batches([batch.rows]), batch.rows.column("score")[row].as_py()
    answer = scores_of(batch.rows)[row]  # or one per class
    if lacking := version.lacking(rows.schema):
        return impossible(served, f"version {version.number} needs {', '.join(lacking)}, which was not logged")
    manifest = version.manifest
    made_with = {} if manifest is None else {name: manifest.libraries.get(name, "unknown") for name in _runtime()}
    best: tuple[float, float, str] | None = None  # difference, score, procedure
    for procedure, together, at in (
        (f"with all {len(rows):,} rows of its served batch", rows, row),
        ("with the rows of its served batch twice over", pa.concat_tables([rows, rows]), row),
        ("alone", rows.slice(row, 1), 0),
    ):
        try:
            again = version.scores(together)[at]
        except RegistryRefused as error:
            return impossible(served, str(error))
        difference, score = float(np.abs(again - answer).max()), float(again.max())
        if best is None or difference < best[0] or np.isnan(best[0]):
            best = difference, score, procedure
        if difference == 0:
            break
    difference, score, procedure = best or (float("nan"), float("nan"), "")
    tolerance = TOLERANCE * max(1.0, abs(served))
    close = "equal within the tolerance" if difference <= tolerance else "different"
    return Rerun(
        verdict="equal to the bit" if difference == 0 else close,  # type: ignore[arg-type]  # two of the words
        procedure=procedure,
        score=score,
        served=served,
        difference=difference,
        tolerance=tolerance,
        runtime=_runtime(),
        made_with=made_with,
    )


def impossible(served: float, why: str) -> Rerun:
    return Rerun(verdict="not possible", served=served, runtime=_runtime(), why_not=why)


def _runtime() -> dict[str, str]:
    return {"onnxruntime": ort.__version__, "numpy": np.__version__}
