"""servers, in turn, round after round → requests a second at full load, and p50 and p99 at one rate for all.

Each server is first tried in each of its settings, and takes part in the fastest. The rate is half of what the slowest
then answered. In each round a server is started anew, must answer right, is warmed, loaded as fast as it answers over
1, 16 and 64 connections, then at the rate; every other round goes from the last server to the first. Ratios are made
within one round.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, Final, Literal

from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.serve import load
from headrace.infra.bench.serve.headrace_serve import HEADRACE
from headrace.infra.bench.serve.load import Answered, Generators
from headrace.infra.bench.serve.servers import Questions, Running, Server, answering
from headrace.infra.bench.session import Session
from headrace.infra.bench.trees import machine_cpu
from headrace.models.errors import HeadraceError

PEERS: Final = ("mlserver", "bentoml", "litserve")
RATES: Final = {f"serve_rate_{peer}": peer for peer in PEERS}
TAILS: Final = {f"serve_p99_{peer}": peer for peer in PEERS}
TARGETS: Final = {**dict.fromkeys(RATES, 3.0), **dict.fromkeys(TAILS, 1.0)}
_CONNECTIONS: Final = (1, 16, 64)
_MOST: Final = _CONNECTIONS[-1]
_SHARE: Final = 0.5  # of what the slowest answers: the rate at which waits are compared
_SECONDS: Final = 6.0
_WARM_SECONDS: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One load, and what the server's processes took for it."""

    answered: Answered
    server_cpu: float  # seconds per 1000 requests
    server_cores: float
    others_cores: float  # of everybody but server and generator: whoever disturbed

    def as_json(self) -> dict[str, Any]:
        return {
            "requests_per_second": rounded(self.answered.rate),
            "p50_ms": rounded(self.answered.p50_ms),
            "p99_ms": rounded(self.answered.p99_ms),
            "refused": self.answered.refused,
            "failed": self.answered.failed,
            "cpu_seconds_per_1000": rounded(self.server_cpu),
            "server_cores": rounded(self.server_cores),
            "generator_cores": rounded(self.answered.cpu_seconds / self.answered.seconds),
            "others_cores": rounded(self.others_cores),
        }


@dataclass(kw_only=True)
class Side:
    """A server in its fastest setting, and what its rounds came to: None for one that did not end well."""

    server: Server
    setting: str = ""
    tried: dict[str, float] = field(default_factory=dict)  # requests a second, by setting
    speeds: list[Mapping[int, Cost] | None] = field(default_factory=list)  # by connections
    waits: list[Cost | None] = field(default_factory=list)
    reason: str = ""  # why there is no figure

    @property
    def options(self) -> Sequence[str]:
        return self.server.settings[self.setting]

    def as_json(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "tried": self.tried,
            "at_full_load": [
                None
                if one is None
                else {f"{connections} connections": cost.as_json() for connections, cost in one.items()}
                for one in self.speeds
            ],
            "at_the_rate": [None if one is None else one.as_json() for one in self.waits],
        }


