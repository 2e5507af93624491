"""evidence → verdict: does the candidate take over? Pure; the reason is a sentence for whoever reads it later."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from headrace.models.bootstrap import measured
from headrace.models.calibration import calibration_error
from headrace.models.difference import Scored, difference
from headrace.models.errors import DeclarationError
from headrace.models.imports import load
from headrace.models.kendall import kendall_tau
from headrace.models.metrics import HIGHER_IS_BETTER, METRICS, OF_TASK, Scores
from headrace.models.protocols import Evidence, Verdict
from headrace.models.scores import changed, distances

_OF_ONE = {
    "min_kendall_tau": "1 is no change at all.",
    "max_changed_decisions": "0 is no change at all.",
    "max_calibration_error": "0.05 is five percent away.",
}
_ROUNDS, _DRAWS = 500, 10_000_000  # of the bootstrap, rows drawn at most: a large holdout needs fewer rounds


@dataclass(frozen=True)
class Gate:
    """Promotes what is not worse by more than `max_loss` of the metric, or what is better by at least `min_gain`, and
    breaks none of the limits that are set. In the reason stands the first that it breaks.

    `max_loss` is for a stream that drifts: of two models that a week's holdout cannot tell apart, the fresher one
    wins. `min_gain` is for one where every change has to pay. With `confident=True` not the gain itself must be
    there, but the low end of its 95 % interval (paired bootstrap, Efron 1979): a small holdout promotes less.

    `metric` may be a function of your own, "my_metrics:profit", of labels and scores [n]; say `higher_is_better`.
    """

    metric: str
    _: KW_ONLY
    max_loss: float | None = None
    min_gain: float | None = None
    confident: bool = False
    higher_is_better: bool | None = None  # of a metric of your own
    min_kendall_tau: float | None = None  # of the ranks that candidate and champion give to the same rows, -1 to 1
    max_changed_decisions: float | None = None  # share of rows (Hamming), at the label's `decide_at`
    must_not_fall: Mapping[str, float] = field(default_factory=dict)  # metric → by how much at most
    by_segment: str | None = None  # a category column: in each of its values ...
    max_segment_loss: float | None = None  # ... the metric falls by no more than this
    min_segment_rows: int = 200
    max_bytes: int | None = None  # of the ONNX graph
    max_seconds: float | None = None  # to score the holdout, measured as it is served: one thread
    max_anchor_loss: float | None = None  # of the metric, on the anchor's rows: see `Anchor`
    max_calibration_error: float | None = None  # of the candidate: see `models.calibration`

    def __post_init__(self) -> None:
        for metric in (self.metric, *self.must_not_fall):
            if metric not in METRICS and ":" not in metric:
                known = " or ".join(map(repr, METRICS))
                raise DeclarationError("Gate.metric", f"{known}, or module:function", metric, "Take one of these.")
        if ":" in self.metric and self.higher_is_better is None:
            raise DeclarationError("Gate.higher_is_better", "True or False for a metric of your own", None, "Say it.")
        if (self.max_loss is None) == (self.min_gain is None):
            both = f"max_loss={self.max_loss}, min_gain={self.min_gain}"
            raise DeclarationError("Gate", "max_loss or min_gain", both, "For example max_loss=0.005.")
        if (self.by_segment is None) != (self.max_segment_loss is None):
            both = f"by_segment={self.by_segment!r}, max_segment_loss={self.max_segment_loss}"
            raise DeclarationError("Gate", "by_segment and max_segment_loss, or neither", both, "Add the other one.")
        self._check_numbers()

    def judge(self, evidence: Evidence) -> Verdict:
        """Raises DeclarationError where a metric or the segment's column is not of this task."""
        self._check_task(evidence)
        measure = self._measure(self.metric)
        candidate = measure(evidence.labels, evidence.candidate)
        champion = measure(evidence.labels, evidence.champion)
        gain = self._gain(self.metric, candidate, champion)
        numbers = {"candidate": candidate, "champion": champion, "gain": gain, "rows": float(len(evidence.labels))}
        numbers |= changes(evidence) | calibration(evidence) | self._interval(evidence) | self._on_anchor(evidence)
        promote, why = self._decide(candidate, champion, numbers)
        if promote and (broken := next(self._broken(evidence, numbers), None)):
            promote, why = False, broken
        reason = f"{self.metric} {candidate:.4g} against {champion:.4g} of version {evidence.champion_version}: {why}"
        return Verdict(promote=promote, reason=reason, numbers=numbers)

    # ── the metric ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _decide(self, candidate: float, champion: float, numbers: Mapping[str, float]) -> tuple[bool, str]:
        if not math.isfinite(candidate):
            return False, "it cannot be measured on this holdout"
        if not math.isfinite(champion):
            return True, "the one that serves cannot be measured, this one can"
        gain = numbers.get("gain_low", math.nan) if self.confident else numbers["gain"]
        sure = " with 95 % confidence" if self.confident else ""
        if self.max_loss is not None:
            promote = gain >= -self.max_loss
            return promote, f"{'not worse' if promote else 'worse'} by more than {self.max_loss:g}{sure}"
        promote = self.min_gain is not None and gain >= self.min_gain
        return promote, f"{'better' if promote else 'not better'} by at least {self.min_gain:g}{sure}"

    def _interval(self, evidence: Evidence) -> dict[str, float]:
        """The gain's, where the metric is one of ours."""
        if self.metric not in METRICS or not np.isfinite(evidence.champion).all():
            return {}
        rounds = max(50, min(_ROUNDS, _DRAWS // max(1, len(evidence.labels))))
        found = measured(evidence.task, evidence.labels, evidence.champion, evidence.candidate, rounds=rounds)
        (one,) = [each.difference for each in found if each.metric == self.metric]
        if one.low is None or one.high is None:
            return {}
        low, high = (one.low, one.high) if self.metric in HIGHER_IS_BETTER else (-one.high, -one.low)
        return {"gain_low": low, "gain_high": high}

    def _on_anchor(self, evidence: Evidence) -> dict[str, float]:
        """Limited or not: a gain today that was bought by forgetting is seen."""
        if (anchor := evidence.anchor) is None:
            return {}
        measure = self._measure(self.metric)
        now, before = measure(anchor.labels, anchor.candidate), measure(anchor.labels, anchor.champion)
        return {"anchor_candidate": now, "anchor_champion": before, "anchor_gain": self._gain(self.metric, now, before)}

    def _measure(self, metric: str) -> Callable[[Scores, Scores], float]:
        own: Callable[[Scores, Scores], float] = METRICS[metric] if metric in METRICS else load(metric)
        return own

    def _gain(self, metric: str, candidate: float, champion: float) -> float:
        higher = metric in HIGHER_IS_BETTER if metric in METRICS else bool(self.higher_is_better)
        return candidate - champion if higher else champion - candidate

    # ── the limits ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _broken(self, evidence: Evidence, numbers: dict[str, float]) -> Iterator[str]:
        """Sentences, the first of which is the reason. What is measured on the way goes into `numbers`."""
        tau, changed = numbers.get("kendall_tau", math.nan), numbers.get("changed_decisions", 0.0)
        if self.min_kendall_tau is not None and not tau >= self.min_kendall_tau:
            yield f"it ranks too differently: Kendall's tau {tau:.3f}, at least {self.min_kendall_tau:g} asked for"
        if self.max_changed_decisions is not None and changed > self.max_changed_decisions:
            yield f"it changes {changed:.1%} of the decisions, at most {self.max_changed_decisions:.1%} allowed"
        for metric, most in self.must_not_fall.items():
            measure = self._measure(metric)
            before, now = measure(evidence.labels, evidence.champion), measure(evidence.labels, evidence.candidate)
            numbers[f"gain_{metric}"] = gain = self._gain(metric, now, before)
            if gain < -most:
                yield f"{metric} falls from {before:.4g} to {now:.4g}, by more than {most:g}"
        yield from self._segments(evidence, numbers)
        if self.max_anchor_loss is not None:
            yield from self._forgotten(self.max_anchor_loss, numbers)
        off, allowed = numbers.get("calibration_error", math.nan), self.max_calibration_error
        if allowed is not None and not off <= allowed:
            yield f"its probabilities are {off:.3g} away from what happens, at most {allowed:g} allowed"
        if self.max_bytes is not None and evidence.onnx_bytes > self.max_bytes:
            yield f"its graph has {evidence.onnx_bytes:,} bytes, at most {self.max_bytes:,} allowed"
        if self.max_seconds is not None and evidence.seconds > self.max_seconds:
            rows = len(evidence.labels)
            yield f"it took {evidence.seconds:.3g} s for {rows:,} rows, at most {self.max_seconds:g} s allowed"

    def _forgotten(self, most: float, numbers: Mapping[str, float]) -> Iterator[str]:
        if "anchor_gain" not in numbers:
            yield "the anchor has no rows, so that forgetting cannot be judged"
            return
        now, before = numbers["anchor_candidate"], numbers["anchor_champion"]
        if math.isfinite(before) and not numbers["anchor_gain"] >= -most:
            yield f"on the anchor's rows it falls from {before:.4g} to {now:.4g}, by more than {most:g}"

    def _segments(self, evidence: Evidence, numbers: dict[str, float]) -> Iterator[str]:
        if self.by_segment is None or self.max_segment_loss is None:
            return
        scored = Scored(
            task=evidence.task,
            first=evidence.champion,
            second=evidence.candidate,
            labels=evidence.labels,
            categories={self.by_segment: evidence.columns[self.by_segment].tolist()},
        )
        least = self.min_segment_rows
        found = difference(scored, metric=self.metric, decide_at=None, segment_rows=least, rounds=1)
        for segment in found.segments:
            if segment.first is None or segment.second is None:
                continue
            gain = self._gain(self.metric, segment.second, segment.first)
            numbers["worst_segment_gain"] = min(gain, numbers.get("worst_segment_gain", math.inf))
            if gain < -self.max_segment_loss:
                yield (
                    f"for {segment.column} {segment.value} it falls from {segment.first:.4g} to {segment.second:.4g} "
                    f"on {segment.rows:,} rows, by more than {self.max_segment_loss:g}"
                )

    # ── what a declaration may say ───────────────────────────────────────────────────────────────────────────────────

    def _check_numbers(self) -> None:
        named = ("max_loss", "min_gain", "max_segment_loss", "max_seconds", "max_anchor_loss")
        limits = {name: getattr(self, name) for name in named}
        limits |= {f"must_not_fall[{metric!r}]": most for metric, most in self.must_not_fall.items()}
        limits |= {"max_bytes": self.max_bytes, "min_segment_rows": self.min_segment_rows}
        for name, given in limits.items():
            if given is not None and not _is_number(given, 0, math.inf):
                raise DeclarationError(f"Gate.{name}", "a number from 0", given, "In the metric's own unit.")
        for name, low in (("min_kendall_tau", -1), ("max_changed_decisions", 0), ("max_calibration_error", 0)):
            given = getattr(self, name)
            if given is not None and not (_is_number(given, low, 1) or given == 1):
                raise DeclarationError(f"Gate.{name}", f"a number from {low} to 1", given, _OF_ONE[name])

    def _check_task(self, evidence: Evidence) -> None:
        of_task = OF_TASK[evidence.task]
        for metric in (self.metric, *self.must_not_fall):
            if metric in METRICS and metric not in of_task:
                choices = " or ".join(map(repr, of_task))
                raise DeclarationError("Gate.metric", f"{choices} for {evidence.task} labels", metric, "Change it.")
        if self.max_calibration_error is not None and evidence.task != "binary":
            given = self.max_calibration_error
            raise DeclarationError(
                "Gate.max_calibration_error", "labels that have probabilities", given, "Leave it out."
            )
        if self.by_segment is not None and self.by_segment not in evidence.columns:
            there = ", ".join(evidence.columns) or "none"
            raise DeclarationError(
                "Gate.by_segment", f"a column of the schema ({there})", self.by_segment, "Change it."
            )


@dataclass(frozen=True)
class Always:
    """Promotes every candidate: the baseline to judge a gate by."""

    def judge(self, evidence: Evidence) -> Verdict:
        numbers = changes(evidence) | calibration(evidence)
        return Verdict(promote=True, reason="every candidate is promoted", numbers=numbers)


@dataclass(frozen=True)
class Never:
    """Promotes none: candidates are made and measured, people promote."""

    def judge(self, evidence: Evidence) -> Verdict:
        numbers = changes(evidence) | calibration(evidence)
        return Verdict(promote=False, reason="no candidate is promoted by itself", numbers=numbers)


def changes(evidence: Evidence) -> dict[str, float]:
    """How different the new answers are: whoever subscribes feels it. What cannot be said is left out."""
    if not len(evidence.labels) or not np.isfinite(evidence.champion).all():
        return {}
    candidate, champion = evidence.candidate, evidence.champion
    found = {"mean_absolute_change": float(np.mean(distances(candidate, champion)))}
    tau = kendall_tau(champion, candidate) if candidate.ndim == 1 else math.nan  # several classes order no rows
    if math.isfinite(tau):
        found["kendall_tau"] = tau
    different = changed(champion, candidate, evidence.decide_at if evidence.task == "binary" else None)
    if different is not None:
        found["changed_decisions"] = different
    return found


def calibration(evidence: Evidence) -> dict[str, float]:
    """Of both, where scores are probabilities."""
    if evidence.task != "binary" or not len(evidence.labels):
        return {}
    return {
        "calibration_error": calibration_error(evidence.labels, evidence.candidate),
        "champion_calibration_error": calibration_error(evidence.labels, evidence.champion),
    }


def _is_number(given: object, least: float, below: float) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and least <= given < below
