"""`headrace dev bench`: servers, groups of rows one after the other, then JSON, table and plot."""

import fnmatch
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

from rich.console import Console

from headrace.infra.bench import heavy, scale, training
from headrace.infra.bench.contender import MODEL
from headrace.infra.bench.latency import COMPARISONS, latency
from headrace.infra.bench.peers import PEERS, SERVERS, Peer, install
from headrace.infra.bench.plot import plotted
from headrace.infra.bench.report import Row, as_json, remark, table
from headrace.infra.bench.serve import compare, load, stream_beside
from headrace.infra.bench.serve.headrace_serve import headrace_server
from headrace.infra.bench.serve.peer_servers import peer_servers
from headrace.infra.bench.session import Say, Session, opened
from headrace.infra.bench.swaps import TARGETS as SWAPS
from headrace.infra.bench.swaps import swaps
from headrace.infra.bench.sweep import ROW as SWEEP
from headrace.infra.bench.sweep import TARGET as SWEPT
from headrace.infra.bench.sweep import sweep
from headrace.infra.bench.throughput import RATIOS, Entries, throughput
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, ServerMissing

_DATASET_ROWS = 2_000_000
_PICTURES, _PICTURES_QUICK = 6_000, 3_000  # a few hundred a second, 49 kB each


@dataclass(frozen=True, kw_only=True)
class Options:
    home: Path  # where peers are installed
    install_peers: bool = False
    quick: bool = False
    events: int | None = None
    runs: int | None = None
    only: Collection[str] = ()
    json: Path | None = None
    plot: Path | None = None

    @property
    def event_count(self) -> int:
        return self.events or (500_000 if self.quick else 1_000_000)

    @property
    def rounds(self) -> int:
        return self.runs or 3


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are measured together. `measure` gets only those names that are its own, at least one."""

    targets: Mapping[str, float]  # by row
    measure: Callable[[Session, Options, Collection[str]], list[Row]]
    reports: Sequence[str] = ()  # measured without a target: they go to the session's reports
    in_quick: bool = True
    peers: Sequence[Peer] = ()  # what `--install-peers` installs
    tools: Sequence[Callable[[Path, Say], None]] = ()  # as above: each gets the home, and raises ServerMissing

    @property
    def names(self) -> list[str]:
        return [*self.targets, *self.reports]

    def measured(self, session: Session, options: Options, names: Collection[str]) -> list[Row]:
        """A failure is that of its own rows: it must not cost the hour that others took."""
        try:
            return self.measure(session, options, names)
        except Exception as error:  # noqa: BLE001  as said above
            reason = f"{type(error).__name__}: {error}"
            session.say(reason)
            targets = {name: target for name, target in self.targets.items() if name in names}
            return [
                Row(name=name, target=target, runs=[], detail={"skipped": reason}) for name, target in targets.items()
            ]


def _throughput(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    session.reports["tuning"] = {peer.title: peer.tuning for peer in PEERS}
    return throughput(session, _entries(options), rounds=options.rounds, only=names)


def _by_events(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    return scale.by_events(session, rounds=options.rounds, names=names)


def _by_workers(session: Session, _options: Options, _names: Collection[str]) -> list[Row]:
    scale.by_workers(session)
    return []


def _heavy(session: Session, options: Options, _names: Collection[str]) -> list[Row]:
    return heavy.heavy(session, events=_PICTURES_QUICK if options.quick else _PICTURES, rounds=options.rounds)


def _entries(options: Options) -> Entries:
    return Entries(options.home, options.event_count, quick=options.quick)


def _latency(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    return latency(session, _entries(options), rounds=options.rounds, names=names)


def _sweep(session: Session, options: Options, _names: Collection[str]) -> list[Row]:
    return [sweep(session, _entries(options))]


def _swaps(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    return swaps(session, _entries(options), rounds=options.rounds, names=names)


def _dataset(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    settings = session.settings.model_copy(update={"prefix": session.settings.prefixed("dataset.")})
    settings.home.mkdir(parents=True, exist_ok=True)
    return training.rows(settings, options.events or _DATASET_ROWS, names)


def _serve(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    session.reports["tuning_of_servers"] = {peer.title: peer.tuning for peer in SERVERS}
    model = session.settings.home / MODEL
    model.write_bytes(session.graph)
    servers = [headrace_server(session), *peer_servers(options.home, model)]
    return compare.compare(session, load.found(options.home), servers, rounds=options.rounds, names=names)


def _stream_beside(session: Session, options: Options, names: Collection[str]) -> list[Row]:
    generators = load.found(options.home)
    return stream_beside.stream_beside(session, generators, rounds=options.rounds, names=names)


GROUPS: Final = (
    Group(targets={ratio.name: ratio.target for ratio in RATIOS}, measure=_throughput, peers=PEERS),
    Group(targets={heavy.ROW: heavy.TARGET}, measure=_heavy),
    Group(targets={row.name: row.target for row in COMPARISONS}, measure=_latency, in_quick=False, peers=PEERS),
    Group(targets={SWEEP: SWEPT}, measure=_sweep, in_quick=False, peers=PEERS),
    Group(targets=SWAPS, measure=_swaps, in_quick=False),
    Group(targets=training.TARGETS, measure=_dataset, in_quick=False),
    Group(targets={scale.COST: scale.FLAT, scale.MEMORY: scale.FLAT}, measure=_by_events, in_quick=False),
    Group(targets=compare.TARGETS, measure=_serve, in_quick=False, peers=SERVERS, tools=[load.install]),
    Group(targets=stream_beside.TARGETS, measure=_stream_beside, in_quick=False, tools=[load.install]),
    Group(targets={}, reports=["workers"], measure=_by_workers, in_quick=False),
)


def run_bench(settings: Settings, options: Options, console: Console) -> dict[str, Any]:
    """`console` should be standard error: standard output is for the caller's result."""
    known = [name for group in GROUPS for name in group.names]
    if unknown := [pattern for pattern in options.only if not fnmatch.filter(known, pattern)]:
        raise BadInput(f"--only: expected some of {', '.join(known)}; got {', '.join(unknown)}.")
    wanted = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in options.only)]
    chosen = [
        (group, names)
        for group in GROUPS
        if (names := [name for name in group.names if name in wanted or not wanted])
        and (wanted or group.in_quick or not options.quick)
    ]

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False, soft_wrap=True)

    if options.install_peers:
        _install(options.home, [group for group, _ in chosen], say)
    begun, rows = monotonic(), list[Row]()
    with opened(settings, say) as session:
        for group, names in chosen:
            rows += group.measured(session, options, names)
        found = as_json(rows, session, monotonic() - begun)
    console.print(table(rows))
    console.print(remark(found), style="dim", markup=False, soft_wrap=True)
    if options.plot is not None:
        options.plot.write_text(plotted(rows), encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def _install(home: Path, groups: Sequence[Group], say: Callable[[str], None]) -> None:
    """Those that can be: the row of one that cannot says that it is not there."""
    peers = dict.fromkeys(peer for group in groups for peer in group.peers)
    installs: list[Callable[[Path, Say], None]] = [partial(install, peer) for peer in peers]
    for put_there in (*installs, *dict.fromkeys(tool for group in groups for tool in group.tools)):
        try:
            put_there(home, say)
        except ServerMissing as error:
            say(str(error))
