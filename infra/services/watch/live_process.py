"""--pid, --port or neither → the live process whose time is looked at."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from headrace.infra.processes.registered import Registered, living
from headrace.infra.services.watch.scrape import scraped
from headrace.models.errors import BadInput, HeadraceError


@dataclass(frozen=True, kw_only=True)
class Live:
    pid: int | None  # None where the system does not say who listens on a port
    metrics_port: int
    pipelines: tuple[str, ...] = ()
    role: str = "process"


def chosen(home: Path, pid: int | None, port: int | None) -> tuple[Live, list[Live]]:
    """The one that was named, or else the worker that predicted most so far; and the other workers from `home`.

    Raises BadInput, and HeadraceError where no worker runs from `home`.
    """
    known = [_live(one) for one in living(home)]
    named = [one for one in known if pid in (None, one.pid) and port in (None, one.metrics_port)]
    if pid is not None:
        return named[0] if named else Live(pid=pid, metrics_port=port or _port_of(pid)), []
    if port is not None:
        return named[0] if named else Live(pid=_listener(port), metrics_port=port), []
    workers = [one for one in known if one.role == "worker"]
    if not workers:
        raise HeadraceError(
            f"expected a worker that runs from {home}, found none. Start one (headrace worker FILE), run this where it"
            " was started or with its HEADRACE_HOME, or name it: --pid, or --port as in its log's 'metrics on …'."
        )
    if len(workers) > 1:
        workers.sort(key=_predicted, reverse=True)
    return workers[0], workers[1:]


def _live(one: Registered) -> Live:
    return Live(pid=one.process.pid, metrics_port=one.metrics_port, pipelines=one.pipelines, role=one.role)


def _predicted(live: Live) -> float:
    with suppress(HeadraceError):  # it has just ended
        return scraped(live.metrics_port).rows["infer"]
    return -1.0


def _port_of(pid: int) -> int:
    """Of a process that runs from another home."""
    try:
        ports = [port for one in psutil.Process(pid).net_connections("tcp") if (port := _port(one))]
    except psutil.NoSuchProcess as error:
        raise BadInput(f"--pid {pid}: expected a process that runs, there is none.") from error
    except psutil.AccessDenied as error:
        raise BadInput(
            f"--pid {pid}: another user's. Name its port: --port, as in its log's 'metrics on …'."
        ) from error
    for port in ports:
        with suppress(HeadraceError):
            scraped(port)
            return port
    raise BadInput(f"--pid {pid}: expected a worker, got a process that serves no metrics of headrace.")


def _listener(port: int) -> int | None:
    with suppress(psutil.AccessDenied):
        return next((one.pid for one in psutil.net_connections("tcp") if _port(one) == port), None)
    return None


def _port(connection: Any) -> int | None:
    """That it listens on, if it does."""
    return int(connection.laddr.port) if connection.status == psutil.CONN_LISTEN else None
