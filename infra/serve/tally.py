"""answered requests → Prometheus histograms, counted by hand: a request takes less than the library's three calls."""

from bisect import bisect_left
from collections.abc import Iterator
from threading import Lock

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BOUNDS = tuple(float(f"{digits}e{power}") for power in range(-4, 2) for digits in (1, 2.5, 5))  # 0.1 ms to 50 s


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts, self.total = [0] * (len(_BOUNDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds


class Tally(Collector):
    """Counts in the event loop, and is read by the thread that serves the metrics."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, ...], _Histogram] = {}
        self._stages: dict[tuple[str, ...], _Histogram] = {}
        self._new = Lock()

    def answered(self, api: str, operation: str, status: str, seconds: float) -> None:
        """`api` rest or grpc, `status` of HTTP or gRPC; seconds from the request's arrival to its answer."""
        self._of(self._requests, (api, operation, status)).add(seconds)

    def stage(self, lane: str, stage: str, seconds: float) -> None:
        """`lane` tensors or events, `stage` queue or run."""
        self._of(self._stages, (lane, stage)).add(seconds)

    def collect(self) -> Iterator[Metric]:
        labels = ["api", "operation", "status"]
        yield self._family("headrace_serve_request", "Arrival to answer", labels, self._requests)
        yield self._family("headrace_serve_stage", "Of a request or a batch", ["lane", "stage"], self._stages)

    def _of(self, known: dict[tuple[str, ...], _Histogram], labels: tuple[str, ...]) -> _Histogram:
        found = known.get(labels)
        if found is None:
            with self._new:
                found = known[labels] = _Histogram()
        return found

    def _family(
        self, name: str, text: str, labels: list[str], known: dict[tuple[str, ...], _Histogram]
    ) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"{name}_seconds", text, labels=labels)
        with self._new:
            copied = list(known.items())
        for values, histogram in copied:
            counts, below, buckets = list(histogram.counts), 0, []
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), counts, strict=True):
                below += count
                buckets.append((bound, float(below)))
            family.add_metric(list(values), buckets, histogram.total)
        return family
