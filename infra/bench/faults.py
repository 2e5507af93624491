"""real flights with a fault upstream for two weeks → what it costs afterwards, with automatic rollback and without.

The fault lasts from one training to the next, so that the next version learns nothing else, is judged on rows of the
same kind, and takes over on the day on which upstream is mended. The damage is what was served from then on, against
labels as they truly were.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from headrace.infra.demo import run as demo
from headrace.infra.demo.data import START, TAXIING, load_flights
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.local.servers import LocalServers
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.together import running
from headrace.infra.replay import Replay, Rows, feature_store
from headrace.infra.rows import EventStream
from headrace.infra.served_log import since as served_since
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.models import registry
from headrace.models.durations import milliseconds, to_ms
from headrace.models.losses import loss_name, losses
from headrace.models.metrics import METRICS, Scores
from headrace.models.pipeline import Pipeline
from headrace.models.records import Promoted
from headrace.trainer.columns import as_numpy

_PIPELINES: Final = Path(__file__).with_name("pipelines")
_DAYS: Final = 59  # January and February
_BEGINS, _ENDS = to_ms(START.replace(month=2, hour=3)), to_ms(START.replace(month=2, day=15, hour=3))  # two ticks
_KM: Final = 1.609344  # a mile
_SLICE: Final = "3h"
Streams = Mapping[str, EventStream]
_Row = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Fault:
    name: str
    pipeline: str  # file in `pipelines`
    labels: str  # topic
    side: tuple[str, ...]
    changed: Callable[[Streams], Streams]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What was served in the fortnight after the fault, on true labels."""

    fault: str
    guarded: bool
    rows: int
    metric: str
    value: float
    loss: str
    mean_loss: float
    served_by_bad: int  # rows
    rollbacks: list[str]  # event time, version and reason of each
    seconds: float  # of the whole run


def damages(settings: Settings, names: list[str], console: Console) -> list[Damage]:
    """Each fault without a guard and with it, on a broker and a Redis of its own. No name: all of them."""
    streams = load_flights(_DAYS)
    streams = {**streams, "landings": _landings(streams)}
    home = settings.home / "faults"
    found = []
    with LocalServers(home, report=console.print, temporary=True) as addresses:
        ours = settings.model_copy(
            update={"bootstrap_servers": addresses.bootstrap_servers, "redis_url": addresses.redis_url, "home": home}
        )
        for fault in [fault for fault in FAULTS if not names or fault.name in names]:
            for guarded in (False, True):
                with console.status(f"{fault.name}, {'with' if guarded else 'without'} rollback"):
                    found.append(_run(ours, fault, streams, guarded=guarded))
    shutil.rmtree(home)
    return found


def table(found: list[Damage]) -> Table:
    shown = Table(title="the fortnight after the fault, on true labels")
    for heading in ("fault", "rollback", "rows", "metric", "mean loss", "rows served by what it had taught"):
        shown.add_column(heading, justify="right")
    for one in found:
        shown.add_row(
            one.fault,
            "yes" if one.guarded else "no",
            f"{one.rows:,}",
            f"{one.metric} {one.value:.4f}",
            f"{one.loss} {one.mean_loss:.4f}",
            f"{one.served_by_bad:,}",
        )
    return shown


def _run(settings: Settings, fault: Fault, streams: Streams, *, guarded: bool) -> Damage:
    begun = monotonic()
    settings = settings.model_copy(
        update={"prefix": f"{fault.name.replace(' ', '-').replace(',', '')}-{int(guarded)}."}
    )
    with _file(settings.home / settings.prefix, fault.pipeline, guarded=guarded) as place:
        file = read_pipelines(str(place))
        pipeline = one_of(file, place.name)
        names = Names(settings.prefix, pipeline)
        apply(settings, pipeline, 1)
        given = fault.changed(streams)
        rows = Rows(events=given["flights"], labels=given[fault.labels], side=[given[topic] for topic in fault.side])
        with running(settings, [file], clock=False, started=to_ms(START)) as children:
            replay = Replay(settings, names, feature_store(settings, names), children.check)
            bad = None
            for done in replay.run(rows, longest_ms=milliseconds("slice", _SLICE), start=to_ms(START)):
                if done.end == _ENDS and done.finished is not None and done.finished.outcome == "promoted":
                    bad = done.finished.version
            replay.close()
    return _damage(settings, names, fault, streams[fault.labels], bad, guarded, monotonic() - begun)


@contextmanager
def _file(folder: Path, name: str, *, guarded: bool) -> Iterator[Path]:
    """The pipeline with its network beside it; without its guard, where it is to have none."""
    folder.mkdir(parents=True)
    source = (_PIPELINES / name).read_text()
    unguarded, count = re.subn(r"rollback=Rollback\(.*?\)", "rollback=None", source)
    assert count == 1, name  # noqa: S101
    (folder / name).write_text(source if guarded else unguarded)
    shutil.copy(demo.FILE.with_name("flight_net.py"), folder)
    yield folder / name


