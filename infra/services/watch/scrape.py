"""/metrics of a process of ours → what `headrace dev profile` and the console read of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from time import monotonic
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from headrace.models.errors import HeadraceError

_SECONDS = 5.0  # a process that computes answers in milliseconds; one that swaps memory may take longer
_STAGES = "headrace_stage_seconds"
_LATENCY = "headrace_latency_seconds"
_ROWS = {"headrace_predictions_total": "infer", "headrace_side_rows_total": "features"}
_COUNTS = {  # what `Scrape.counts` has of a pipeline
    "headrace_predictions_total": "predictions",
    "headrace_dead_letters_total": "dead letters",
    "headrace_serve_rows_total": "on demand",
}


@dataclass(frozen=True, kw_only=True)
class Times:
    """How often something was timed, and how long it took: a Prometheus histogram, or the difference of two."""

    seconds: float
    calls: int
    cumulative: Mapping[float, float]  # by a bucket's upper bound in seconds: calls that took no longer; rising

    def since(self, before: "Times | None") -> "Times":
        if before is None:
            return self
        later = {bound: count - before.cumulative.get(bound, 0.0) for bound, count in self.cumulative.items()}
        return Times(seconds=self.seconds - before.seconds, calls=self.calls - before.calls, cumulative=later)

    def percentile(self, share: float) -> float:
        """Linear within a bucket, as Prometheus' histogram_quantile; beyond the last finite bound, that bound."""
        wanted, below, lower = share * self.calls, 0.0, 0.0
        for bound, count in self.cumulative.items():
            if count >= wanted and count > below:
                return lower if math.isinf(bound) else lower + (bound - lower) * (wanted - below) / (count - below)
            below, lower = count, bound
        return math.nan


@dataclass(frozen=True, kw_only=True)
class LiveValue:
    """One of `headrace_live_metric`, of all rows of a version."""

    pipeline: str
    version: int
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Scrape:
    at: float  # monotonic seconds
    rows: Mapping[str, float]  # by agent: events predicted, side rows applied
    stages: Mapping[tuple[str, str], Times]  # by agent and stage
    latency: Mapping[str, Times]  # by events topic: append of an event to commit of its prediction
    counts: Mapping[tuple[str, str], float]  # by pipeline and what is counted: see _COUNTS
    live: Sequence[LiveValue]
    refused: Mapping[tuple[str, int], float]  # by pipeline and version, 0 for a record of none: Unix seconds
    serving: Mapping[str, int]  # version, by pipeline
    live_rows: Mapping[tuple[str, int], int]  # by pipeline and version: labelled rows that its live metrics stand on


def scraped(port: int) -> Scrape:
    """Raises HeadraceError where nothing of ours answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        raise HeadraceError(f"port {port}: expected a worker's metrics, got: {error}. Does it still run?") from error
    finally:
        connection.close()
    return read(text, monotonic())


def read(text: str, at: float) -> Scrape:
    """Prometheus' text format, taken `at` a monotonic time. Raises HeadraceError where it is nobody's of ours."""
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise HeadraceError(f"expected a worker's metrics, got no Prometheus text: {error}") from error
    if not any(family.name == _STAGES for family in families):
        raise HeadraceError(f"expected a worker's metrics, got some without {_STAGES}: this is no process of headrace.")
    samples = [sample for family in families for sample in family.samples]
    rows = dict.fromkeys(_ROWS.values(), 0.0)
    counts: dict[tuple[str, str], float] = {}
    live: list[LiveValue] = []
    live_rows: dict[tuple[str, int], int] = {}
    refused: dict[tuple[str, int], float] = {}
    serving: dict[str, int] = {}
    for sample in samples:
        if sample.name in _ROWS:
            rows[_ROWS[sample.name]] += sample.value
        if sample.name in _COUNTS:
            key = sample.labels["pipeline"], _COUNTS[sample.name]
            counts[key] = counts.get(key, 0.0) + sample.value
        if sample.name == "headrace_live_metric" and not sample.labels["segment"]:
            of = sample.labels
            value = LiveValue(
                pipeline=of["pipeline"], version=int(of["version"]), metric=of["metric"], value=sample.value
            )
            live.append(value)
        if sample.name == "headrace_live_metric_rows" and not sample.labels["segment"]:
            live_rows[sample.labels["pipeline"], int(sample.labels["version"])] = int(sample.value)
        if sample.name == "headrace_registry_refused_timestamp_seconds":
            refused[sample.labels["pipeline"], int(sample.labels["version"])] = sample.value
        if sample.name == "headrace_model_version":
            serving[sample.labels["pipeline"]] = int(sample.value)
    stages = {(agent, stage): times for (agent, stage), times in _times(samples, _STAGES, "agent", "stage").items()}
    latency = {topic: times for (topic,), times in _times(samples, _LATENCY, "topic").items()}
    return Scrape(
        at=at,
        rows=rows,
        stages=stages,
        latency=latency,
        counts=counts,
        live=live,
        refused=refused,
        serving=serving,
        live_rows=live_rows,
    )


def _times(samples: Sequence[Any], name: str, *labels: str) -> dict[tuple[str, ...], Times]:
    """A histogram's children, by these labels of theirs."""
    seconds: dict[tuple[str, ...], float] = {}
    buckets: dict[tuple[str, ...], dict[float, float]] = {}
    for sample in samples:
        if sample.name == f"{name}_sum":
            seconds[tuple(sample.labels[label] for label in labels)] = sample.value
        elif sample.name == f"{name}_bucket":
            of = buckets.setdefault(tuple(sample.labels[label] for label in labels), {})
            of[float(sample.labels["le"])] = sample.value
    return {
        key: Times(seconds=spent, calls=int(buckets[key][math.inf]), cumulative=dict(sorted(buckets[key].items())))
        for key, spent in seconds.items()
    }
