"""a version's metrics and its champion's → side by side, what the gate judges by first."""

from collections.abc import Mapping

import msgspec

from headrace.models.metrics import HIGHER_IS_BETTER, METRICS
from headrace.models.pipeline import Pipeline


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    metric: str
    value: float
    champion: float | None  # the champion's of that run, on the same held-out rows
    difference: float | None
    verdict: str  # better, worse, or "" where they are equal or nobody knows which way is better


def beside(pipeline: Pipeline, metrics: Mapping[str, float], champion: Mapping[str, float]) -> list[Beside]:
    first = pipeline.metric
    names = sorted(metrics, key=lambda name: (name != first, name))
    return [_beside(name, metrics[name], champion.get(name)) for name in names]


def _beside(metric: str, value: float, champion: float | None) -> Beside:
    difference = None if champion is None else value - champion
    verdict = ""
    if difference and metric in METRICS:
        verdict = "better" if (difference > 0) == (metric in HIGHER_IS_BETTER) else "worse"
    return Beside(metric=metric, value=value, champion=champion, difference=difference, verdict=verdict)
