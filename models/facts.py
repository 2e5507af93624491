"""What happened, as frozen records: logs, metrics and tests all read the same ones (`Observer` takes them)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

FEATURE_STORE, FUNCTION = "feature_store", "function:"  # parts of the stage `features`: the read, each user's function


@dataclass(frozen=True, kw_only=True)
class Predicted:
    pipeline: str
    version: int
    rows: int
    seconds: Mapping[str, float]  # by stage: wait, decode, features, infer, encode; and parts of the stage features
    newest_event: int  # event time, Unix ms


@dataclass(frozen=True, kw_only=True)
class Served:
    """Requests were answered in one run of a model."""

    pipeline: str
    version: int
    lane: str  # tensors or events
    requests: int
    rows: int
    seconds: float  # of the run


@dataclass(frozen=True, kw_only=True)
class RowsLogged:
    """Events that were answered on demand are on `<pipeline>.served`."""

    pipeline: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class RowsNotLogged:
    """They were answered, and are not on `<pipeline>.served`: no label will join them."""

    pipeline: str
    rows: int
    reason: str  # too_many: more than may be held; undelivered: the broker did not acknowledge them


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """What an agent made is on the broker, and its positions are durable."""

    agent: str  # infer or features
    topic: str
    rows: int
    latency_seconds: float  # from the append of the oldest event in the batch (its record timestamp) to now
    seconds: Mapping[str, float]  # by stage: produce, acknowledge, commit


@dataclass(frozen=True, kw_only=True)
class Aborted:
    """A transaction was taken back as a whole; its events are read again."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class SideRowsApplied:
    topic: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class DeadLettered:
    pipeline: str
    topic: str
    reasons: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A version is fetched, checked and warm; it serves from the next chunk on, or from its activation's offsets."""

    pipeline: str
    seq: int
    version: int
    seconds: float  # since its record was read


@dataclass(frozen=True, kw_only=True)
class Swapped:
    pipeline: str
    seq: int
    version: int
    seconds: float  # from the record's arrival to the switch
    first_offsets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CanaryServes:
    """From the next chunk on, a share of the message keys is served by the challenger; version 0: no more."""

    pipeline: str
    version: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A registry record, manifest or model that must not serve; the old version goes on."""

    pipeline: str
    reason: str
    detail: str
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Assigned:
    topic: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Revoked:
    topic: str
    partitions: tuple[int, ...]
    lost: bool


@dataclass(frozen=True, kw_only=True)
class Lag:
    topic: str
    partition: int
    records: int


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    pipeline: str
    run: str
    outcome: str
    reason: str
    version: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TickScored:
    """A tick of `Pipeline.score` has its outcome."""

    pipeline: str
    source: str
    tick: str
    outcome: str  # scored or failed
    reason: str
    version: int
    rows: int
    rejected: int
    newer: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunTriedAgain:
    """An attempt failed through no fault of its rows or model."""

    pipeline: str
    run: str
    attempt: int  # the next one's number
    seconds: float  # until then
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunTakenUp:
    """A training that outlived its leader has another one, as far as it had come."""

    pipeline: str
    run: str


@dataclass(frozen=True, kw_only=True)
class RunOverruns:
    """A training is not expected to end before its pipeline's next tick, which so runs late."""

    pipeline: str
    run: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class LiveMetric:
    """Of labels that came after their predictions, over the newest rows of a version: that it served, or that it
    scored beside the one that did."""

    pipeline: str
    version: int
    metric: str
    value: float
    rows: int
    segment: str = ""  # column=value; "" for all of them


@dataclass(frozen=True, kw_only=True)
class LabelsSeen:
    """How labels come: seconds of event time after their rows, and what became of rows and labels so far."""

    pipeline: str
    delay_seconds: Mapping[str, float]  # by quantile, of the newest rows: 0.5, 0.9, 0.99
    counts: Mapping[str, int]  # joined, open, never_came, late, repeated, unknown


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Live metrics are from now on of these versions alone."""

    pipeline: str
    versions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PairMeasured:
    """Two versions on the same rows, with labels: how much more the version loses than the other one."""

    pipeline: str
    why: str  # rollback or shadow
    version: int
    other: int
    loss: str
    rows: int
    low: float
    difference: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What live numbers led to, without anybody's hand."""

    pipeline: str
    action: Literal["rolled_back", "promoted", "dropped"]
    version: int
    other: int
    reason: str
    rows: int  # with a label
    scored: int


Observer = Callable[[object], None]


def ignore(_fact: object) -> None:
    """An observer that wants nothing."""
