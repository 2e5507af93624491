"""/metrics of a process of ours → what `headrace dev profile` reads of them: events, side rows, stage histograms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from headrace.models.errors import HeadraceError

_SECONDS = 5.0  # a process that computes answers in milliseconds; one that swaps memory may take longer
_STAGES = "headrace_stage_seconds"
_ROWS = {"headrace_predictions_total": "infer", "headrace_side_rows_total": "features"}


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
class Scrape:
    at: float  # monotonic seconds
    rows: Mapping[str, float]  # by agent: events predicted, side rows applied
    stages: Mapping[tuple[str, str], Times]  # by agent and stage


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
    rows = dict.fromkeys(_ROWS.values(), 0.0)
    seconds: dict[tuple[str, str], float] = {}
    buckets: dict[tuple[str, str], dict[float, float]] = {}
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise HeadraceError(f"expected a worker's metrics, got no Prometheus text: {error}") from error
    if not any(family.name == _STAGES for family in families):
        raise HeadraceError(f"expected a worker's metrics, got some without {_STAGES}: this is no process of headrace.")
    for family in families:
        for sample in family.samples:
            if sample.name in _ROWS:
                rows[_ROWS[sample.name]] += sample.value
            elif sample.name == f"{_STAGES}_sum":
                seconds[sample.labels["agent"], sample.labels["stage"]] = sample.value
            elif sample.name == f"{_STAGES}_bucket":
                of_stage = buckets.setdefault((sample.labels["agent"], sample.labels["stage"]), {})
                of_stage[float(sample.labels["le"])] = sample.value
    stages = {
        key: Times(seconds=spent, calls=int(buckets[key][math.inf]), cumulative=dict(sorted(buckets[key].items())))
        for key, spent in seconds.items()
    }
    return Scrape(at=at, rows=rows, stages=stages)
