"""Facts → log lines and Prometheus metrics. Metric names have base units; every process serves them on its own port."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial, singledispatchmethod
from time import time
from typing import TextIO

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from headrace.models import facts
from headrace.models.errors import PortTaken

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# From 10 µs (a function on a few rows) to 65 s (a broker that was away), five a decade: neighbours are at most 1.7
# times apart, so a percentile that is read between them is off by no more.
_STAGES = tuple(float(f"{digits}e{power}") for power in range(-5, 2) for digits in (1, 1.5, 2.5, 4, 6.5))
_TOGETHER = tuple(2**power for power in range(11))
_INFER = "infer"  # the agent whose chunks `Predicted` is of, as the worker names it
_REFUSED = 20  # versions of a pipeline with the time of their refusal: they come for ever
_log = logging.getLogger("headrace")


class Metrics:
    """An observer that counts. Label values come from fixed sets: pipelines, topics, reasons, stages."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._predictions = counter("headrace_predictions", "Events predicted", ["pipeline", "version"])
        self._stages = histogram(
            "headrace_stage_seconds", "Of a chunk or a commit", ["agent", "stage"], buckets=_STAGES
        )
        self._stage: dict[
            tuple[str, str], Histogram
        ] = {}  # by agent and stage: asking for a child takes 1 µs each time
        self._latency = histogram(
            "headrace_latency_seconds",
            "Append of the event to commit of its prediction",
            ["topic"],
            buckets=_LATENCY,
        )
        self._aborted = counter("headrace_transactions_aborted", "Taken back as a whole; their events come again")
        self._dead = counter("headrace_dead_letters", "Records parked", ["pipeline", "topic", "reason"])
        self._lag = gauge("headrace_consumer_lag_records", "Behind the end", ["topic", "partition"])
        self._swaps = counter("headrace_swaps", "Versions switched to", ["pipeline"])
        self._swap_seconds = histogram(
            "headrace_swap_seconds", "Promotion read to serving", ["pipeline"], buckets=_LATENCY
        )
        self._version = gauge("headrace_model_version", "Serving", ["pipeline"])
        self._served_since = gauge("headrace_model_served_since_timestamp_seconds", "Last swap", ["pipeline"])
        self._refused = counter("headrace_registry_refused", "Records, models refused", ["pipeline", "reason"])
        self._refused_at = gauge("headrace_registry_refused_timestamp_seconds", "Last refused", ["pipeline", "version"])
        self._refused_versions: dict[str, list[str]] = {}  # that have such a time, by pipeline
        self._side_rows = counter("headrace_side_rows", "Side rows applied", ["topic"])
        self._runs = counter("headrace_training_runs", "By outcome", ["pipeline", "outcome"])
        self._retries = counter("headrace_training_retries", "Attempts beyond a run's first", ["pipeline"])
        self._overruns = counter("headrace_training_overruns", "Runs that delay a tick", ["pipeline"])
        self._live = gauge(
            "headrace_live_metric", "On labels that came later", ["pipeline", "version", "segment", "metric"]
        )
        self._live_rows = gauge(
            "headrace_live_metric_rows", "That its live metrics stand on", ["pipeline", "version", "segment"]
        )
        self._delay = gauge(
            "headrace_label_delay_seconds", "Event time from a row to its label", ["pipeline", "quantile"]
        )
        self._labels_seen = gauge(
            "headrace_labels", "Rows and labels so far, by what became of them", ["pipeline", "state"]
        )
        self._paired = gauge(
            "headrace_paired_loss_difference",
            "Of a version and the one beside it, on the same rows, with the ends of its interval",
            ["pipeline", "why", "version", "other", "bound"],
        )
        self._measured: dict[str, frozenset[int]] = {}  # versions with live metrics, by pipeline
        self._on_demand = counter("headrace_serve_rows", "Predicted on demand", ["pipeline", "version", "lane"])
        self._logged = counter("headrace_serve_logged_rows", "On demand, on the served topic", ["pipeline"])
        self._not_logged = counter(
            "headrace_serve_not_logged_rows", "On demand, and lost there", ["pipeline", "reason"]
        )
        self._together = histogram(
            "headrace_serve_batch_requests", "Answered in one run", ["pipeline", "lane"], buckets=_TOGETHER
        )
        self._guarded = counter("headrace_guard_actions", "What live numbers led to", ["pipeline", "action"])
        self._ticks = counter("headrace_score_ticks", "Scored by schedule", ["pipeline", "source", "outcome"])
        self._tick = gauge("headrace_score_tick_timestamp_seconds", "Newest with an outcome", ["pipeline", "source"])

    def __call__(self, fact: object) -> None:
        self._take(fact)

    @singledispatchmethod
    def _take(self, fact: object) -> None:
        """Facts that nobody counts."""

    @_take.register
    def _(self, fact: facts.Predicted) -> None:
        self._predictions.labels(fact.pipeline, str(fact.version)).inc(fact.rows)
        self._time(_INFER, fact.seconds)

    @_take.register
    def _(self, fact: facts.Served) -> None:
        labels = (fact.pipeline, str(fact.version), fact.lane)
        self._on_demand.labels(*labels).inc(fact.rows)
        self._together.labels(fact.pipeline, fact.lane).observe(fact.requests)

    @_take.register
    def _(self, fact: facts.RowsLogged) -> None:
        self._logged.labels(fact.pipeline).inc(fact.rows)

    @_take.register
    def _(self, fact: facts.RowsNotLogged) -> None:
        self._not_logged.labels(fact.pipeline, fact.reason).inc(fact.rows)

    @_take.register
    def _(self, fact: facts.Acknowledged) -> None:
        self._latency.labels(fact.topic).observe(fact.latency_seconds)
        self._time(fact.agent, fact.seconds)

    def _time(self, agent: str, seconds: Mapping[str, float]) -> None:
        for stage, spent in seconds.items():
            known = self._stage.get((agent, stage))
            if known is None:
                known = self._stage[agent, stage] = self._stages.labels(agent, stage)
            known.observe(spent)

    @_take.register
    def _(self, _fact: facts.Aborted) -> None:
        self._aborted.inc()

    @_take.register
    def _(self, fact: facts.DeadLettered) -> None:
        for reason, count in fact.reasons.items():
            self._dead.labels(fact.pipeline, fact.topic, reason).inc(count)

    @_take.register
    def _(self, fact: facts.Lag) -> None:
        self._lag.labels(fact.topic, str(fact.partition)).set(fact.records)

    @_take.register
    def _(self, fact: facts.Swapped) -> None:
        self._swaps.labels(fact.pipeline).inc()
        self._swap_seconds.labels(fact.pipeline).observe(fact.seconds)
        self._version.labels(fact.pipeline).set(fact.version)
        self._served_since.labels(fact.pipeline).set(time())

    @_take.register
    def _(self, fact: facts.Refused) -> None:
        self._refused.labels(fact.pipeline, fact.reason).inc()
        self._refused_at.labels(fact.pipeline, str(fact.version)).set(time())
        kept = self._refused_versions.setdefault(fact.pipeline, [])
        if str(fact.version) not in kept:
            kept.append(str(fact.version))
        if len(kept) > _REFUSED:
            self._refused_at.remove(fact.pipeline, kept.pop(0))

    @_take.register
    def _(self, fact: facts.SideRowsApplied) -> None:
        self._side_rows.labels(fact.topic).inc(fact.rows)

    @_take.register
    def _(self, fact: facts.RunEnded) -> None:
        self._runs.labels(fact.pipeline, fact.outcome).inc()

    @_take.register
    def _(self, fact: facts.TickScored) -> None:
        self._ticks.labels(fact.pipeline, fact.source, fact.outcome).inc()
        self._tick.labels(fact.pipeline, fact.source).set(datetime.fromisoformat(fact.tick).timestamp())

    @_take.register
    def _(self, fact: facts.RunTriedAgain) -> None:
        self._retries.labels(fact.pipeline).inc()

    @_take.register
    def _(self, fact: facts.RunOverruns) -> None:
        self._overruns.labels(fact.pipeline).inc()

    @_take.register
    def _(self, fact: facts.LiveMetric) -> None:
        self._live.labels(fact.pipeline, str(fact.version), fact.segment, fact.metric).set(fact.value)
        self._live_rows.labels(fact.pipeline, str(fact.version), fact.segment).set(fact.rows)
        self._measured[fact.pipeline] = self._measured.get(fact.pipeline, frozenset()) | {fact.version}

    @_take.register
    def _(self, fact: facts.LabelsSeen) -> None:
        for quantile, seconds in fact.delay_seconds.items():
            self._delay.labels(fact.pipeline, quantile).set(seconds)
        for state, count in fact.counts.items():
            self._labels_seen.labels(fact.pipeline, state).set(count)

    @_take.register
    def _(self, fact: facts.PairMeasured) -> None:
        for bound in ("low", "difference", "high"):
            labels = (fact.pipeline, fact.why, str(fact.version), str(fact.other), bound)
            self._paired.labels(*labels).set(getattr(fact, bound))

    @_take.register
    def _(self, fact: facts.Watched) -> None:
        """Versions come for ever: those that are no longer measured go."""
        gone = self._measured.get(fact.pipeline, frozenset()) - set(fact.versions)
        for version in gone:
            for metric in (self._live, self._live_rows, self._paired):
                metric.remove_by_labels({"pipeline": fact.pipeline, "version": str(version)})
        self._measured[fact.pipeline] = frozenset(fact.versions)

    @_take.register
    def _(self, fact: facts.Guarded) -> None:
        self._guarded.labels(fact.pipeline, fact.action).inc()


