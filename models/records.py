"""What travels on headrace's own topics, as JSON. Fields are only ever added; unknown ones are ignored.

Registry and runs records are tagged unions: `kind` says which.
"""

import msgspec

from headrace.models.manifest import Blob, OffsetRange

# ── headers, on predictions, served batches and dead letters ──────────────────────────────────────────────────────────
VERSION_HEADER = "headrace-version"
REASON_HEADER = "headrace-reason"
SOURCE_HEADER = "headrace-source"  # topic/partition/offset
FIRST_OFFSET_HEADER = "headrace-first-offset"
LAST_OFFSET_HEADER = "headrace-last-offset"


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """`<pipeline>.predictions`: one per event, in the event's partition, with its key and headers.

    By position and out of the garbage collector's sight: one is made for every event.
    """

    id: str
    prediction: float
    decision: bool | None  # None for a regression
    pipeline: str
    version: int
    event_time: str
    source: tuple[str, int, int]  # topic, partition, offset: what a subscriber drops duplicates by


# ── headrace.registry: what every replica follows from beginning to end ───────────────────────────────────────────────


class Published(msgspec.Struct, frozen=True, kw_only=True, tag="published", tag_field="kind"):
    """A version exists. `seq` grows by exactly one per pipeline over all kinds."""

    pipeline: str
    seq: int
    version: int
    manifest: Blob
    at: str
    by: str


class Promoted(msgspec.Struct, frozen=True, kw_only=True, tag="promoted", tag_field="kind"):
    """From now on `version` serves."""

    pipeline: str
    seq: int
    version: int
    at: str
    by: str
    why: str


RegistryRecord = Published | Promoted


# ── <pipeline>.history: who served what from where on ─────────────────────────────────────────────────────────────────


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """Written by the owner of an events partition between two of its chunks."""

    pipeline: str
    seq: int  # of the promotion; 0 for the baseline
    version: int
    topic: str
    partition: int
    first_offset: int
    worker: str
    at: str


# ── headrace.runs: requests to the leader, and what became of them ────────────────────────────────────────────────────


class Requested(msgspec.Struct, frozen=True, kw_only=True, tag="requested", tag_field="kind"):
    """Train if a trigger is due at `at`, or in any case where `on_demand`."""

    run: str  # an id that the asker makes: it waits for the outcome that carries it
    pipeline: str
    at: int  # event time in a replay, else the clock, Unix ms: nothing newer is trained on
    by: str
    on_demand: bool = False
    why: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started", tag_field="kind"):
    run: str
    pipeline: str
    at: str
    tick: str  # scheduled time, RFC 3339 UTC
    trigger: str
    ranges: tuple[OffsetRange, ...]


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progressed", tag_field="kind"):
    run: str
    pipeline: str
    at: str
    stage: str
    facts: dict[str, float]


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", tag_field="kind"):
    """The end of a run. `outcome`: promoted, rejected (by the gate), failed, or not_due."""

    run: str
    pipeline: str
    at: str
    outcome: str
    reason: str
    tick: str = ""
    version: int = 0  # the new one, where promoted
    seq: int = 0  # of its promotion
    rows: int = 0
    holdout_rows: int = 0
    metrics: dict[str, float] = {}
    champion_metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}  # by stage


RunRecord = Requested | Started | Progressed | Finished