def _damage(
    settings: Settings, names: Names, fault: Fault, truth: EventStream, bad: int | None, guarded: bool, seconds: float
) -> Damage:
    pipeline = names.pipeline
    known = dict(_labels(pipeline, truth))
    labels, scores, versions = [], [], []
    for batch in served_since(settings, names.topics.served, _ENDS, pipeline.max_future_ms):
        times = as_numpy(batch.rows.column("event_time").cast("int64"))
        columns = (batch.rows.column(name).to_pylist() for name in ("id", "score", "version"))
        for time, row_id, score, version in zip(times.tolist(), *columns, strict=True):
            if time >= _ENDS and row_id in known:
                labels.append(known[row_id])
                scores.append(score)
                versions.append(version)
    of, answers = np.array(labels), np.array(scores)
    task = pipeline.label.task
    metric = "roc_auc" if task == "binary" else "mae"
    measure: Callable[[Scores, Scores], float] = METRICS[metric]
    return Damage(
        fault=fault.name,
        guarded=guarded,
        rows=len(of),
        metric=metric,
        value=round(measure(of, answers), 4),
        loss=loss_name(task),
        mean_loss=round(float(losses(task, of, answers).mean()), 4),
        served_by_bad=versions.count(bad),
        rollbacks=_rollbacks(settings, names),
        seconds=round(seconds, 1),
    )


def _labels(pipeline: Pipeline, stream: EventStream) -> Iterator[tuple[str, float]]:
    for value in stream.values:
        row = msgspec.json.decode(value)
        yield row["flight_id"], pipeline.label.value(row)


def _rollbacks(settings: Settings, names: Names) -> list[str]:
    log = KafkaRegistry(settings)
    records = [registry.decode(value) for value in log.catch_up()]
    log.close()
    mine = [one for one in records if isinstance(one, Promoted) and one.pipeline == names.pipeline.name]
    return [f"to version {one.version}: {one.why}" for one in mine if one.move == "rollback"]


# ── the faults ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _during(stream: EventStream, change: Callable[[_Row], _Row | None]) -> EventStream:
    """The rows of the fault's time are changed; None: they do not come."""
    keys, values, times = [], [], []
    for key, value, time in zip(stream.keys, stream.values, stream.times.tolist(), strict=True):
        row = change(msgspec.json.decode(value)) if _BEGINS <= time < _ENDS else ...
        if row is None:
            continue
        keys.append(key)
        times.append(time)
        values.append(value if row is ... else msgspec.json.encode(row))
    return replace(stream, keys=keys, values=values, times=np.array(times, np.int64))


def _poisoned(streams: Streams) -> Streams:
    """Who was on time counts as late, and the other way round."""
    return {**streams, "arrivals": _during(streams["arrivals"], lambda row: row | {"arr_delay": 29 - row["arr_delay"]})}  # type: ignore[operator]


def _in_km(streams: Streams) -> Streams:
    return {**streams, "flights": _during(streams["flights"], lambda row: row | {"distance": row["distance"] * _KM})}  # type: ignore[operator]


def _missing(streams: Streams) -> Streams:
    """The feed of departures is down: every aggregate over it is empty."""
    return {**streams, "departures": _during(streams["departures"], lambda _row: None)}


def _landings(streams: Streams) -> EventStream:
    """Arrivals with the time in the air, minutes."""
    departed = {
        row["flight_id"]: datetime.fromisoformat(row["departed_at"])
        for row in map(msgspec.json.decode, streams["departures"].values)
    }
    values = []
    for value in streams["arrivals"].values:
        row = msgspec.json.decode(value)
        flown: timedelta = datetime.fromisoformat(row["landed_at"]) - departed[row["flight_id"]] - TAXIING
        row["air_time"] = round(flown.total_seconds() / 60)
        values.append(msgspec.json.encode({name: row[name] for name in ("flight_id", "landed_at", "air_time")}))
    return replace(streams["arrivals"], topic="landings", values=values)


_LATE: Final = {"pipeline": "late.py", "labels": "arrivals", "side": ("departures",)}
_AIR: Final = {"pipeline": "air_time.py", "labels": "landings", "side": ()}
FAULTS: Final = (
    Fault(name="none, late", changed=lambda streams: streams, **_LATE),  # type: ignore[arg-type]
    Fault(name="labels flipped", changed=_poisoned, **_LATE),  # type: ignore[arg-type]
    Fault(name="a feed is down", changed=_missing, **_LATE),  # type: ignore[arg-type]
    Fault(name="none, air time", changed=lambda streams: streams, **_AIR),  # type: ignore[arg-type]
    Fault(name="miles become km", changed=_in_km, **_AIR),  # type: ignore[arg-type]
)
