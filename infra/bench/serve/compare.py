"""servers, in turn, round after round → requests a second at full load, and p50 and p99 at one rate for all.

Each server is first tried in each of its settings, and takes part in the fastest. The rate is three tenths of what the
slowest then answered. Then all are started, must answer right, are warmed, and idle but for the one whose turn it is:
it is loaded as fast as it answers over 1, 16 and 64 connections, then at the rate. Turns are short, so that whoever
else uses the machine disturbs all alike; every other turn goes from the last server to the first. Ratios are made
within a turn.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from time import monotonic
from typing import Any, Final, Literal

from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.serve import load
from headrace.infra.bench.serve.headrace_serve import HEADRACE
from headrace.infra.bench.serve.load import Generators
from headrace.infra.bench.serve.servers import Questions, Running, Server, answering
from headrace.infra.bench.serve.sides import CONNECTIONS, MOST, Cost, Side
from headrace.infra.bench.session import Session
from headrace.infra.bench.trees import machine_cpu
from headrace.models.errors import HeadraceError

PEERS: Final = ("mlserver", "bentoml", "litserve")
RATES: Final = {f"serve_rate_{peer}": peer for peer in PEERS}
TAILS: Final = {f"serve_p99_{peer}": peer for peer in PEERS}
TARGETS: Final = {**dict.fromkeys(RATES, 3.0), **dict.fromkeys(TAILS, 1.0)}
_SHARE: Final = 0.3  # of what the slowest answers: the rate at which waits are compared, that all keep up with
_TURNS: Final = 2  # of a round
_SECONDS: Final = 3.0
_WARM_SECONDS: Final = 2.0


class Comparison:
    def __init__(self, session: Session, generators: Generators) -> None:
        self._session, self._generators = session, generators
        self._questions = Questions(session.graph)
        self._starts = count(1)

    def tune(self, side: Side) -> None:
        """Finds the setting with the most requests a second. One that does not start has none."""
        for setting, options in side.server.settings.items():
            try:
                with self._started(side.server, options) as running:
                    cost = self._loaded(running, connections=MOST)
            except HeadraceError as error:
                side.reason = str(error)
                self._session.say(f"{side.server.name}, {setting}: {error}")
                continue
            side.tried[setting] = rounded(cost.answered.rate)
            self._say(f"{side.server.name}, {setting}", cost)
        if side.tried:
            side.setting, side.reason = max(side.tried, key=side.tried.__getitem__), ""

    def rounds(self, sides: Sequence[Side], rounds: int, rate: float) -> None:
        with ExitStack() as stack:
            started = [(side, stack.enter_context(self._started(side.server, side.options))) for side in sides]
            for number in range(_TURNS * rounds):
                self._session.say(f"turn {number + 1} of {_TURNS * rounds}: requests")
                for side, running in started if number % 2 == 0 else reversed(started):
                    self._turn(side, running, rate)

    def _turn(self, side: Side, running: Running, rate: float) -> None:
        """What failed once is not tried again."""
        speeds, wait = None, None
        if not side.reason:
            try:
                speeds = {number: self._loaded(running, connections=number) for number in CONNECTIONS}
                wait = self._loaded(running, connections=MOST, rate=rate)
                self._say(f"{side.server.name}, {MOST} connections", speeds[MOST])
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
            load.at_full_speed(self._generators, running.url, running.bodies, connections=MOST, seconds=_WARM_SECONDS)
            yield running

    def _loaded(self, running: Running, *, connections: int, rate: float | None = None) -> Cost:
        before, machine = running.tree.cpu_seconds(), machine_cpu()
        begun = monotonic()
        answered = (
            load.at_full_speed(self._generators, running.url, running.bodies, connections=connections, seconds=_SECONDS)
            if rate is None
            else load.at_rate(
                self._generators, running.url, running.bodies, rate=rate, connections=connections, seconds=_SECONDS
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
    comparison.rounds(able, rounds, rate)
    session.reports["serve"] = {
        "rate_of_waits": rounded(rate),
        "servers": {name: side.as_json() for name, side in sides.items()},
    }
    ours = sides[HEADRACE]
    return [_row(name, ours, sides[peer], Side.rates, "higher") for name, peer in RATES.items() if name in names] + [
        _row(name, ours, sides[peer], Side.tails, "lower") for name, peer in TAILS.items() if name in names
    ]


def _row(
    name: str,
    ours: Side,
    theirs: Side,
    figures: Callable[[Side], list[float | None]],
    better: Literal["higher", "lower"],
) -> Row:
    both = (ours, theirs)
    detail: dict[str, Any] = {side.server.name: figures(side) for side in both}
    detail["cpu_seconds_per_1000"] = {side.server.name: side.cpu() for side in both}
    if reasons := [f"{side.server.name}: {side.reason}" for side in both if side.reason]:
        detail["skipped"] = "; ".join(reasons)
    pairs = zip(figures(ours), figures(theirs), strict=False)  # nothing at all of one that could not start
    runs = [of / over for of, over in pairs if of is not None and over is not None]
    return Row(name=name, target=TARGETS[name], runs=runs, better=better, detail=detail)
