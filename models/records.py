"""What travels on headrace's own topics, as JSON. Fields are only ever added; unknown ones are ignored.

Registry and runs records are tagged unions: `kind` says which.
"""

from typing import Literal

import msgspec

from headrace.models.findings import Finding
from headrace.models.manifest import Blob, OffsetRange

# ── headers, on predictions, served batches and dead letters ──────────────────────────────────────────────────────────
VERSION_HEADER = "headrace-version"
REASON_HEADER = "headrace-reason"
SOURCE_HEADER = "headrace-source"  # topic/partition/offset
TICK_HEADER = "headrace-tick"  # of rows that were scored by schedule: the scheduled time, RFC 3339 UTC
FIRST_OFFSET_HEADER = "headrace-first-offset"
LAST_OFFSET_HEADER = "headrace-last-offset"
REDRIVEN_HEADER = (
    "headrace-redriven"  # on a record that was redriven, and on the mark of its letter: the letter's place
)
REDRIVEN_TO_HEADER = "headrace-redriven-to"  # on the mark: where the record is now, topic/partition/offset
BY_HEADER = "headrace-by"  # on the mark
WHY_HEADER = "headrace-why"  # on the mark
ON_DEMAND_HEADER = (
    "headrace-on-demand"  # how many rows a served batch has that were asked for, and are no events of the topic
)


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


class TickPrediction(Prediction, frozen=True, gc=False, kw_only=True):
    """The same for a row that was scored by schedule, in the partition of its key. Its `source` is the row's place on
    its topic, or [URL, 0, row number]; with the tick it is what a subscriber drops duplicates by."""

    tick: str  # scheduled time, RFC 3339 UTC: features are as of it, `event_time` is the row's own


class ClassTickPrediction(TickPrediction, frozen=True, gc=False, kw_only=True):
    """The same of a label of several classes, as in `ClassPrediction`."""

    label: str
    probabilities: dict[str, float]


class ClassPrediction(Prediction, frozen=True, gc=False):
    """The same of a label of several classes: `prediction` is the probability of the likeliest."""

    label: str  # the likeliest class
    probabilities: dict[str, float]


# ── headrace.registry: what every replica follows from beginning to end ───────────────────────────────────────────────

