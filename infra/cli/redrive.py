"""`headrace dead-letters redrive`: records go back on the topics that they came from."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, PipelineArgument, print_facts, print_found, progress, say
from headrace.infra.cli.places import named

if TYPE_CHECKING:
    from headrace.infra.names import Names
    from headrace.infra.services.dead_letters.redrive import Redriven
    from headrace.infra.settings import Settings


def register(dead: typer.Typer) -> None:
    @dead.command(epilog='Example: headrace dead-letters redrive flights.py --reason future --why "clock set right"')
    def redrive(
        file: PipelineArgument,
        sources: Annotated[
            list[str] | None, typer.Argument(help="topic/partition/offset of each, as `list --all` shows")
        ] = None,
        reason: Annotated[str, typer.Option("--reason", help="all with this reason that were not redriven")] = "",
        every: Annotated[bool, typer.Option("--all", help="all that were not redriven")] = False,
        why: Annotated[str, typer.Option("--why", help="goes on record")] = "",
        yes: Annotated[bool, typer.Option("--yes", help="do not ask; only a terminal is asked")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Puts records back on the topics that they came from, as they were, each once."""
        from headrace.infra.services.dead_letters.redrive import redrive as by_name  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.dead_letters.redrive import redrive_all  # noqa: PLC0415
        from headrace.infra.training import Origin  # noqa: PLC0415
        from headrace.models.errors import BadInput  # noqa: PLC0415

        if bool(sources) + bool(reason) + every != 1:
            raise BadInput("dead-letters redrive: expected sources, or --reason, or --all: one of them says which.")
        settings, names = named(file)
        if sys.stdin.isatty() and not yes:
            count = len(set(sources)) if sources else _open(settings, names, reason)
            typer.confirm(f"Put {count:,} records back on their topics?", abort=True, err=True)
        if sources:
            done = by_name(settings, names, sources, by=Origin.by, why=why)
        else:
            with progress("redriving") as (bar, task):
                done = redrive_all(
                    settings,
                    names,
                    reason=reason,
                    by=Origin.by,
                    why=why,
                    said=lambda count: bar.update(task, note=f"{count:,}"),
                )
        print_found(done, output, _show)


def _open(settings: "Settings", names: "Names", reason: str) -> int:
    from headrace.infra.services.dead_letters.letter_counts import LetterCounts  # noqa: PLC0415  heavy, as above

    return sum(one.open for one in LetterCounts(settings, names).reasons() if reason in ("", one.reason))


def _show(done: "Redriven") -> None:
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in done.topics.items())
    print_facts([("redriven", f"{done.redriven:,}"), ("  of them", topics), ("redriven before", done.already or "")])
    for why, count in done.refused.items():
        say(f"{count:,} not redriven: {why}")
    if done.twins:
        say(f"{done.twins:,} are of records that went by another letter")
