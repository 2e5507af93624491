"""candidate + champion on the holdout → evidence: both as what would serve, on identical rows (law 7)."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.models.metrics import measure
from headrace.models.protocols import Columns, Dataset, Evidence
from headrace.models.scores import distances, finite
from headrace.models.session import Predictor


@dataclass(frozen=True)
class Constant:
    """The baseline: one answer to everything."""

    value: float | tuple[float, ...]  # one per class, where there are several

    def predict(self, _columns: Columns, rows: int) -> NDArray[np.float64]:
        return np.repeat(np.array([self.value], np.float64), rows, axis=0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    evidence: Evidence
    metrics: dict[str, float]  # the candidate's
    champion_metrics: dict[str, float]


def evaluate(
    holdout: Dataset,
    candidate: Predictor,
    champion: Predictor,
    champion_columns: Columns,
    champion_version: int,
    *,
    decide_at: float = 0.5,
    onnx_bytes: int = 0,
) -> Evaluation:
    """`champion_columns` are the same rows by the champion's schema. Raises RunFailed("scores_not_finite")."""
    rows, begun = len(holdout), perf_counter()
    scores = _scores("the candidate", candidate, holdout.columns, rows)
    seconds = perf_counter() - begun
    if not finite(scores).all():
        count = int((~finite(scores)).sum())
        raise RunFailed(
            "scores_not_finite", f"the candidate answers NaN or infinity to {count} of {rows} held-out rows"
        )
    champion_scores = _scores(f"version {champion_version}", champion, champion_columns, rows)
    return Evaluation(
        evidence=Evidence(
            task=holdout.task,
            labels=holdout.labels,
            candidate=scores,
            champion=champion_scores,
            champion_version=champion_version,
            decide_at=decide_at,
            columns=holdout.columns,
            onnx_bytes=onnx_bytes,
            seconds=seconds,
        ),
        metrics=measure(holdout.task, holdout.labels, scores),
        champion_metrics=measure(holdout.task, holdout.labels, champion_scores),
    )


def max_difference(scores: NDArray[np.float64], other: Predictor, columns: Columns) -> float:
    """Between two models' answers to the same rows; `columns` are those rows by the other one's schema."""
    return float(distances(scores, _scores("the version to compare with", other, columns, len(scores))).max())


def _scores(who: str, predictor: Predictor, columns: Columns, rows: int) -> NDArray[np.float64]:
    try:
        return predictor.predict(columns, rows)
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise RunFailed("evaluation", f"{who} cannot score the {rows} held-out rows: {error}") from error
