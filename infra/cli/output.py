"""What every command has: where to find the servers, and `--output json` alone on standard output."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console


class Output(StrEnum):
    text = "text"
    json = "json"


OutputOption = Annotated[Output, typer.Option("--output", help="text for people, json for programs")]
PipelineArgument = Annotated[str, typer.Argument(help="the pipeline file, or file.py:name for one of several")]

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value, alone on standard output."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()
