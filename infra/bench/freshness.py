"""how often to learn → live AUC and what it costs: the demo's flights, as they came, under several schedules.

    python -m headrace.infra.bench.freshness --days 120

No servers: `headrace.testing` computes the features and joins nothing that was not known yet; each version serves from
its tick to the next one's, on rows that it has never seen, with labels that had come by then. The cost is that of the
learner: training, export, parity and loading, without the join.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.demo import flights
from headrace.infra.demo.data import load_flights
from headrace.infra.rows import EventStream
from headrace.models.errors import RunFailed
from headrace.models.metrics import log_loss, roc_auc
from headrace.models.protocols import ChampionGraph, Dataset, Learner, TrainContext
from headrace.models.session import Session
from headrace.testing import Record, replay
from headrace.trainer.columns import as_numpy
from headrace.trainer.dataset import to_columns
from headrace.trainer.learners import Online, Torch

PIPELINE = flights.flight_delay
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_FIRST_MS = 14 * _DAY_MS  # what everybody begins with


@dataclass(frozen=True, kw_only=True)
class Schedule:
    name: str
    learner: Learner
    every_ms: int | None  # None: once
    window_ms: int


@dataclass(frozen=True, kw_only=True)
class Row:
    schedule: str
    roc_auc: float
    log_loss: float
    rows: int  # served with a label
    trainings: int
    seconds: float  # of learning
    milliseconds_each: float


def schedules() -> Iterator[Schedule]:
    network, online = Torch("flight_net:build", epochs=2, lr=3e-3, seed=7), Online(lr=0.02, rehearse=1.0)
    everything, fortnight = 400 * _DAY_MS, 14 * _DAY_MS
    yield Schedule(name="Torch, once", learner=network, every_ms=None, window_ms=everything)
    for name, every in (("weekly", 7 * _DAY_MS), ("daily", _DAY_MS)):
        yield Schedule(name=f"Torch, {name}", learner=network, every_ms=every, window_ms=everything)
    warm = replace(network, warm_start=True, epochs=1)
    yield Schedule(name="Torch, warm, daily", learner=warm, every_ms=_DAY_MS, window_ms=fortnight)
    yield Schedule(name="Online, once", learner=online, every_ms=None, window_ms=fortnight)
    for name, every in (("daily", _DAY_MS), ("hourly", _HOUR_MS), ("every 15 minutes", _HOUR_MS // 4)):
        yield Schedule(name=f"Online, {name}", learner=online, every_ms=every, window_ms=fortnight)


def load(days: int) -> Dataset:
    """Every flight with its features as of its event time; a label that never came is NaN, known never."""
    streams = load_flights(days)
    served = replay(
        PIPELINE,
        _records(streams["flights"]),
        side_rows={name: _records(streams[name]) for name in ("departures", "weather")},
        labels=_records(streams["arrivals"]),
    )
    table = pa.Table.from_batches(served.served).sort_by([("event_time", "ascending"), ("offset", "ascending")])
    labels = {row.id: row for row in served.labels}
    found = [labels.get(row_id) for row_id in table["id"].to_pylist()]
    return Dataset(
        columns=to_columns(table, PIPELINE.schema),
        labels=np.array([np.nan if row is None else row.value for row in found]),
        times=as_numpy(table["event_time"].cast(pa.int64())),
        label_times=np.array([np.iinfo(np.int64).max if row is None else row.time for row in found]),
        task="binary",
    )


def run(schedule: Schedule, flights: Dataset) -> Row:
    assert flights.label_times is not None  # noqa: S101  `load` has put it in
    begin, end = int(flights.times[0]) + _FIRST_MS, int(flights.times[-1]) + 1
    ticks = [begin] if schedule.every_ms is None else list(range(begin, end, schedule.every_ms))
    scores, seconds, version = np.full(len(flights), np.nan), 0.0, 0
    champion, session = None, None
    with tempfile.TemporaryDirectory(prefix="headrace-") as cache:
        for tick, following in zip(ticks, [*ticks[1:], end], strict=True):
            begun = time.perf_counter()
            first, last = np.searchsorted(flights.times, [tick - schedule.window_ms, tick])
            known = np.arange(first, last)[flights.label_times[first:last] <= tick]
            context = TrainContext(schema=PIPELINE.schema, cache=Path(cache), champion=champion)
            try:
                onnx = schedule.learner.train(flights.take(known), context).onnx
            except RunFailed as failed:
                if failed.reason != "too_few_rows":  # at night nothing is new
                    raise
            else:
                version += 1
                champion = ChampionGraph(version=version, onnx=onnx, schema=PIPELINE.schema)
                session = Session(onnx, PIPELINE.schema)
            seconds += time.perf_counter() - begun
            now = slice(*np.searchsorted(flights.times, [tick, following]).tolist())
            if session is not None and now.stop > now.start:
                scores[now] = session.predict(flights.take(now).columns, now.stop - now.start)
    return _row(schedule, flights.labels, scores, version, seconds)


def _row(schedule: Schedule, labels: NDArray[np.float64], scores: NDArray[np.float64], runs: int, spent: float) -> Row:
    judged = np.isfinite(scores) & np.isfinite(labels)
    return Row(
        schedule=schedule.name,
        roc_auc=round(roc_auc(labels[judged], scores[judged]), 4),
        log_loss=round(log_loss(labels[judged], scores[judged]), 4),
        rows=int(judged.sum()),
        trainings=runs,
        seconds=round(spent, 1),
        milliseconds_each=round(1000 * spent / max(1, runs), 1),
    )


def _records(stream: EventStream) -> list[Record]:
    return [Record(value, key=key) for key, value in zip(stream.keys, stream.values, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Live AUC of the flights by how often a model learns.")
    parser.add_argument("--days", type=int, default=120)
    rows = load(parser.parse_args().days)
    sys.path.insert(0, str(Path(flights.__file__).parent))  # where the network is
    for schedule in schedules():
        sys.stdout.write(json.dumps(msgspec.to_builtins(run(schedule, rows))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