Move = Literal["promote", "rollback", "pin"]


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """Not before these offsets of the events: replicas that agree on them switch at the same event."""

    topic_id: str  # the topic's own: offsets of a topic that was made anew say nothing
    offsets: dict[int, int]  # by partition


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What every registry record says. `seq` grows by exactly one per pipeline over all kinds."""

    pipeline: str
    seq: int
    at: str  # RFC 3339 UTC
    by: str
    why: str = ""
    key_id: str = ""  # whose signature it is; "" where the leader has no key
    signature: str = ""  # base64 of Ed25519 over the record without this field


class Published(Moved, frozen=True, kw_only=True, tag="published", tag_field="kind"):
    """A version exists."""

    version: int
    manifest: Blob
    run: str = ""  # what made it, and the tick that it used up
    tick: str = ""


class Promoted(Moved, frozen=True, kw_only=True, tag="promoted", tag_field="kind"):
    """From now on `version` is the champion: it serves. A pinned one serves until `Unpinned`, whatever is trained."""

    version: int
    move: Move = "promote"
    activate_at: Activation | None = None


class Unpinned(Moved, frozen=True, kw_only=True, tag="unpinned", tag_field="kind"):
    """The champion may be followed by another again."""


class Aliased(Moved, frozen=True, kw_only=True, tag="aliased", tag_field="kind"):
    """From now on `alias` means `version`; nothing, where that is None."""

    alias: str
    version: int | None
    share: float = 0.0  # of the champion's message keys that the challenger serves: a canary


class Archived(Moved, frozen=True, kw_only=True, tag="archived", tag_field="kind"):
    """`version` is out of use: it can be looked at, and neither promoted nor aliased."""

    version: int


class Relocated(Moved, frozen=True, kw_only=True, tag="relocated", tag_field="kind"):
    """These artifacts are also here, and soon nowhere else. Of no pipeline (its name is "", and seq 0): by
    `headrace model gc`, for whoever reads artifacts. Bytes are verified by their own hash, so it needs no signature."""

    blobs: tuple[Blob, ...]


RegistryRecord = Published | Promoted | Unpinned | Aliased | Archived | Relocated


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
    late: int = 0  # events past `activate_at` that the version before it served, because this one was not ready


# ── headrace.runs: requests to the leader, and what became of them ────────────────────────────────────────────────────


class Requested(msgspec.Struct, frozen=True, kw_only=True, tag="requested", tag_field="kind"):
    """Train if a trigger is due at `at`, or in any case where `on_demand`."""

    run: str  # an id that the asker makes: it waits for the outcome that carries it
    pipeline: str
    at: int  # event time in a replay, else the clock, Unix ms: nothing newer is trained on
    by: str
    on_demand: bool = False
    why: str = ""
    sanity: bool = False  # one batch is to be learnt by heart before the training


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started", tag_field="kind"):
    """An attempt begins: written before its process, so that there is none which is not on record."""

    run: str
    pipeline: str
    at: str
    tick: str  # scheduled time, RFC 3339 UTC
    trigger: str
    ranges: tuple[OffsetRange, ...]
    attempt: int = 1
    after: str = ""  # why the attempt before this one failed
    host: str = ""  # where it trains
    limits: dict[str, float] = {}  # seconds, memory_mb, cpus, nice, attempts
    overruns: str = ""  # the next tick, which it is not expected to end before: by how long the newest runs took


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progressed", tag_field="kind"):
    run: str
    pipeline: str
    at: str
    stage: str  # of the training, or retry: waiting for the next attempt, or attached: another leader took it up
    facts: dict[str, float]  # rows, holdout_rows; epoch, loss, eta_seconds, … of the stage; attempt, seconds of a retry
    why: str = ""  # of a retry
    overruns: str = ""  # the next tick, which it is not expected to end before


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", tag_field="kind"):
    """The end of a run. `outcome`: promoted, published, rejected (by the gate), failed, cancelled, or not_due."""

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
    curves: dict[str, list[float]] = {}  # a learner's, by name: one value per epoch, for example
    findings: tuple[Finding, ...] = ()  # of the checks; errors among them are the reason of a failed run instead


Asking = Move | Literal["unpin", "alias", "archive", "import", "pause", "resume", "cancel"]


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked", tag_field="kind"):
    """One move in the registry, or of the schedule. Whoever leads answers it once, or not at all after `until`."""

    run: str  # an id that the asker makes
    pipeline: str
    move: Asking
    by: str
    why: str
    until: int  # Unix ms: later than this the asker no longer waits
    version: int | None = None  # None: for a rollback, the one that served before; for an alias, nothing
    alias: str = ""
    share: float = 0.0
    champion: int | None = None  # refused where another version serves by then: the reason would no longer hold
    activate_at: Activation | None = None
    manifest: Blob | None = None  # of an import: its bytes, and the graph's, are on the artifacts topic already
    target: str = ""  # the run to cancel


class Replied(msgspec.Struct, frozen=True, kw_only=True, tag="replied", tag_field="kind"):
    """What became of an `Asked`: `done` is in the same transaction as the record that it made."""

    run: str
    pipeline: str
    at: str
    done: bool
    reason: str
    version: int = 0
    seq: int = 0


class Paused(msgspec.Struct, frozen=True, kw_only=True, tag="paused", tag_field="kind"):
    """From now on no trigger makes a run, or they do again."""

    run: str  # of the `Asked`
    pipeline: str
    paused: bool
    at: str
    by: str
    why: str


class Scoring(msgspec.Struct, frozen=True, kw_only=True, tag="scoring", tag_field="kind"):
    """A tick of `Pipeline.score` begins. Whoever goes on with it after a crash does so by the first of these records:
    with this version, up to these ends, of a source that is still the same."""

    run: str
    pipeline: str
    source: str  # a topic, or the URL of Parquet files
    tick: str  # scheduled time, RFC 3339 UTC
    trigger: str
    at: str
    by: str
    version: int
    ends: dict[int, int]  # by partition, the offset after its last row; of Parquet {0: rows}
    identity: str  # of the topic, or of the files as they are


class Scored(msgspec.Struct, frozen=True, kw_only=True, tag="scored", tag_field="kind"):
    """How far a tick is, in the transaction of the predictions it counts. Without `outcome` it goes on from here."""

    run: str
    pipeline: str
    source: str
    tick: str
    at: str
    by: str
    outcome: str = ""  # scored, failed, or declared: ticks count from here on
    reason: str = ""
    version: int = 0
    partition: int = 0  # where it goes on
    position: int = 0
    rows: int = 0  # predicted
    rejected: int = 0  # dead letters
    newer: int = 0  # ids of which there were only rows with a time after the tick
    seconds: float = 0.0


RunRecord = Requested | Started | Progressed | Finished | Asked | Replied | Paused | Scoring | Scored
