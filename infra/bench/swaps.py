"""one version after the other under a steady load → who notices, how soon does each serve, does memory stay flat?"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from threading import Event
from time import monotonic
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.infra.bench import pairs
from headrace.infra.bench.graphs import Chain
from headrace.infra.bench.headrace_worker import Headrace
from headrace.infra.bench.latency import figures, warm
from headrace.infra.bench.pairs import Answers
from headrace.infra.bench.processes import last_words
from headrace.infra.bench.publisher import Publisher, publishing
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.serving import DROPPED, Loaded, Serving, serving
from headrace.infra.bench.session import Session
from headrace.infra.bench.throughput import Entries
from headrace.infra.bench.trees import Tree
from headrace.infra.bench.workload import FEATURES
from headrace.infra.names import REGISTRY, Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models import registry
from headrace.models.errors import HeadraceError
from headrace.models.records import Promoted
from headrace.models.schema import NUMBERS

P99, FIRST_P50, FIRST_P95 = "swap_p99", "swap_publish_to_first_p50", "swap_publish_to_first_p95"
MEMORY: Final = "swap_memory"
TARGETS: Final = {P99: 1.2, FIRST_P50: 20.0, FIRST_P95: 50.0, MEMORY: 1.05}
_RATE: Final = 2_000.0
_SEED: Final = 7
_WIDTHS: Final = (16, 280, 500)  # of the two hidden layers: about 2 kB, 330 kB and 1 MB of ONNX
_AFTER_SECONDS: Final = 1.0  # of load, for the last version
_EARLY: Final = 50  # swaps after which memory counts
_AROUND: Final = 5  # swaps before and after, whose median is taken


@dataclass(frozen=True, kw_only=True)
class Swapping:
    """A headrace that serves, and who gives it versions."""

    served: Serving
    publisher: Publisher
    settings: Settings
    names: Names


@dataclass(frozen=True, kw_only=True)
class Published:
    """Each version in turn: the size of its graph, the worker's memory when it was on record. Bytes."""

    versions: list[int]
    sizes: list[int]
    resident: list[int]


@dataclass(frozen=True, kw_only=True)
class Delays:
    """From the append of each promotion to that of the first prediction by its version, or by a newer one."""

    ms: NDArray[np.float64]
    sizes: NDArray[np.int64]  # bytes of each graph
    passed_over: int  # versions that never served, since a newer one was there before

    def percentiles(self, size: int | None = None) -> dict[str, float]:
        """ms, of all or of the graphs of one size."""
        ms = self.ms if size is None else self.ms[self.sizes == size]
        found = np.percentile(ms, [50, 95, 100], method="higher").tolist()
        return dict(zip(("p50", "p95", "worst"), map(rounded, found), strict=True))


def swaps(
    session: Session,
    entries: Entries,
    *,
    rounds: int,
    names: Collection[str],
    seconds: float = 20.0,
    few: int = 100,
    many: int = 500,
) -> list[Row]:
    """`few` swaps within `seconds` between two steady loads of as long; `many` at half the distance."""
    warm(session, entries)
    rows = []
    noticed = [name for name in (P99, FIRST_P50, FIRST_P95) if name in names]
    if noticed:
        found = [_noticed(session, number + 1, seconds, few) for number in range(rounds)]
        rows += [_row(name, found) for name in noticed]
    if MEMORY in names:
        rows.append(_flat(session, many, seconds * many / few / 2))
    return rows


def graphs() -> list[bytes]:
    """By the size, the smallest first."""
    made = []
    for width in _WIDTHS:
        chain = Chain(NUMBERS, (FEATURES,), _SEED)
        for width_in, width_out in ((FEATURES, width), (width, width)):
            chain.dense(width_in, width_out)
            chain.relu()
        chain.dense(width, 1)
        made.append(chain.finished())
    return made


@contextmanager
def swapping(session: Session) -> Iterator[Swapping]:
    with serving(session, Headrace()) as served:
        file = read_pipelines(str(Path(served.started.folder) / "bare.py"))
        pipeline = one_of(file, str(file.path))
        prefix = served.started.events.removesuffix(pipeline.events.name)
        settings = session.settings.model_copy(update={"prefix": prefix})
        names = Names(prefix, pipeline)
        pairs.stamped_by_broker(settings, names.of(REGISTRY))
        with publishing(settings, names) as publisher:
            yield Swapping(served=served, publisher=publisher, settings=settings, names=names)


