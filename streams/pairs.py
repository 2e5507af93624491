"""two versions' scores of the same rows, and the labels that come → how much more the one loses than the other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.models.drift import SCORE, counts_of, distances
from headrace.models.losses import loss_name, losses
from headrace.models.manifest import Reference
from headrace.models.protocols import Paired, Task
from headrace.models.scores import distances as distances_of
from headrace.models.scores import finite, top
from headrace.models.sequential import ConfidenceSequence
from headrace.streams.live_join import Joined

_FIRST_ROWS = 100


class ScoreDrift:
    """How far a version's answers are from those to its own held-out rows."""

    def __init__(self, reference: Reference | None) -> None:
        column = None if reference is None else reference.columns.get(SCORE)
        self._reference = None if column is None else Reference(columns={SCORE: column})
        self._counts = np.zeros(0 if column is None else len(column.counts), np.int64)

    def add(self, scores: NDArray[np.float64]) -> None:
        if self._reference is not None:
            self._counts += counts_of(self._reference.columns[SCORE], top(scores))

    @property
    def psi(self) -> float | None:
        """0 where it may be chance; None where nothing is known of its held-out rows."""
        if self._reference is None:
            return None
        found = distances(self._reference, {SCORE: self._counts})
        return found[0].psi if found else 0.0


class Pair:
    """One version beside another. `largest` is the largest loss that counts: see `models.losses`; None where none is
    known, and so no label says anything."""

    def __init__(
        self,
        version: int,
        other: int,
        *,
        task: Task,
        largest: float | None,
        reference: Reference | None = None,
        other_reference: Reference | None = None,
    ) -> None:
        self.version, self.other, self._task, self._largest = version, other, task, largest
        self._difference = ConfidenceSequence(-(largest or 1.0), largest or 1.0)
        self._lost = np.zeros(2)  # by the version and by the other, in all
        self._drift, self._other_drift = ScoreDrift(reference), ScoreDrift(other_reference)
        self._seen = self._scored = self._unanswered = self._waited_ms = 0
        self._apart = 0.0
        self._first_event = self._newest_event = 0

    def passed(self, times: NDArray[np.int64], waited_ms: int) -> None:
        """Rows that were served since it began, whoever scored them: their event times, and how long that is by the
        clock. The newest of the first ones is the beginning: one old event says nothing."""
        self._newest_event = max(self._newest_event, int(times.max(initial=0)))
        if self._seen < _FIRST_ROWS:
            self._first_event = self._newest_event
        self._seen += len(times)
        self._waited_ms = max(self._waited_ms, waited_ms)

    def scored(self, scores: NDArray[np.float64], others: NDArray[np.float64]) -> None:
        """[n] of both, or [n, classes]. Rows that one of them cannot answer (NaN) are left out, and counted."""
        answered = finite(scores)
        both = answered & finite(others)
        self._unanswered += int((~answered & finite(others)).sum())
        scores, others = scores[both], others[both]
        if not len(scores):
            return
        self._drift.add(scores)
        self._other_drift.add(others)
        self._apart += float(distances_of(scores, others).sum())
        self._scored += len(scores)

    def labelled(self, rows: Sequence[Joined]) -> None:
        """In the order in which their labels came; those that one of the two did not score say nothing."""
        found = [(row.label, row.score_of(self.version), row.score_of(self.other)) for row in rows]
        found = [one for one in found if None not in one]
        if not found or self._largest is None:
            return
        labels, ours, others = (np.array(part, np.float64) for part in zip(*found, strict=True))
        lost, others_lost = (np.minimum(losses(self._task, labels, scores), self._largest) for scores in (ours, others))
        self._difference.add(lost - others_lost)
        self._lost += lost.sum(), others_lost.sum()

    @property
    def numbers(self) -> Paired:
        rows = self._difference.rows
        mean, other_mean = (self._lost / rows).tolist() if rows else (float("nan"), float("nan"))
        return Paired(
            version=self.version,
            other=self.other,
            loss=loss_name(self._task),
            rows=rows,
            mean=mean,
            other_mean=other_mean,
            low=self._difference.low,
            high=self._difference.high,
            scored=self._scored,
            disagreement=self._apart / self._scored if self._scored else 0.0,
            drift=self._drift.psi,
            other_drift=self._other_drift.psi,
            unanswered=self._unanswered,
            elapsed_ms=max(self._newest_event - self._first_event, self._waited_ms),
        )