_QUIET = (
    *(facts.Predicted, facts.Served, facts.Acknowledged, facts.SideRowsApplied),
    *(facts.Lag, facts.LiveMetric, facts.RowsLogged),
)  # many a second
_BAD = (
    *(facts.Refused, facts.DeadLettered, facts.Aborted, facts.Guarded, facts.RunTriedAgain, facts.RunOverruns),
    facts.RowsNotLogged,
)


def log_fact(fact: object) -> None:
    """An observer that writes a line: the fact's name and its fields as JSON."""
    if isinstance(fact, _QUIET):
        return
    level = logging.WARNING if isinstance(fact, _BAD) else logging.INFO
    _log.log(level, "%s %s", type(fact).__name__, msgspec.json.encode(fact, enc_hook=str).decode())


def both(*observers: facts.Observer) -> facts.Observer:
    def observe(fact: object) -> None:
        for observer in observers:
            observer(fact)

    return observe


def log_to(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Once, by the process's root."""
    logging.basicConfig(stream=stream, level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True)
    logging.getLogger("headrace.kafka").setLevel(logging.NOTSET)
    for noisy in ("faust", "mode", "aiokafka", "apscheduler", "headrace.streams.app"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def serving(metrics: Metrics, port: int) -> Iterator[int]:
    """On the loopback, until the block's end; gives the port. Port 0 takes a free one. Raises PortTaken."""
    try:
        server, _ = start_http_server(port, "127.0.0.1", registry=metrics.registry)
    except OSError as error:
        raise PortTaken(
            f"metrics port {port}: expected a free port, {error.strerror}. Choose another --metrics-port."
        ) from error
    _log.info("metrics on http://127.0.0.1:%d/metrics", server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
