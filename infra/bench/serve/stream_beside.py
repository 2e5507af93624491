"""a worker on a stream, and `headrace serve` asked by ten times as many as fill it → does the stream notice?

The stream's p99 while the requests come, over its p99 while nobody asks. Machines are not quiet: many short turns, each
of which measures all of it one after the other in another order, and the median of the turns with its interval. A
server that is full answers, or refuses, as fast as it can: no generator on the same two cores can send ten times that.
What can be had is ten times the connections, each of which asks again at once.

Broker, worker, servers and both generators share the cores. `ROW` is `headrace serve` as it comes, `NICE` one that
gives way as much as it can. The requests' generator does so, too: it stands for clients on machines of their own.
"""

import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import comb
from threading import Event
from typing import Any, Final

from headrace.infra.bench.headrace_worker import Headrace
from headrace.infra.bench.latency import figures
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.serve import load
from headrace.infra.bench.serve.headrace_serve import beside
from headrace.infra.bench.serve.load import Answered, Generators
from headrace.infra.bench.serve.servers import Questions, Running, answering
from headrace.infra.bench.serving import Loaded, Serving, serving
from headrace.infra.bench.session import Session
from headrace.trainer.priority import let_session_give_way

ROW, NICE = "serve_stream_p99", "serve_stream_p99_nice"
TARGETS: Final = {ROW: 1.1, NICE: 1.1}
_LEAST: Final = 19  # nice(1): the least of a core that one can ask for
_FULL: Final = 64  # connections: more of them are answered no faster
_TIMES: Final = 10
_RATE: Final = 2_000.0  # events a second
_SECONDS: Final = 6.0
_WARM_SECONDS: Final = 30.0  # a broker is some 20 s old before its compiler has done most of its work
_RISE_SECONDS: Final = 1.0
_TURNS: Final = 4  # in a round
_COVERED: Final = 0.95


_OPTIONS: Final[dict[str, Sequence[str]]] = {ROW: (), NICE: ("--nice", "19")}


def stream_beside(session: Session, generators: Generators, *, rounds: int, names: Collection[str]) -> list[Row]:
    ways = {name: options for name, options in _OPTIONS.items() if name in names}
    with serving(session, Headrace()) as served, ExitStack() as stack:
        served.load(_RATE, _WARM_SECONDS)
        servers = {}
        for name, options in ways.items():
            asked = answering(beside(served.started), options, session.settings.home / name, Questions(session.graph))
            servers[name] = stack.enter_context(asked)
        turns = [_turn(session, generators, served, servers, number) for number in range(rounds * _TURNS)]
    return [_row(name, turns) for name in ways]


@dataclass(frozen=True, kw_only=True)
class _Beside:
    stream: Loaded
    requests: Answered | None = None  # None: nobody asked


def _turn(
    session: Session, generators: Generators, served: Serving, servers: dict[str, Running], number: int
) -> dict[str, _Beside]:
    """By name; "" is alone. Each turn begins with the next of them."""
    names, found = ["", *servers], dict[str, _Beside]()
    first = number % len(names)
    for name in (*names[first:], *names[:first]):
        if not name:
            found[name] = _Beside(stream=served.load(_RATE, _SECONDS))
            continue
        with _overloaded(generators, servers[name]) as answered:
            stream = served.load(_RATE, _SECONDS)
        found[name] = _Beside(stream=stream, requests=answered[0])
    told = {name or "alone": f"{beside.stream.latencies().percentiles['p99']:.1f} ms" for name, beside in found.items()}
    session.say(f"turn {number + 1}, p99: " + ", ".join(f"{name} {p99}" for name, p99 in told.items()))
    return found


def _row(name: str, turns: Sequence[dict[str, _Beside]]) -> Row:
    runs, detail = list[float](), list[dict[str, Any]]()
    for turn in turns:
        alone, both = turn[""], turn[name]
        runs.append(both.stream.latencies().percentiles["p99"] / alone.stream.latencies().percentiles["p99"])
        said: dict[str, Any] = {"alone": figures(alone.stream), "beside_requests": figures(both.stream)}
        if both.requests is not None:
            said |= {
                "requests_per_second": rounded(both.requests.rate),
                "requests_refused": both.requests.refused,
                "requests_failed": both.requests.failed,
            }
        detail.append(said)
    low, high = interval_of_median(runs)
    interval = {"low": rounded(low), "high": rounded(high), "covers": _COVERED}
    return Row(
        name=name, target=TARGETS[name], runs=runs, better="lower", detail={"interval": interval, "rounds": detail}
    )


def interval_of_median(runs: Sequence[float]) -> tuple[float, float]:
    """The closest pair of order statistics with the median between them 95 times in 100, whatever the distribution.

    The extremes, where fewer than six runs promise less.
    """
    ordered, count = sorted(runs), len(runs)
    left_out = 0  # at each end
    while left_out < (count - 1) // 2 and 2 * _at_most(left_out + 1, count) <= 1 - _COVERED:
        left_out += 1
    return ordered[left_out], ordered[count - 1 - left_out]


def _at_most(heads: int, tosses: int) -> float:
    return float(sum(comb(tosses, found) for found in range(heads + 1)) / 2**tosses)


@contextmanager
def _overloaded(generators: Generators, running: Running) -> Iterator[list[Answered]]:
    """Requests without end; what was answered is in the list when the block is over."""
    command = load.full_speed(generators, running.url, running.bodies, connections=_TIMES * _FULL)
    answered = list[Answered]()
    process = subprocess.Popen(
        ["nice", "-n", str(_LEAST), *command],
        cwd=running.bodies.parent,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    let_session_give_way(process.pid, _LEAST)
    try:
        Event().wait(_RISE_SECONDS)
        yield answered
    finally:
        process.send_signal(signal.SIGINT)  # then it counts together
        output, _ = process.communicate()
        answered.append(load.counted(output))
