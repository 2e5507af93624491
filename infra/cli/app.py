"""`headrace`: the commands, and how their errors come out: one line with the remedy, exit code 1."""

import logging
import sys

import typer
from rich.console import Console

from headrace.infra.cli import demo, processes
from headrace.models.errors import HeadraceError

app = typer.Typer(
    name="headrace",
    help="Keeps machine-learning models fresh on a stream.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
demo.register(app)
processes.register(app)


def main() -> None:
    # librdkafka's passing worries are for the logs of processes (`log_to`), not for whoever types a command
    logging.getLogger("headrace.kafka").setLevel(logging.CRITICAL)
    try:
        app()
    except HeadraceError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"headrace: {error}", markup=False)
        sys.exit(1)
