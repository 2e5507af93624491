"""request → trainer's process → outcome: what crosses between the scheduler and a training, as JSON."""

from pathlib import Path
from typing import Any

import msgspec

from headrace.models.findings import Finding
from headrace.models.manifest import Golden, Manifest, Reference
from headrace.models.schema import Schema

POSITIVES = "balance_positives"  # among the hyperparameters: of the Balance that a version was trained with


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The version that serves now: a graph with its schema, or the baseline's one answer."""

    version: int = 0
    onnx: str | None = None  # path
    schema: Schema | None = None
    baseline: float | tuple[float, ...] = 0.5  # one per class, where there are several
    trained_through: str = ""  # as its manifest says; "" where nobody knows
    anchor_sha256: str = ""
    positives: float | None = None  # of its Balance; None without one


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a training needs, as data: it crosses into the trainer's process as JSON."""

    run: str
    loader: str  # "module:function" that gives the Pipeline for `pipeline`
    pipeline: str
    at_ms: int  # the tick: nothing newer is seen
    data: str  # directory with the Arrow IPC stream files served*.arrow and labels*.arrow
    past: str | None = None  # a file of `trainer.past_file`: cut from it, and not joined from those
    out: str  # directory for model.onnx, result.json and run.log
    cache: str  # directory that survives runs
    champion: Champion = Champion()
    compare: Champion | None = None  # another version, scored on the same held-out rows
    snapshots: str | None = None  # directory for the dataset as Parquet
    import_path: tuple[str, ...] = ()  # in front of sys.path: the pipeline file's folder
    threads: int = 1
    sanity: bool = False  # one batch is to be learnt by heart first


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest and a `Finished` record say of the run."""

    promote: bool
    verdict: str
    numbers: dict[str, float]  # of the verdict; figures that cannot be said are left out, here and below
    metrics: dict[str, float]
    champion_metrics: dict[str, float]
    task: str
    rows: int
    holdout_rows: int
    trained_from: str
    trained_through: str
    dataset_sha256: str
    anchor_sha256: str = ""  # of the rows that no version is trained on; "" without an Anchor, or where it has none
    counts: dict[str, int]  # of the join
    lacking: dict[str, int]  # joined rows that are older than a column's declaration
    null_shares: dict[str, float]
    hyperparameters: dict[str, Any]
    curves: dict[str, list[float]]
    libraries: dict[str, str]
    platform: str
    seconds: dict[str, float]  # by stage
    onnx_bytes: int
    findings: tuple[Finding, ...] = ()
    golden: Golden | None = None
    reference: Reference | None = None
    max_difference: float | None = None  # of two scores of one held-out row: the candidate's, and those of `compare`


def champion_of(version: int, onnx: Path, schema: Schema, made: Manifest | RunResult) -> Champion:
    """`onnx` is the graph's file, `made` what is on record of its training."""
    positives = made.hyperparameters.get(POSITIVES)
    return Champion(
        version=version,
        onnx=str(onnx),
        schema=schema,
        trained_through=made.trained_through,
        anchor_sha256=made.anchor_sha256,
        positives=float(positives) if isinstance(positives, int | float) else None,
    )


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its limits."""

    request: RunRequest
    time_limit_s: float
    memory_mb: int  # beyond what the trainer's process has at its start
    niceness: int
    cpus: int = 1


class Progressed(msgspec.Struct, frozen=True, tag="progressed", tag_field="kind"):
    stage: str
    facts: dict[str, float]


class Succeeded(msgspec.Struct, frozen=True, tag="succeeded", tag_field="kind"):
    result: RunResult


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="kind"):
    """`reason` and `detail` of the RunFailed that it becomes."""

    reason: str
    detail: str


Message = Progressed | Succeeded | Failed
