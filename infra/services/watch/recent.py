"""processes' metrics, scraped again and again → what they say of the last seconds: latencies, stages, live metrics."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from headrace.infra.local.detached import Process
from headrace.infra.processes.registered import living
from headrace.infra.services.watch.scrape import Scrape, Times, scraped
from headrace.models.aliases import CHAMPION
from headrace.models.errors import HeadraceError

RATE_SECONDS = 12.0  # over which rates are taken
_LATENCY_SECONDS = 60.0  # and percentiles: fewer calls say little
DAY_SECONDS = 86_400.0  # then an alert has been seen, or nobody looks
STAGES = ("decode", "features", "infer", "encode", "produce", "acknowledge", "commit")


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    stage: str
    p50: float  # seconds per chunk
    p99: float


class VersionNow(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is measured on live labels: the champion first."""

    version: int
    names: tuple[str, ...]  # its aliases; the baseline is called that
    metrics: dict[str, float]
    rows: int | None = None  # labelled ones that they stand on


class _Timed(Protocol):
    @property
    def at(self) -> float: ...  # monotonic seconds


Looked = TypeVar("Looked", bound=_Timed)


def within(earlier: Sequence[Looked], now: float, seconds: float) -> Looked:
    """The first of the last seconds; where two looks are farther apart than that, the last one before now."""
    return next((one for one in earlier if now - one.at <= seconds), earlier[-1])


def rate(looks: Sequence[Looked], count: Callable[[Looked], float | None]) -> float | None:
    """How much a count has grown a second; None where it was not there at one of the two looks, or there is but one."""
    if len(looks) < 2:
        return None
    *earlier, now = looks
    before = within(earlier, now.at, RATE_SECONDS)
    first, last = count(before), count(now)
    return None if first is None or last is None else max(0.0, (last - first) / (now.at - before.at))


class Recent:
    """Of the processes on this machine that run from one home; others have their own Prometheus. For one thread."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._kept: dict[Process, deque[Scrape]] = {}  # not by port: the next process may have it, and counts from 0
        self._of: dict[str, list[Process]] = {}  # by pipeline

    def scrape(self) -> None:
        processes = living(self._home)
        self._of = {}
        for one in processes:
            kept = self._kept.setdefault(one.process, deque(maxlen=64))
            with suppress(HeadraceError):  # it has just ended
                kept.append(scraped(one.metrics_port))
            for name in one.pipelines:
                self._of.setdefault(name, []).append(one.process)
        for gone in self._kept.keys() - {one.process for one in processes}:
            del self._kept[gone]

    def of(self, pipeline: str) -> "Recently":
        there = [self._kept[one] for one in self._of.get(pipeline, ())]
        return Recently(pipeline, [kept for kept in there if kept])


class Recently:
    """What one pipeline's processes say. Of several the slowest counts: that is what somebody waits for."""

    def __init__(self, pipeline: str, scrapes: "Sequence[deque[Scrape]]") -> None:
        self._pipeline, self._scrapes = pipeline, scrapes

    def latency(self, topic: str, share: float) -> float | None:
        """Seconds from the append of an event to the commit of its prediction."""
        return _percentile([_between(kept, lambda one: one.latency.get(topic)) for kept in self._scrapes], share)

    def stages(self) -> tuple[StageTime, ...]:
        found = []
        for stage in STAGES:
            there = self._stage("infer", stage)
            p50, p99 = _percentile(there, 0.5), _percentile(there, 0.99)
            if p50 is not None and p99 is not None:
                found.append(StageTime(stage=stage, p50=p50, p99=p99))
        return tuple(found)

    def refused(self, aliases: Mapping[str, int], now: float) -> tuple[int, ...]:
        """Versions that a process refused within a day (`now` is Unix seconds), that an alias still means, and that the
        process does not serve after all. 0 is a record of no version."""
        found = set()
        for kept in self._scrapes:
            newest = kept[-1]
            for (pipeline, version), at in newest.refused.items():
                is_wanted = version in aliases.values() and newest.serving.get(pipeline) != version
                if pipeline == self._pipeline and now - at < DAY_SECONDS and (is_wanted or not version):
                    found.add(version)
        return tuple(sorted(found))

    def rate(self, what: str) -> float | None:
        """A second."""
        rates = [_rate(kept, (self._pipeline, what)) for kept in self._scrapes]
        there = [one for one in rates if one is not None]
        return sum(there) if there else None

    def live(self, aliases: Mapping[str, int]) -> tuple[VersionNow, ...]:
        """The champion first, then the newest."""
        values: dict[int, dict[str, float]] = {}
        rows: dict[int, int] = {}
        for kept in self._scrapes:
            rows |= {version: count for (name, version), count in kept[-1].live_rows.items() if name == self._pipeline}
            for one in kept[-1].live:
                if one.pipeline == self._pipeline:
                    values.setdefault(one.version, {})[one.metric] = one.value
        ordered = sorted(values, key=lambda version: (version != aliases[CHAMPION], -version))
        return tuple(
            VersionNow(version=one, names=_names(one, aliases), metrics=values[one], rows=rows.get(one))
            for one in ordered
        )

    def _stage(self, agent: str, stage: str) -> list[Times | None]:
        return [_between(kept, lambda one: one.stages.get((agent, stage))) for kept in self._scrapes]


def _names(version: int, aliases: Mapping[str, int]) -> tuple[str, ...]:
    own = tuple(alias for alias, meant in aliases.items() if meant == version)
    return own if version else (*own, "baseline")


def _between(kept: "deque[Scrape]", of: Callable[[Scrape], Times | None]) -> Times | None:
    """What came within the window; where that is nothing, all that there was."""
    *earlier, now = kept
    later = of(now)
    if later is None or not earlier:
        return later
    recent = later.since(of(within(earlier, now.at, _LATENCY_SECONDS)))
    return recent if recent.calls > 0 else later


def _percentile(times: Sequence[Times | None], share: float) -> float | None:
    found = [one.percentile(share) for one in times if one is not None and one.calls]
    return max(found, default=None)


def _rate(kept: "deque[Scrape]", key: tuple[str, str]) -> float | None:
    """What was not counted before began at 0."""
    return rate(kept, lambda one: one.counts.get(key, 0.0)) if key in kept[-1].counts else None
