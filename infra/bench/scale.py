"""more events, more workers → what does an event cost? It should cost the same, and so should memory."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from headrace.infra.bench.headrace_worker import Headrace
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.session import Measured, Session
from headrace.models.errors import HeadraceError

COST, MEMORY = "cost_flat", "memory_flat"
SIZES: Final = (100_000, 1_000_000, 10_000_000)
_WORKERS: Final = (1, 2, 4)
_EVENTS_PER_PARTITION: Final = 1_000_000
FLAT: Final = 1.15  # of the largest run, held against smaller ones: two runs of the same differ by a tenth


def by_events(session: Session, *, rounds: int, names: Collection[str], sizes: Collection[int] = SIZES) -> list[Row]:
    """CPU seconds per event and peak memory of one worker, over runs of every size."""
    costs, memories, detail = [], [], dict[str, Any]()
    for number in range(rounds):
        session.say(f"round {number + 1} of {rounds}: headrace by number of events")
        found = {events: _sound(session.measure(Headrace(), events)) for events in sizes}
        *smaller, largest = [one.run for one in found.values()]
        costs.append(largest.worker_cpu / min(run.worker_cpu for run in smaller))
        # the smallest does not fill the client's queues: memory is held against the one before the largest
        memories.append(largest.peak_rss / smaller[-1].peak_rss)
        detail[f"round {number + 1}"] = {f"{events:,} events": _figures(one) for events, one in found.items()}
    rows = [
        Row(name=COST, target=FLAT, runs=costs, better="lower", detail=detail),
        Row(name=MEMORY, target=FLAT, runs=memories, better="lower", detail=detail),
    ]
    return [row for row in rows if row.name in names]


def by_workers(session: Session, *, events_per_partition: int = _EVENTS_PER_PARTITION) -> None:
    """1, 2 and 4 processes on as many partitions, all on the same two cores: a report, without a target."""
    session.reports["workers"] = {
        str(workers): _figures(
            _sound(session.measure(Headrace(workers=workers), events_per_partition * workers, workers))
        )
        for workers in _WORKERS
    }


def _sound(found: Measured) -> Measured:
    if not found.verdict.ok:
        raise HeadraceError(f"{found.run.contender}: {'; '.join(found.verdict.faults)}")
    return found


def _figures(found: Measured) -> Mapping[str, Any]:
    run = found.run
    return {
        "events_per_second": rounded(run.rate),
        "cpu_seconds_per_million": rounded(run.worker_cpu),
        "server_cpu_seconds_per_million": {name: rounded(spent) for name, spent in run.server_cpu.items()},
        "others_cores": rounded(run.others_cores),
        "peak_rss_mb": rounded(run.peak_rss / 1e6),
    }
