"""joined rows of the champion → what it loses live, beside what it lost on its holdout."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from headrace.models.losses import largest_loss, loss_name, losses
from headrace.models.protocols import LiveLoss, Task
from headrace.models.sequential import ConfidenceSequence
from headrace.streams.live_join import Joined

_BLOCK_ROWS = 5_000  # then it begins anew: over a long good past, a bad present would take as long to be seen
_FEW_ROWS = 200  # of a new block, until the one before it is no longer the answer


class ServedLoss:
    """Of one version, while it serves, in blocks of rows. `metrics` are those on its holdout."""

    def __init__(self, version: int, task: Task, metrics: Mapping[str, float], holdout_rows: int) -> None:
        self._version, self._task = version, task
        self._largest = largest_loss(task, metrics)
        self._held_out, self._holdout_rows = metrics.get(loss_name(task), math.nan), holdout_rows
        self._lost = ConfidenceSequence(0.0, self._largest)
        self._before: ConfidenceSequence | None = None  # the block that is full

    def add(self, rows: Sequence[Joined]) -> None:
        known = [row for row in rows if row.version == self._version]
        if known:
            labels, scores = np.array([row.label for row in known]), np.array([row.score for row in known])
            self._lost.add(losses(self._task, labels, scores))
        if self._lost.rows >= _BLOCK_ROWS:
            self._before, self._lost = self._lost, ConfidenceSequence(0.0, self._largest)

    @property
    def numbers(self) -> LiveLoss | None:
        """None where nothing is known of its holdout."""
        if not math.isfinite(self._held_out) or not math.isfinite(self._largest) or not self._holdout_rows:
            return None
        # of a variable within [0, b] with this mean, the largest variance there can be (Bhatia and Davis 2000)
        variance = max(0.0, self._held_out * (self._largest - self._held_out))
        lost = self._before if self._before is not None and self._lost.rows < _FEW_ROWS else self._lost
        return LiveLoss(
            version=self._version,
            loss=loss_name(self._task),
            rows=lost.rows,
            mean=lost.mean,
            low=lost.low,
            high=lost.high,
            held_out=self._held_out,
            held_out_error=math.sqrt(variance / self._holdout_rows),
        )