class Comparison:
    def __init__(self, session: Session, generators: Generators, *, seconds: float = _SECONDS) -> None:
        self._session, self._generators, self._seconds = session, generators, seconds
        self._questions = Questions(session.graph)
        self._starts = count(1)

    def tune(self, side: Side) -> None:
        """Finds the setting with the most requests a second. One that does not start has none."""
        for setting, options in side.server.settings.items():
            try:
                with self._started(side.server, options) as running:
                    cost = self._loaded(running, connections=_MOST)
            except HeadraceError as error:
                side.reason = str(error)
                self._session.say(f"{side.server.name}, {setting}: {error}")
                continue
            side.tried[setting] = rounded(cost.answered.rate)
            self._say(f"{side.server.name}, {setting}", cost)
        if side.tried:
            side.setting, side.reason = max(side.tried, key=side.tried.__getitem__), ""

    def run(self, side: Side, rate: float) -> None:
        """One round."""
        speeds, wait = None, None
        if not side.reason:  # what failed once is not tried again
            try:
                with self._started(side.server, side.options) as running:
                    speeds = {number: self._loaded(running, connections=number) for number in _CONNECTIONS}
                    wait = self._loaded(running, connections=_MOST, rate=rate)
                self._say(f"{side.server.name}, {_MOST} connections", speeds[_MOST])
                self._say(f"{side.server.name}, {rate:.0f} a second", wait)
            except HeadraceError as error:
                side.reason = str(error)
                self._session.say(f"{side.server.name}: {error}")
        side.speeds.append(speeds)
        side.waits.append(wait)

    @contextmanager
    def _started(self, server: Server, options: Sequence[str]) -> Iterator[Running]:
        """Warm."""
        folder = self._session.settings.home / f"serve-{next(self._starts):03}-{server.name}"
        with answering(server, options, folder, self._questions) as running:
            load.at_full_speed(self._generators, running.url, running.bodies, connections=_MOST, seconds=_WARM_SECONDS)
            yield running

    def _loaded(self, running: Running, *, connections: int, rate: float | None = None) -> Cost:
        before, machine = running.tree.cpu_seconds(), machine_cpu()
        begun = monotonic()
        answered = (
            load.at_full_speed(
                self._generators, running.url, running.bodies, connections=connections, seconds=self._seconds
            )
            if rate is None
            else load.at_rate(
                self._generators, running.url, running.bodies, rate=rate, connections=connections, seconds=self._seconds
            )
        )
        elapsed, server = monotonic() - begun, running.tree.cpu_seconds() - before
        others = machine_cpu() - machine - server - answered.cpu_seconds
        return Cost(
            answered=answered,
            server_cpu=server / max(1, answered.requests) * 1e3,
            server_cores=server / elapsed,
            others_cores=max(0.0, others) / elapsed,
        )

    def _say(self, what: str, cost: Cost) -> None:
        answered = cost.answered
        wrong = f"; {answered.refused} refused, {answered.failed} failed" if answered.refused + answered.failed else ""
        self._session.say(
            f"{what}: {answered.rate:,.0f} requests/s, p50 {answered.p50_ms:.1f} ms, p99 {answered.p99_ms:.1f} ms,"
            f" {cost.server_cpu:.2f} CPU s per 1,000; others took {cost.others_cores:.1f} cores{wrong}"
        )


def compare(
    session: Session, generators: Generators, servers: Sequence[Server], *, rounds: int, names: Collection[str]
) -> list[Row]:
    """One row per name; figures of all servers go to the session's reports."""
    wanted = {HEADRACE, *(peer for row, peer in (RATES | TAILS).items() if row in names)}
    comparison = Comparison(session, generators)
    sides = {server.name: Side(server=server) for server in servers if server.name in wanted}
    for side in sides.values():
        comparison.tune(side)
    able = [side for side in sides.values() if not side.reason]
    rate = _SHARE * min((side.tried[side.setting] for side in able), default=0.0)
    for number in range(rounds):
        session.say(f"round {number + 1} of {rounds}: requests")
        for side in able if number % 2 == 0 else reversed(able):
            comparison.run(side, rate)
    session.reports["serve"] = {
        "rate_of_waits": rounded(rate),
        "servers": {name: side.as_json() for name, side in sides.items()},
    }
    ours = sides[HEADRACE]
    return [_row(name, ours, sides[peer], _speed, "higher") for name, peer in RATES.items() if name in names] + [
        _row(name, ours, sides[peer], _tail, "lower") for name, peer in TAILS.items() if name in names
    ]


def _speed(side: Side, number: int) -> float | None:
    found = side.speeds[number] if number < len(side.speeds) else None
    return None if found is None else found[_MOST].answered.rate


def _tail(side: Side, number: int) -> float | None:
    found = side.waits[number] if number < len(side.waits) else None
    return None if found is None else found.answered.p99_ms


def _row(
    name: str,
    ours: Side,
    theirs: Side,
    figure: Callable[[Side, int], float | None],
    better: Literal["higher", "lower"],
) -> Row:
    found = [
        (figure(ours, number), figure(theirs, number)) for number in range(max(len(ours.speeds), len(theirs.speeds)))
    ]
    detail: dict[str, Any] = {
        side.server.name: [pair[place] for pair in found] for place, side in enumerate((ours, theirs))
    }
    if reasons := [f"{side.server.name}: {side.reason}" for side in (ours, theirs) if side.reason]:
        detail["skipped"] = "; ".join(reasons)
    runs = [of / over for of, over in found if of is not None and over is not None]
    return Row(name=name, target=TARGETS[name], runs=runs, better=better, detail=detail)
