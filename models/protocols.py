"""What a user may replace: triggers, learners, gates. Built-ins and users' own are objects of the same protocols."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from headrace.models.schema import Schema

Task = Literal["binary", "regression", "multiclass"]
Columns = Mapping[str, NDArray[Any]]
"""A batch by column name: see `features.Column` for the dtypes."""


@dataclass(frozen=True, kw_only=True)
class LiveLoss:
    """What the champion loses on the labels of what it served, beside what it lost on its holdout."""

    version: int
    loss: str  # its name: brier or mae
    rows: int  # with a label
    mean: float
    low: float  # of an interval that holds at every moment
    high: float
    held_out: float
    held_out_error: float  # its standard error


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What triggers decide by. All times are event times in a replay and clock times otherwise, Unix ms."""

    last_tick: int | None  # scheduled time of the newest run, whatever came of it
    started: int  # when this pipeline was first seen: the origin where no run ever was
    new_labels: int = 0  # labels joined since the newest run
    drift_rows: int = 0  # served since the newest run, and counted against the champion's training rows
    drift: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # column → PSI, KS, of what moved for sure
    live: LiveLoss | None = None  # None: no champion, or nothing to compare with


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A version and another one on the same served rows, since the one serves or is in the other's shadow.

    `low` and `high` hold at every moment: whoever looks may act on them at once.
    """

    version: int
    other: int
    loss: str  # its name: brier or mae
    rows: int = 0  # with a label, and scored by both
    mean: float = float("nan")  # of the version
    other_mean: float = float("nan")
    low: float = float("-inf")  # of version - other, in the loss's unit: below 0 the version is better
    high: float = float("inf")
    scored: int = 0  # rows that both scored, most of them without a label as yet
    disagreement: float = 0.0  # mean absolute difference of their scores, of all of these
    drift: float | None = None  # PSI of the version's scores against its own held-out ones; 0 where it may be chance
    other_drift: float | None = None  # None where there are none to compare with: a baseline has no holdout
    unanswered: int = 0  # rows that the other one scored, and the version could not
    elapsed_ms: int = 0  # since it began: event time of what was served, or the clock, whichever is more


@dataclass(frozen=True)
class Reason:
    """Why a run is due. `tick` is the scheduled time that identifies the run, Unix ms."""

    tick: int
    text: str


@runtime_checkable
class Trigger(Protocol):
    """`due` is pure: numbers and the time in, a reason out, or None."""

    def due(self, numbers: Numbers, now: int) -> Reason | None: ...


@runtime_checkable
class Scheduled(Protocol):
    """A trigger that can say when it fires next (strictly after `after`, Unix ms); None for never."""

    def next_after(self, after: int) -> int | None: ...


@runtime_checkable
class _TakesRows(Protocol):
    """Columns that are made when they are asked for."""

    def take(self, rows: NDArray[Any] | slice) -> Columns: ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Joined rows as raw columns, ordered by (event time, partition, offset).

    Where they are more than memory has room for, `columns` makes each one anew when it is asked for, `take` of a slice
    costs nothing, and `scratch` is a folder for what else is as long as the dataset.
    """

    columns: Columns
    labels: NDArray[np.float64]  # [n]; 0 or 1 for a binary task, the class's place among several
    times: NDArray[np.int64]  # [n] event time, Unix ms
    task: Task
    scratch: Path | None = None  # gone after the training
    weights: NDArray[np.float64] | None = None  # [n], mean 1: how much each row counts in the loss; None: alike
    label_times: NDArray[np.int64] | None = None  # [n] when each label was known, Unix ms, where that was asked for

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[Any] | slice) -> "Dataset":
        held = self.columns
        return Dataset(
            columns=held.take(rows) if isinstance(held, _TakesRows) else {name: held[name][rows] for name in held},
            labels=self.labels[rows],
            times=self.times[rows],
            task=self.task,
            scratch=self.scratch,
            weights=None if self.weights is None else self.weights[rows],
            label_times=None if self.label_times is None else self.label_times[rows],
        )


@dataclass(frozen=True, kw_only=True)
class ChampionGraph:
    """The version that serves now, for a learner that goes on from it. Bytes that came over the wire: data, no code."""

    version: int
    onnx: bytes
    schema: Schema
    unfit: str = ""  # why a learner must not go on from it: it knows rows that the new version is to be judged on


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """What a learner is given beside its rows."""

    schema: Schema
    cache: Path  # a directory that survives runs: exported graphs
    classes: tuple[str, ...] = ()  # of a multiclass task, in the order of the labels
    champion: ChampionGraph | None = None  # None: the baseline serves
    progress: Callable[[Mapping[str, float]], None] = field(default=lambda _facts: None)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A candidate: ONNX bytes by the contract in `session`, and what a manifest says of how it was made."""

    onnx: bytes
    hyperparameters: Mapping[str, Any]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@runtime_checkable
class Learner(Protocol):
    """Rows in, an ONNX graph out. Raises `RunFailed` for what no retry can mend."""

    def train(self, dataset: Dataset, context: TrainContext) -> Trained: ...


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The newest held-out rows, scored as ONNX by both versions (law 7)."""

    task: Task
    labels: NDArray[np.float64]
    candidate: NDArray[np.float64]  # scores [n]
    champion: NDArray[np.float64]  # scores [n] of the version that serves now
    champion_version: int
    decide_at: float = 0.5  # the label's, of a binary task
    columns: Columns = field(default_factory=dict)  # raw, of the same rows, by the candidate's schema
    onnx_bytes: int = 0  # of the candidate
    seconds: float = 0.0  # that the candidate took for these rows, on one thread
    anchor: "Evidence | None" = None  # the same on the anchor's rows, where there is an `Anchor` and it has some


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What becomes of a challenger in shadow."""

    promote: bool  # else it is dropped
    reason: str


@runtime_checkable
class TakesBack(Protocol):
    """What `Pipeline.rollback` holds. Pure: the new champion beside its predecessor in, a reason to go back out."""

    def due(self, paired: Paired) -> str | None: ...


@runtime_checkable
class Shadows(Protocol):
    """What `Pipeline.shadow` holds. Pure: the challenger beside the champion in; None while it is too early to say."""

    @property
    def serve(self) -> float:
        """The share of message keys that a challenger serves meanwhile; 0 for none."""

    def decide(self, paired: Paired) -> Decided | None: ...


@dataclass(frozen=True, kw_only=True)
class Verdict:
    promote: bool
    reason: str
    numbers: Mapping[str, float]


@runtime_checkable
class Judge(Protocol):
    """What `Pipeline.gate` holds: evidence in, a verdict out."""

    def judge(self, evidence: Evidence) -> Verdict: ...
