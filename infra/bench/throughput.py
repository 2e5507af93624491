"""contenders, in turn, round after round → how many times as fast is headrace? Ratios are made within one round."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from headrace.infra.bench.contender import Contender, Program, echo
from headrace.infra.bench.drain import Drained
from headrace.infra.bench.flights import Flights
from headrace.infra.bench.headrace_worker import Headrace
from headrace.infra.bench.peers import PEERS
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.session import Measured, Session
from headrace.models.errors import HeadraceError, ServerMissing

HEADRACE: Final = "headrace"
ONCE: Final = " exactly once"
HEADRACE_ONCE: Final = HEADRACE + ONCE
ECHO, FLIGHTS = "echo", "headrace flights"
_PREDICTION_BYTES: Final = 220  # what the echo writes, where headrace did not run before it
_FEWEST_FLIGHTS: Final = 300_000
_SLOW: Final = {"faust": 20}  # where time is short, it gets one event in so many: still several seconds of work


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A target: so many times the rate of another contender in the same round."""

    name: str
    of: str
    over: str
    target: float


RATIOS: Final = (
    Ratio(name="echo", of=HEADRACE, over=ECHO, target=0.5),
    Ratio(name="exactly_once", of=HEADRACE_ONCE, over=HEADRACE, target=0.85),
    Ratio(name="kafka_streams", of=HEADRACE, over="kafka-streams", target=4),
    Ratio(name="kafka_streams_exactly_once", of=HEADRACE_ONCE, over="kafka-streams" + ONCE, target=4),
    Ratio(name="bytewax", of=HEADRACE, over="bytewax", target=3),
    Ratio(name="quix_streams", of=HEADRACE, over="quix-streams", target=6),
    Ratio(name="faust", of=HEADRACE, over="faust", target=90),
    Ratio(name="flights", of=FLIGHTS, over=HEADRACE, target=0.4),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender, and how many of the events it gets: a slow one needs fewer for the same precision."""

    contender: Contender
    events: int


class Entries:
    """Who takes part. Contenders live for all rounds: the flights train their model once."""

    def __init__(self, home: Path, events: int, *, quick: bool) -> None:
        """`home` is where peers are installed."""
        self._home, self._events, self._quick = home, events, quick
        self._peers = {peer.name: peer for peer in PEERS}
        self._flights = Flights(name=FLIGHTS)

    def entry(self, name: str, tally: "Tally") -> Entry:
        """Raises ServerMissing where it is not installed."""
        if name == FLIGHTS:
            return Entry(contender=self._flights, events=max(_FEWEST_FLIGHTS, self._events * 3 // 10))
        if name == ECHO:
            size = round(tally.record_bytes(HEADRACE) or _PREDICTION_BYTES)
            return Entry(contender=echo(size), events=self._events)
        if name in (HEADRACE, HEADRACE_ONCE):
            return Entry(contender=Headrace(name=name, exactly_once=name == HEADRACE_ONCE), events=self._events)
        return self._peer(name)

    def _peer(self, name: str) -> Entry:
        peer = self._peers[name.removesuffix(ONCE)]
        command = peer.command(self._home)
        if command is None:
            raise ServerMissing(f"{peer.title} is not installed. Run: headrace dev bench --install-peers")
        contender = Program(name=name, command=command, exactly_once=name.endswith(ONCE))
        return Entry(contender=contender, events=self._events // (_SLOW.get(peer.name, 1) if self._quick else 1))


@dataclass(kw_only=True)
class Tally:
    """What the rounds came to, by contender."""

    runs: dict[str, list[Measured | None]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # why a contender has a round without a figure

    def rate(self, contender: str, number: int) -> float | None:
        """None where that round's run did not end well, or did not deliver what it should."""
        one = self.runs[contender][number]
        return one.run.rate if one is not None and one.verdict.ok and one.run.committed else None

    def record_bytes(self, contender: str) -> float | None:
        sizes = [one.verdict.record_bytes for one in self.runs.get(contender, []) if one is not None]
        return median(sizes) if sizes else None


def throughput(session: Session, entries: Entries, *, rounds: int, only: Collection[str]) -> list[Row]:
    """One row per ratio; `only` names rows."""
    wanted = [ratio for ratio in RATIOS if ratio.name in only]
    names = list(dict.fromkeys(name for ratio in wanted for name in (ratio.of, ratio.over)))
    names.sort(key=lambda name: name != HEADRACE)  # first: the echo writes as many bytes as it does
    tally = Tally()
    for number in range(rounds):
        for name in names:
            session.say(f"round {number + 1} of {rounds}: {name}")
            tally.runs.setdefault(name, []).append(_run(session, entries, tally, name))
    return [_row(ratio, tally, rounds) for ratio in wanted]


def _run(session: Session, entries: Entries, tally: Tally, name: str) -> Measured | None:
    if name in tally.reasons:  # what failed once is not tried again
        return None
    try:
        entry = entries.entry(name, tally)
        found = session.measure(entry.contender, entry.events)
    except HeadraceError as error:
        tally.reasons[name] = str(error)
        session.say(f"{name}: {error}")
        return None
    if not found.verdict.ok:
        tally.reasons[name] = "; ".join(found.verdict.faults)
    elif not found.run.committed:
        tally.reasons[name] = "its group's offsets never reached the end"
    return found


def _row(ratio: Ratio, tally: Tally, rounds: int) -> Row:
    pairs = [(tally.rate(ratio.of, number), tally.rate(ratio.over, number)) for number in range(rounds)]
    detail: dict[str, Any] = {name: _figures(tally.runs[name]) for name in (ratio.of, ratio.over)}
    if reasons := [f"{name}: {tally.reasons[name]}" for name in (ratio.of, ratio.over) if name in tally.reasons]:
        detail["skipped"] = "; ".join(reasons)
    runs = [of / over for of, over in pairs if of is not None and over is not None]
    return Row(name=ratio.name, target=ratio.target, runs=runs, detail=detail)


def _figures(found: Sequence[Measured | None]) -> Mapping[str, Any]:
    """Medians of what was measured."""
    measured = [one for one in found if one is not None]
    if not measured:
        return {}
    runs, verdicts = [one.run for one in measured], [one.verdict for one in measured]

    def middle(of: Callable[[Drained], float]) -> float:
        return rounded(median([of(run) for run in runs]))

    return {
        "events": runs[0].events,
        "events_per_second": middle(lambda run: run.rate),
        "events_per_second_with_warm_up": middle(lambda run: run.whole_rate),
        "rates": [rounded(run.rate) for run in runs],
        "cpu_seconds_per_million": middle(lambda run: run.worker_cpu),
        "server_cpu_seconds_per_million": {
            server: middle(lambda run, server=server: run.server_cpu[server])  # type: ignore[misc]
            for server in runs[0].server_cpu
        },
        "others_cores": middle(lambda run: run.others_cores),
        "peak_rss_mb": middle(lambda run: run.peak_rss / 1e6),
        "record_bytes": rounded(median([verdict.record_bytes for verdict in verdicts])),
        "worst_score_difference": max(verdict.worst_difference for verdict in verdicts),
    }
