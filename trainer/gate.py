"""evidence → verdict: does the candidate take over? Pure; the reason is a sentence for whoever reads it later."""

import math
from dataclasses import dataclass

import numpy as np

from headrace.models.errors import DeclarationError
from headrace.models.metrics import HIGHER_IS_BETTER, METRICS, OF_TASK
from headrace.models.protocols import Evidence, Verdict


@dataclass(frozen=True)
class Gate:
    """Promotes what is not worse by more than `max_loss` of the metric, or what is better by at least `min_gain`.

    One of the two. `max_loss` is for a stream that drifts: of two models that a week's holdout cannot tell apart, the
    fresher one wins. `min_gain` is for one where every change has to pay.
    """

    metric: str
    max_loss: float | None = None
    min_gain: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise DeclarationError("Gate.metric", " or ".join(map(repr, METRICS)), self.metric, "Take one of these.")
        if (self.max_loss is None) == (self.min_gain is None):
            both = f"max_loss={self.max_loss}, min_gain={self.min_gain}"
            raise DeclarationError("Gate", "max_loss or min_gain", both, "For example max_loss=0.005.")
        for name in ("max_loss", "min_gain"):
            given = getattr(self, name)
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if given is not None and not (number and 0 <= given < math.inf):
                raise DeclarationError(f"Gate.{name}", "a number from 0", given, "In the metric's own unit.")

    def judge(self, evidence: Evidence) -> Verdict:
        """Raises DeclarationError where the metric says nothing about the task."""
        if self.metric not in OF_TASK[evidence.task]:
            choices = " or ".join(map(repr, OF_TASK[evidence.task]))
            raise DeclarationError("Gate.metric", f"{choices} for {evidence.task} labels", self.metric, "Change it.")
        measure = METRICS[self.metric]
        candidate = measure(evidence.labels, evidence.candidate)
        champion = measure(evidence.labels, evidence.champion)
        gain = candidate - champion if self.metric in HIGHER_IS_BETTER else champion - candidate
        promote, why = self._decide(candidate, champion, gain)
        reason = f"{self.metric} {candidate:.4g} against {champion:.4g} of version {evidence.champion_version}: {why}"
        numbers = {"candidate": candidate, "champion": champion, "gain": gain, "rows": float(len(evidence.labels))}
        return Verdict(promote=promote, reason=reason, numbers=numbers | _changes(evidence))

    def _decide(self, candidate: float, champion: float, gain: float) -> tuple[bool, str]:
        if not math.isfinite(candidate):
            return False, "it cannot be measured on this holdout"
        if not math.isfinite(champion):
            return True, "the one that serves cannot be measured, this one can"
        if self.max_loss is not None:
            promote = gain >= -self.max_loss
            return promote, f"{'not worse' if promote else 'worse'} by more than {self.max_loss:g}"
        promote = self.min_gain is not None and gain >= self.min_gain
        return promote, f"{'better' if promote else 'not better'} by at least {self.min_gain:g}"


@dataclass(frozen=True)
class Always:
    """Promotes every candidate: the baseline to judge a gate by."""

    def judge(self, evidence: Evidence) -> Verdict:
        return Verdict(promote=True, reason="every candidate is promoted", numbers=_changes(evidence))


@dataclass(frozen=True)
class Never:
    """Promotes none: candidates are made and measured, people promote."""

    def judge(self, evidence: Evidence) -> Verdict:
        return Verdict(promote=False, reason="no candidate is promoted by itself", numbers=_changes(evidence))


def _changes(evidence: Evidence) -> dict[str, float]:
    """How different the new answers are: nobody decides by it, but whoever subscribes feels it."""
    if not len(evidence.labels):
        return {}
    changes = {"mean_absolute_change": float(np.mean(np.abs(evidence.candidate - evidence.champion)))}
    if evidence.task == "binary":
        changes["changed_decisions"] = float(np.mean((evidence.candidate >= 0.5) != (evidence.champion >= 0.5)))
    return changes
