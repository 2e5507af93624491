"""What a version is: everything that made it, and where its bytes are.

Manifests travel as JSON on `headrace.artifacts`.
A worker serves a version by its manifest's schema, whatever the pipeline file says by then.
"""

from typing import Any

import msgspec

from headrace.models.errors import RegistryRefused
from headrace.models.features import AnyFeature
from headrace.models.protocols import Task
from headrace.models.schema import Schema


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the artifacts topic: `chunks` records of one partition, from `offset` on, in order."""

    sha256: str
    size: int
    partition: int
    offset: int
    chunks: int


class OffsetRange(msgspec.Struct, frozen=True, kw_only=True):
    """Half open: `first` is in, `end` is not."""

    topic: str
    partition: int
    first: int
    end: int


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

    hyperparameters: dict[str, Any]
    metrics: dict[str, float]  # the candidate's on the holdout
    champion_metrics: dict[str, float]
    verdict: str
    libraries: dict[str, str]
    source: str  # the pipeline file's text
    git_commit: str = ""


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, order="sorted")


def decode(data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RegistryRefused("bad_manifest", f"expected a manifest of headrace's, {error}") from error