def load(swapping: Swapping, count: int, seconds: float) -> tuple[Loaded, Published]:
    """`count` swaps, evenly over `seconds` of a load whose first quarter goes before."""
    done = Published(versions=[], sizes=[], resident=[])
    tree, graph = Tree([process.pid for process in swapping.served.processes]), cycle(graphs())
    whole = seconds / (1 - DROPPED)

    def during() -> None:
        begin = monotonic() + whole - seconds
        for number in range(count):
            Event().wait(max(0.0, begin + number * seconds / count - monotonic()))
            bytes_ = next(graph)
            done.versions.append(swapping.publisher.publish(bytes_))
            done.sizes.append(len(bytes_))
            done.resident.append(tree.resident_bytes())

    return swapping.served.load(_RATE, whole, during=during), done


def delays(swapping: Swapping, answered: Answers, done: Published) -> Delays:
    promoted, reader = dict[int, float](), TopicReader(swapping.settings, [swapping.names.of(REGISTRY)], once=True)
    for batch in pairs.batches(reader):
        for message in batch:
            record = registry.decode(message.value())
            if isinstance(record, Promoted) and record.pipeline == swapping.names.pipeline.name:
                promoted[record.version] = message.timestamp()[1] + pairs.HALF_MS
    first = np.full(max(done.versions) + 1, np.inf)
    np.minimum.at(first, answered.versions, answered.at)
    passed_over = int(np.isinf(first[done.versions]).sum())
    first = np.minimum.accumulate(first[::-1])[::-1]
    if np.isinf(first[done.versions]).any():
        raise HeadraceError(f"the last version never served; {last_words(swapping.served.started)}")
    took = [first[version] - promoted[version] for version in done.versions]
    return Delays(ms=np.array(took), sizes=np.array(done.sizes), passed_over=passed_over)


def _noticed(session: Session, number: int, seconds: float, count: int) -> dict[str, Any]:
    """Figures of a round: a steady load, one with swaps, a steady one, of one worker."""
    session.say(f"round {number}: {count} swaps in {seconds:.0f} s")
    with swapping(session) as ours:
        before = ours.served.load(_RATE, seconds)
        during, done = load(ours, count, seconds)
        after = ours.served.load(_RATE, seconds)
        took = delays(ours, Answers.joined([during.answered, after.answered]), done)
    session.say(f"steady: {before.latencies()}; with swaps: {during.latencies()}; steady again: {after.latencies()}")
    session.say(f"publish to first prediction: {took.percentiles()}")
    steady = fmean(one.latencies().percentiles["p99"] for one in (before, after))
    return {
        P99: during.latencies().percentiles["p99"] / steady,
        FIRST_P50: took.percentiles()["p50"],
        FIRST_P95: took.percentiles()["p95"],
        "detail": {
            "steady": [figures(before), figures(after)],
            "with_swaps": figures(during),
            "publish_to_first_ms_by_bytes": {
                str(size): took.percentiles(size) for size in np.unique(took.sizes).tolist()
            },
            "versions_passed_over": took.passed_over,
        },
    }


def _row(name: str, found: list[dict[str, Any]]) -> Row:
    unit = "x" if name == P99 else "ms"
    detail = {f"round {number}": one["detail"] for number, one in enumerate(found, start=1)}
    return Row(
        name=name, target=TARGETS[name], runs=[one[name] for one in found], unit=unit, better="lower", detail=detail
    )


def _flat(session: Session, count: int, seconds: float) -> Row:
    """Resident memory at the end over that after the first swaps."""
    session.say(f"{count} swaps in {seconds:.0f} s")
    with swapping(session) as ours:
        loaded, done = load(ours, count, seconds)
        after = ours.served.load(_RATE, _AFTER_SECONDS)
        took = delays(ours, Answers.joined([loaded.answered, after.answered]), done)
    early = median(done.resident[_EARLY - _AROUND : _EARLY + _AROUND])
    late = median(done.resident[-2 * _AROUND :])
    session.say(f"{early / 1e6:.1f} MB after {_EARLY} swaps, {late / 1e6:.1f} MB after {count}")
    detail = {
        "swaps": count,
        "bytes_published": sum(done.sizes),
        "resident_mb": [rounded(size / 1e6) for size in done.resident[:: max(1, count // 20)]],
        "versions_passed_over": took.passed_over,
        "load": figures(loaded),
    }
    return Row(name=MEMORY, target=TARGETS[MEMORY], runs=[late / early], better="lower", detail=detail)
