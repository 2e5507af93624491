"""contenders under a steady load, in turn, round after round → how much later is headrace, and by how much with
exactly once? Figures are held against each other within one round."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from headrace.infra.bench.contender import Contender
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.serving import Loaded, serving
from headrace.infra.bench.session import Session
from headrace.infra.bench.throughput import ECHO, HEADRACE, HEADRACE_ONCE, Entries, Tally
from headrace.models.errors import HeadraceError

FAUST: Final = "faust"
SECONDS: Final = 20.0
_WARM_RATE, _WARM_SECONDS = 4_000.0, 20.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """`watched`: by a subscriber of committed records, who sees a prediction when it is his."""

    rate: float
    watched: bool = False

    @property
    def name(self) -> str:
        return f"{self.rate:.0f}/s{', as a subscriber sees it' if self.watched else ''}"


Figures = Mapping[str, Any]  # of one load, as they stand in the result


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row: one contender's figures held against another's, under the same load in the same round."""

    name: str
    of: str
    over: str
    load: Load
    figure: Callable[[Figures, Figures], float]
    target: float
    unit: str


_AT_2000, _AT_200, _SEEN = Load(rate=2_000), Load(rate=200), Load(rate=2_000, watched=True)


def _ratio(of: Figures, over: Figures, *percentiles: str) -> float:
    return max(float(of[name] / over[name]) for name in percentiles)


def _difference(of: Figures, over: Figures, *percentiles: str) -> float:
    return max(float(of[name] - over[name]) for name in percentiles)


COMPARISONS: Final = (
    Comparison(
        name="latency_p50_2000",
        of=HEADRACE,
        over=ECHO,
        load=_AT_2000,
        figure=lambda of, over: _ratio(of, over, "p50_ms"),
        target=1.5,
        unit="x",
    ),
    Comparison(
        name="latency_p99_2000",
        of=HEADRACE,
        over=ECHO,
        load=_AT_2000,
        figure=lambda of, over: _difference(of, over, "p99_ms"),
        target=5,
        unit="ms",
    ),
    Comparison(  # never worse: neither at the median nor at the 99th percentile
        name="latency_200_vs_faust",
        of=HEADRACE,
        over=FAUST,
        load=_AT_200,
        figure=lambda of, over: _ratio(of, over, "p50_ms", "p99_ms"),
        target=1,
        unit="x",
    ),
    Comparison(
        name="eos_added_latency",
        of=HEADRACE_ONCE,
        over=HEADRACE,
        load=_SEEN,
        figure=lambda of, over: _difference(of, over, "p50_ms", "p99_ms"),
        target=200,
        unit="ms",
    ),
)


def latency(
    session: Session, entries: Entries, *, rounds: int, names: Collection[str], seconds: float = SECONDS
) -> list[Row]:
    """`names` of rows; `seconds` of each load."""
    wanted = [comparison for comparison in COMPARISONS if comparison.name in names]
    found = _Found(session, entries, seconds)
    warm(session, entries)
    for number in range(rounds):
        session.say(f"round {number + 1} of {rounds}: latency")
        for name in (ECHO, HEADRACE, HEADRACE_ONCE, FAUST):
            loads = [row.load for row in wanted if name in (row.of, row.over)]
            found.run(name, list(dict.fromkeys(loads)))
    return [found.row(comparison, rounds) for comparison in wanted]


def contender(entries: Entries, name: str) -> Contender:
    """Raises HeadraceError where it is not installed."""
    return entries.entry(name, Tally()).contender


def warm(session: Session, entries: Entries) -> None:
    """A broker that has just begun compiles its own code: nobody is measured meanwhile."""
    session.say("warming the broker")
    with serving(session, contender(entries, ECHO)) as served:
        served.load(_WARM_RATE, _WARM_SECONDS)


def figures(loaded: Loaded, *, seen: bool = False) -> Figures:
    """Milliseconds are None where an event was never answered."""
    took = loaded.latencies(seen=seen)
    return {
        **{f"{name}_ms": rounded(ms) if isfinite(ms) else None for name, ms in took.percentiles.items()},
        "unanswered": took.unanswered,
        "generator_late_ms": {name: rounded(late) for name, late in loaded.sent.late_ms.items()},
        "cores": {name: rounded(cores) for name, cores in loaded.cores.items()},
    }


class _Found:
    """Figures by contender and load, one per round, and why there are none."""

    def __init__(self, session: Session, entries: Entries, seconds: float) -> None:
        self._session, self._entries, self._seconds = session, entries, seconds
        self._reasons: dict[str, str] = {}
        self._figures = defaultdict[tuple[str, Load], list[Figures | None]](list)

    def run(self, name: str, loads: Sequence[Load]) -> None:
        """One start of a contender, its loads one after the other, then its verifier."""
        found: dict[Load, Figures] = {}
        if loads and name not in self._reasons:  # what failed once is not tried again
            try:
                found = self._loaded(contender(self._entries, name), loads)
            except HeadraceError as error:
                self._reasons[name] = str(error)
                self._session.say(f"{name}: {error}")
        for load in loads:
            self._figures[name, load].append(found.get(load))

    def _loaded(self, who: Contender, loads: Sequence[Load]) -> dict[Load, Figures]:
        events, found = 1 + sum(round(load.rate * self._seconds) for load in loads), {}
        with serving(self._session, who, events) as served:
            for load in loads:
                loaded = served.load(load.rate, self._seconds, watched=load.watched)
                found[load] = figures(loaded, seen=load.watched)
                self._session.say(f"{who.name} at {load.name}: {loaded.latencies(seen=load.watched)}")
        verdict = served.started.verify()
        if not verdict.ok:
            raise HeadraceError("; ".join(verdict.faults))
        return found

    def row(self, row: Comparison, rounds: int) -> Row:
        found = {name: self._figures[name, row.load] for name in (row.of, row.over)}
        detail: dict[str, Any] = {"load": row.load.name} | found
        if reasons := [f"{name}: {self._reasons[name]}" for name in found if name in self._reasons]:
            detail["skipped"] = "; ".join(reasons)
        pairs = [(found[row.of][number], found[row.over][number]) for number in range(rounds)]
        runs = [row.figure(of, over) for of, over in pairs if of is not None and over is not None]
        return Row(name=row.name, target=row.target, runs=runs, unit=row.unit, better="lower", detail=detail)
