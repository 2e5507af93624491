"""What every command has: `--output json` alone on standard output, progress and remarks on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, TextIO, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_PIPED_WIDTH = 1_000  # columns: a row in a file or a pipe is one line, whatever it says
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

T = TypeVar("T")


class Output(StrEnum):
    text = "text"
    json = "json"


OutputOption = Annotated[
    Output,
    typer.Option(
        "--output", help="text for people, json for programs: one value, or one object per line where there are many"
    ),
]
PipelineArgument = Annotated[str, typer.Argument(help="the pipeline file, or file.py:name for one of several")]


def _console(file: TextIO, *, stderr: bool = False) -> Console:
    width = None if file.isatty() else _PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=width)


err = Console(stderr=True, highlight=False)
out = _console(sys.stdout)


def print_json(value: Any) -> None:
    """One JSON value, alone on standard output."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_found(found: T, output: Output, in_words: Callable[[T], None]) -> None:
    if output is Output.json:
        print_json(found)
    else:
        in_words(found)


def print_json_lines(values: Iterable[Any]) -> None:
    for value in values:
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "none") -> None:
    """Cells are text as it is; what a user's data says is no markup."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*[_cell("" if cell is None else cell) for cell in row])
    if table.row_count:
        out.print(table)
    else:
        say(empty)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Name and value, one pair per line; what has no value is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, "", {}, (), []):
            table.add_row(name, _cell(value))
    out.print(table)


def _cell(value: object) -> Text:
    """What a terminal would obey is written out: values come off topics that anybody may write to."""
    return Text(str(value).translate(_CONTROLS))


def say(text: str) -> None:
    """A remark beside the result."""
    err.print(text, style="dim", markup=False, soft_wrap=True)


def figures(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


@contextmanager
def progress(what: str, total: float | None = None) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on standard error, or a spinner where nobody knows how long; `note` is what it says at its end."""
    known = (BarColumn(), MofNCompleteColumn()) if total is not None else (SpinnerColumn(),)
    columns = (TextColumn("{task.description}"), *known, TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar, bar.add_task(what, total=total, note="")
