"""a worker on a stream, and `headrace serve` asked by ten times as many as fill it → does the stream notice?

The stream's p99 while the requests come, over its p99 while nobody asks, one load after the other within each round. A
server that is full answers, or refuses, as fast as it can: no generator on the same two cores can send ten times that.
What can be had is ten times the connections, each of which asks again at once. Broker, worker, server and both
generators share the cores. `ROW` is `headrace serve` as it comes, `NICE` with the lowest priority. The requests'
generator always has that: it stands for clients on machines of their own.
"""

import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
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

ROW, NICE = "serve_stream_p99", "serve_stream_p99_nice"
TARGETS: Final = {ROW: 1.1, NICE: 1.1}
_OPTIONS: Final[dict[str, Sequence[str]]] = {ROW: (), NICE: ("--nice", "19")}
_LAST: Final = ("nice", "-n", "19")
_FULL: Final = 64  # connections: more of them are answered no faster
_TIMES: Final = 10
_RATE: Final = 2_000.0  # events a second
_SECONDS: Final = 10.0
_RISE_SECONDS: Final = 2.0


def stream_beside(session: Session, generators: Generators, *, rounds: int, names: Collection[str]) -> list[Row]:
    rows = list[Row]()
    for name in [name for name in TARGETS if name in names]:
        with serving(session, Headrace()) as served:
            served.load(_RATE, _SECONDS)  # warms worker and broker
            server = beside(served.started)
            with answering(server, _OPTIONS[name], session.settings.home / name, Questions(session.graph)) as running:
                rows.append(_row(session, generators, served, running, name, rounds))
    return rows


def _row(session: Session, generators: Generators, served: Serving, running: Running, name: str, rounds: int) -> Row:
    runs, detail = list[float](), list[dict[str, Any]]()
    for number in range(rounds):
        found: dict[bool, Loaded] = {}
        for asked in (False, True) if number % 2 == 0 else (True, False):
            if asked:
                with _overloaded(generators, running) as answered:
                    found[True] = served.load(_RATE, _SECONDS)
            else:
                found[False] = served.load(_RATE, _SECONDS)
        alone, both = found[False].latencies(), found[True].latencies()
        runs.append(both.percentiles["p99"] / alone.percentiles["p99"])
        (requests,) = answered
        session.say(f"{name}: alone {alone}; beside {requests.rate:,.0f} requests/s {both}")
        detail.append(
            {
                "alone": figures(found[False]),
                "beside_requests": figures(found[True]),
                "requests_per_second": rounded(requests.rate),
                "requests_refused": requests.refused,
                "requests_failed": requests.failed,
            }
        )
    return Row(name=name, target=TARGETS[name], runs=runs, better="lower", detail={"rounds": detail})


@contextmanager
def _overloaded(generators: Generators, running: Running) -> Iterator[list[Answered]]:
    """Requests without end; what was answered is in the list when the block is over."""
    command = load.full_speed(generators, running.url, running.bodies, connections=_TIMES * _FULL)
    answered = list[Answered]()
    process = subprocess.Popen([*_LAST, *command], cwd=running.bodies.parent, stdout=subprocess.PIPE)
    try:
        Event().wait(_RISE_SECONDS)
        yield answered
    finally:
        process.send_signal(signal.SIGINT)  # then it counts together
        output, _ = process.communicate()
        answered.append(load.counted(output))
