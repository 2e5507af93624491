"""`headrace demo`: a year of real flights through real Kafka and Redis, with weekly retraining and hot swaps."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.demo.data import START, load_flights
from headrace.infra.demo.scoreboard import Frozen, Scoreboard, mean_from_february
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.local.servers import KAFKA, REDIS, LocalServers
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.supervisor import Supervisor
from headrace.infra.processes.together import running, serve_beside
from headrace.infra.replay import Replay, Rows, Slice, feature_store
from headrace.infra.services.changes.moves import ask
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import registry
from headrace.models.durations import iso, milliseconds, to_ms
from headrace.models.errors import BadInput
from headrace.models.session import Session

FILE = Path(__file__).with_name("flights.py")
_DAY_MS = 86_400_000
_FREEZE_AT = to_ms(START.replace(month=2))  # the end of January, New York time


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `--output json` prints. AUCs are means over months, from February on."""

    events: int
    predictions: int
    dead_letters: int
    labels_joined: int
    labels_open: int
    labels_never_came: int
    trainings: int
    versions_published: int
    promotions: int
    rejections: int
    swaps: int
    auc_live: float | None
    auc_frozen: float | None
    lost: int
    duplicated: int
    wall_seconds: float
    events_per_second: float


@dataclass(frozen=True, kw_only=True)
class Options:
    days: int | None = None
    speed: float | None = None  # event seconds a second; None for as fast as it goes
    longest: str = "1d"  # slices of event time
    workers: int = 1
    partitions: int = 1
    keep: bool = False
    keep_past: Path | None = None  # a folder for the dataset: what `headrace plan --past` reads


