"""a rate, doubled until the answers come too late → the highest one that each contender takes, and the curve there."""

from collections.abc import Callable
from math import sqrt
from typing import Any, Final

from headrace.infra.bench.contender import Contender
from headrace.infra.bench.latency import FAUST, Figures, contender, figures, warm
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.serving import Serving, serving
from headrace.infra.bench.session import Session
from headrace.infra.bench.throughput import ECHO, HEADRACE, HEADRACE_ONCE, Entries
from headrace.models.errors import ServerMissing

ROW: Final = "latency_sweep"
LIMIT_MS: Final = 50.0  # at the 99th percentile
TARGET: Final = 50.0
_FIRST_RATE, _LAST_RATE = 250.0, 256_000.0  # events a second
_SENT: Final = 0.97  # of a rate, that the generator has to reach
_HALVINGS: Final = 3  # of the last factor of two: the rate is right to 9 %
_TRIES: Final = 2  # a machine has other things to do, too


def sweep(session: Session, entries: Entries, *, seconds: float = 6.0) -> Row:
    """`seconds` of load at each rate. The curves are in the session's reports."""
    warm(session, entries)
    curves, detail = dict[str, list[Figures]](), dict[str, Any]()
    for name in (ECHO, HEADRACE, HEADRACE_ONCE, FAUST):
        session.say(f"sweep: {name}")
        try:
            who = contender(entries, name)
        except ServerMissing as error:
            detail["skipped"] = f"{name}: {error}"
            continue
        with serving(session, who) as served:
            curves[name] = climbed(_measure(session, served, who, seconds))
    session.reports[ROW] = curves
    highest = {
        name: max((one["rate"] for one in points if one["in_time"]), default=0) for name, points in curves.items()
    }
    runs = [highest[HEADRACE] / highest[FAUST]] if highest.get(FAUST) else []
    detail |= {"highest_rates": highest, "limit_ms": LIMIT_MS}
    return Row(name=ROW, target=TARGET, runs=runs, detail=detail)


def climbed(measure: Callable[[float], Figures]) -> list[Figures]:
    """What was measured, by rising rate. A rate is lost after two tries."""
    points = list[Figures]()

    def in_time(rate: float) -> bool:
        for _ in range(_TRIES):
            points.append(measure(rate))
            if points[-1]["in_time"]:
                return True
        return False

    good, rate = 0.0, _FIRST_RATE
    while rate <= _LAST_RATE and in_time(rate):
        good, rate = rate, 2 * rate
    bad = rate
    for _ in range(_HALVINGS if rate <= _LAST_RATE else 0):
        middle = sqrt(good * bad) if good else bad / 2
        good, bad = (middle, bad) if in_time(middle) else (good, middle)
    return sorted(points, key=lambda one: float(one["rate"]))


def _measure(session: Session, served: Serving, who: Contender, seconds: float) -> Callable[[float], Figures]:
    def measure(rate: float) -> Figures:
        """Under exactly once a prediction counts when a subscriber of committed records has it."""
        loaded = served.load(rate, seconds, watched=who.exactly_once)
        took = loaded.latencies(seen=who.exactly_once)
        sent = loaded.sent.events / loaded.sent.seconds  # less, where the generator itself could not
        session.say(f"{who.name} at {sent:,.0f}/s: {took}")
        in_time = took.percentiles["p99"] <= LIMIT_MS and sent >= _SENT * rate
        return {"rate": rounded(sent), "in_time": in_time, **figures(loaded, seen=who.exactly_once)}

    return measure
