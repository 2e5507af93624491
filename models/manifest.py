"""What a version is: everything that made it, and where its bytes are.

Manifests travel as JSON on `headrace.artifacts`.
A worker serves a version by its manifest's schema, whatever the pipeline file says by then.
"""

from typing import Any, Literal

import msgspec

from headrace.models.errors import RegistryRefused
from headrace.models.features import AnyFeature
from headrace.models.findings import Finding
from headrace.models.protocols import Task
from headrace.models.schema import Schema


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the artifacts topic: `chunks` records of one partition, from `offset` on, in order; or in an object
    store, where `url` says."""

    sha256: str
    size: int
    partition: int
    offset: int
    chunks: int
    url: str = ""  # of fsspec; then there are no chunks


class OffsetRange(msgspec.Struct, frozen=True, kw_only=True):
    """Half open: `first` is in, `end` is not."""

    topic: str
    partition: int
    first: int
    end: int


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A few held-out rows and what the graph answered to them where it was made: so it has to answer everywhere."""

    columns: dict[str, list[float | str | None]]  # of the schema, one value per row; tensors flat, one after the other
    scores: tuple[float, ...]  # one per row; `classes` of them one after the other, where there are several
    classes: int = 0

    @property
    def rows(self) -> int:
        return len(self.scores) // max(1, self.classes)


class ColumnReference(msgspec.Struct, frozen=True, kw_only=True):
    """How a column's training rows lie in bins: those between `edges`, or one for each of `values` and one for the
    others; the last one is for missing rows."""

    kind: Literal["number", "category"]
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()  # ascending, inner ones: k edges make k + 1 bins
    values: tuple[str, ...] = ()


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """By column, of the version's schema and `score`. Tensors have none."""

    columns: dict[str, ColumnReference]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    pipeline: str
    version: int
    parent: int  # the version that served when this one was judged; 0 is the baseline
    task: Task
    features: tuple[AnyFeature, ...]  # how each column of the schema comes to be
    schema: Schema
    onnx: Blob

    run: str
    tick: str  # scheduled time, RFC 3339 UTC, or "" for a run on demand
    trigger: str
    created_at: str
    created_by: str

    ranges: tuple[OffsetRange, ...]  # the dataset: served rows and labels
    dataset_sha256: str  # of the joined rows, so that a reproduction can tell where it parts
    rows: int  # trained on
    holdout_rows: int
    trained_from: str  # event time of the oldest and the newest training row, RFC 3339 UTC
    trained_through: str
    null_shares: dict[str, float]  # per nullable column, over the training rows
    anchor_sha256: str = ""  # of which rows, with which labels, the anchor has: equal where versions were judged alike

    hyperparameters: dict[str, Any]
    metrics: dict[str, float]  # the candidate's on the holdout
    champion_metrics: dict[str, float]
    verdict: str
    libraries: dict[str, str]
    source: str  # the pipeline file's text
    git_commit: str = ""
    reference: Reference | None = None  # how the training rows lie, column by column: what drift is measured against
    numbers: dict[str, float] = {}  # of the verdict
    golden: Golden | None = None
    findings: tuple[Finding, ...] = ()  # what its checks said of the rows, and of it

    sources: Blob | None = None  # that file and every local module it reaches, as one archive: see `infra.sources`
    pipeline_file: str = ""  # where the pipeline is in it, as "flights.py:flight_delay"
    as_of: str = ""  # what was known when it was trained, RFC 3339 UTC: no newer row or label was seen
    platform: str = ""  # where it was trained
    classes: tuple[str, ...] = ()  # of a multiclass task, in the order of its probabilities


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, order="sorted")


def decode(data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RegistryRefused("bad_manifest", f"expected a manifest of headrace's, {error}") from error