def run_demo(settings: Settings, options: Options, console: Console) -> Summary:
    """Sets up, replays, sums up. `console` should be standard error: standard output is for the caller's summary."""
    begun = time.monotonic()
    if options.keep_past is not None and options.keep_past.exists() and any(options.keep_past.iterdir()):
        raise BadInput(
            f"--keep-past: expected a folder that is empty or not there yet, got {str(options.keep_past)!r}."
        )
    file = read_pipelines(str(FILE))
    pipeline = one_of(file, FILE.name)
    with ExitStack() as stack:
        with console.status("reading the flights"):
            streams = load_flights(options.days)
        settings = stack.enter_context(_servers(settings, console))
        names, origin = Names(settings.prefix, pipeline), Origin(file=file, pipeline=pipeline)
        apply(settings, pipeline, options.partitions)
        processes = running(settings, [file], workers=options.workers, clock=False, started=to_ms(START))
        children = stack.enter_context(processes)
        console.print(f"Watch it: {serve_beside(children, [file])}/console", soft_wrap=True)
        store = feature_store(settings, names)
        replay = Replay(settings, names, store, children.check)
        stack.callback(replay.close)
        board = Scoreboard(settings, names)
        versions = _Versions(settings, names)
        rows = Rows(
            events=streams["flights"], labels=streams["arrivals"], side=[streams["departures"], streams["weather"]]
        )
        tally = _Tally()
        with _progress(console) as (bar, task):
            bar.update(task, total=math.ceil((rows.end - to_ms(START)) / _DAY_MS))
            longest = milliseconds("--slice", options.longest)
            for done in _paced(replay.run(rows, longest_ms=longest, start=to_ms(START)), options.speed):
                tally.take(done)
                board.poll()
                if done.end <= _FREEZE_AT < done.end + longest and (frozen := versions.champion()):
                    board.freeze(frozen)  # no swap falls between here and February: a tick would end a slice
                    why = "what a model that is never retrained would be worth"
                    ask(settings, origin, "alias", alias="frozen", version=frozen.version, why=why)
                note = _note(board, tally)
                bar.update(task, completed=(done.end - to_ms(START)) // _DAY_MS, note=note)
                if not console.is_terminal and done.finished is not None:  # a bar is nothing to a log file
                    console.print(f"{iso(done.end)}  {note}")
        board.poll()
        summary = _summary(board, tally, time.monotonic() - begun)
        _show(console, board, summary)
        if options.keep_past is not None:
            DatasetFiles(settings, names, options.keep_past).fetch()
        if options.keep:
            _keep_running(console, settings, children)
    return summary


@contextmanager
def _servers(settings: Settings, console: Console) -> Iterator[Settings]:
    """A broker and a Redis of this run's own, unless the environment names some; topics of this run alone.

    What the run wrote is deleted when it ends well; after a failure it stays, to be looked at.
    """
    stamp = f"demo-{time.time_ns() // 1_000_000}"
    home = settings.home / stamp
    own = settings.model_copy(update={"home": home, "prefix": f"{settings.prefix}{stamp}."})
    ours = tuple(
        name for name, url in ((KAFKA, settings.bootstrap_servers), (REDIS, settings.redis_url)) if url is None
    )
    try:
        with LocalServers(home, only=ours, report=console.print, temporary=True) as addresses:
            yield own.model_copy(
                update={
                    "bootstrap_servers": settings.bootstrap_servers or addresses.bootstrap_servers,
                    "redis_url": settings.redis_url or addresses.redis_url,
                }
            )
    except BaseException:
        console.print(f"The logs are in {home / 'logs'}.")
        raise
    shutil.rmtree(home)


class _Versions:
    """The registry, for the one question which version serves now."""

    def __init__(self, settings: Settings, names: Names) -> None:
        self._registry, self._name = KafkaRegistry(settings), names.pipeline.name
        self._versions = registry.Versions()

    def champion(self) -> Frozen | None:
        for value in self._registry.catch_up():
            self._versions.apply(registry.decode(value))
        promoted = self._versions.champion
        if promoted is None:
            return None
        manifest = self._registry.manifest(self._versions.published[promoted.version].manifest)
        session = Session(self._registry.onnx(manifest), manifest.schema)
        return Frozen(version=promoted.version, session=session, schema=manifest.schema)


@dataclass
class _Tally:
    events: int = 0
    trainings: int = 0
    promotions: int = 0
    rejections: int = 0
    version: int = 0

    def take(self, done: Slice) -> None:
        self.events += done.events
        finished = done.finished
        if finished is None or finished.outcome == "not_due":
            return
        self.trainings += finished.outcome in ("promoted", "rejected")
        self.promotions += finished.outcome == "promoted"
        self.rejections += finished.outcome == "rejected"
        self.version = finished.version or self.version


def _paced(slices: Iterator[Slice], speed: float | None) -> Iterator[Slice]:
    """At `speed` event seconds a second; late slices are not slowed further."""
    begun, first = time.monotonic(), None
    for done in slices:
        first = done.start if first is None else first
        if speed is not None:
            time.sleep(max(0.0, begun + (done.end - first) / 1000 / speed - time.monotonic()))
        yield done


def _note(board: Scoreboard, tally: _Tally) -> str:
    live, frozen = mean_from_february(board.monthly()) if board.frozen else (math.nan, math.nan)
    auc = "" if math.isnan(live) else f"  AUC live {live:.3f}, frozen {frozen:.3f}"
    return f"{tally.events:,} flights  version {tally.version}  {tally.trainings} trainings{auc}"


@contextmanager
def _progress(console: Console) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("days"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield bar, bar.add_task("replay", total=None, note="")


def _summary(board: Scoreboard, tally: _Tally, seconds: float) -> Summary:
    live, frozen = mean_from_february(board.monthly())
    return Summary(
        events=tally.events,
        predictions=board.predictions,
        dead_letters=board.dead_letters,
        labels_joined=board.join.joined,
        labels_open=board.join.open,
        labels_never_came=board.join.never_came,
        trainings=tally.trainings,
        versions_published=tally.promotions,
        promotions=tally.promotions,
        rejections=tally.rejections,
        swaps=board.swaps,
        auc_live=None if math.isnan(live) else round(live, 4),
        auc_frozen=None if math.isnan(frozen) else round(frozen, 4),
        lost=board.lost(tally.events),
        duplicated=board.duplicated,
        wall_seconds=round(seconds, 1),
        events_per_second=round(tally.events / seconds, 1),
    )


def _show(console: Console, board: Scoreboard, summary: Summary) -> None:
    version = board.frozen.version if board.frozen else 0
    table = Table(title="AUC by month, of what was served, on labels that came later")
    for heading in ("month", "flights with a label", "live", f"version {version}, frozen"):
        table.add_column(heading, justify="right")
    for month, (rows, live, frozen) in board.monthly().items():
        table.add_row(month, f"{rows:,}", f"{live:.3f}", "" if math.isnan(frozen) else f"{frozen:.3f}")
    console.print(table)
    facts = Table(show_header=False, box=None)
    for name, value in asdict(summary).items():
        shown = "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        facts.add_row(name.replace("_", " "), shown)
    console.print(facts)


def _keep_running(console: Console, settings: Settings, children: Supervisor) -> None:
    console.print(
        f"Everything keeps running. Kafka {settings.bootstrap_servers}, Redis {settings.redis_shown}, "
        f"prefix {settings.prefix!r}, logs in {settings.home / 'logs'}. Ctrl-C ends it."
    )
    try:
        while True:
            children.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping", style="dim")
