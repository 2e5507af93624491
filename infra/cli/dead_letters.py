"""`headrace dead-letters list|show`: what could not be used, and why."""

import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.infra.cli import redrive
from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    print_facts,
    print_json,
    print_json_lines,
    print_table,
)
from headrace.infra.cli.places import named

if TYPE_CHECKING:
    from headrace.infra.services.dead_letters.letters import Letter

_SHOWN = 2_000  # characters of a value; --output json has all of it


def register(app: typer.Typer) -> None:
    dead = typer.Typer(help="Records that were parked with a reason.", no_args_is_help=True)
    app.add_typer(dead, name="dead-letters", epilog="Example: headrace dead-letters list flights.py")

    @dead.command("list", epilog="Example: headrace dead-letters list flights.py --all")
    def list_(
        file: PipelineArgument,
        every: Annotated[bool, typer.Option("--all", help="each letter, not each reason")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Counts by reason and topic, most frequent first, and how many were not redriven; with the newest of each."""
        from headrace.infra.services.dead_letters.letter_counts import LetterCounts  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.dead_letters.letters import letters  # noqa: PLC0415

        settings, names = named(file)
        if every and output is Output.json:
            print_json_lines(_as_json(one) for one in letters(settings, names))
        elif every:
            rows = [(one.source, one.reason, one.at, one.redriven_at, one.detail) for one in letters(settings, names)]
            print_table(["source", "reason", "parked at", "redriven at", "detail"], rows, empty="no dead letters")
        elif output is Output.json:
            print_json_lines(LetterCounts(settings, names).reasons())
        else:
            counts = [
                (one.reason, one.topic, f"{one.count:,}", f"{one.open:,}", one.newest_at, one.newest)
                for one in LetterCounts(settings, names).reasons()
            ]
            headings = ["reason", "topic", "count", "not redriven", "newest", "source of the newest"]
            print_table(headings, counts, empty="no dead letters")

    @dead.command(epilog="Example: headrace dead-letters show flights.py flights/0/4711")
    def show(
        file: PipelineArgument,
        source: Annotated[str | None, typer.Argument(help="topic/partition/offset; the newest if not given")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """One record as it was: key, value and headers, its source, and why it was parked."""
        from headrace.infra.services.dead_letters.letters import letter, shown, shown_value  # noqa: PLC0415  heavy, as above

        settings, names = named(file)
        found = letter(settings, names, source)
        if output is Output.json:
            print_json(_as_json(found))
            return
        value = shown_value(names, found)
        size = f" ({len(found.value):,} bytes)" if found.value is not None else ""
        print_facts(
            [
                ("reason", f"{found.reason}: {found.detail}"),
                ("source", found.source),
                ("place", found.place),
                ("parked at", found.at),
                ("scored at tick", found.tick),
                ("redriven", f"{found.redriven_at} by {found.redriven_by}" if found.redriven_at else ""),
                ("  why", found.redriven_why),
                ("  to", found.redriven_to),
                ("key", "none" if found.key is None else shown(found.key)),
                *[(f"header {name}", "none" if held is None else shown(held)) for name, held in found.headers],
                ("value", "none (a tombstone)" if value is None else f"{value[:_SHOWN]}{size}"),
            ]
        )

    redrive.register(dead)


def _as_json(found: "Letter") -> dict[str, Any]:
    """Bytes as text where they are UTF-8, and always as base64."""
    return {
        "reason": found.reason,
        "detail": found.detail,
        "source": found.source,
        "place": found.place,
        "at": found.at,
        "tick": found.tick,
        "redriven_at": found.redriven_at,
        "redriven_by": found.redriven_by,
        "redriven_why": found.redriven_why,
        "redriven_to": found.redriven_to,
        "key": _text(found.key),
        "key_base64": _base64(found.key),
        "value": _text(found.value),
        "value_base64": _base64(found.value),
        "headers": [
            {"name": name, "value": _text(value), "value_base64": _base64(value)} for name, value in found.headers
        ],
    }


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
