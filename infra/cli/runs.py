"""`headrace runs list|show`: what was asked for, and what became of it."""

from typing import Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    figures,
    print_facts,
    print_json,
    print_json_lines,
    print_table,
)
from headrace.infra.cli.places import named


def register(app: typer.Typer) -> None:
    runs = typer.Typer(help="Trainings and their outcomes.", no_args_is_help=True)
    app.add_typer(runs, name="runs", epilog="Example: headrace runs list flights.py")

    @runs.command("list", epilog="Example: headrace runs list flights.py --limit 5")
    def list_(
        file: PipelineArgument,
        limit: Annotated[int | None, typer.Option(help="only the newest so many", min=1)] = None,
        every: Annotated[bool, typer.Option("--all", help="also requests for which nothing was due")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Every run, oldest first: its tick or who asked for it, its state or outcome, and why."""
        from headrace.infra.services.catalog import runs as facts  # noqa: PLC0415  heavy: only for this command

        found = [one for one in facts(*named(file)) if every or one.state != "not_due"]
        found = found[-limit:] if limit else found
        if output is Output.json:
            print_json_lines(found)
            return
        print_table(
            ["run", "tick", "asked by", "state", "version", "rows", "reason"],
            [
                (
                    one.run,
                    one.tick or "on demand",
                    one.by,
                    one.state,
                    one.version or "",
                    f"{one.rows:,}" if one.rows else "",
                    one.reason or one.stage,
                )
                for one in found
            ],
        )

    @runs.command(epilog="Example: headrace runs show flights.py 2025-07-07T030000Z")
    def show(
        file: PipelineArgument,
        run: Annotated[
            str | None, typer.Argument(help="its id or the beginning of it; the newest if not given")
        ] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """All that is on record of one run."""
        from headrace.infra.services.catalog import run as facts  # noqa: PLC0415  heavy: only for this command

        found = facts(*named(file), run)
        if output is Output.json:
            print_json(found)
            return
        print_facts(
            [
                ("run", found.run),
                ("state", found.state),
                ("why", found.reason),
                ("trigger", found.trigger),
                ("tick", found.tick),
                ("asked", f"{found.requested_at} by {found.by}" + (f": {found.why}" if found.why else "")),
                ("as of", found.at),
                ("started", found.started_at),
                ("stage", f"{found.stage} {figures(found.facts)}" if found.stage and not found.finished_at else ""),
                ("finished", found.finished_at),
                ("version", found.version or ""),
                ("rows", f"{found.rows:,} trained on, {found.holdout_rows:,} held out" if found.rows else ""),
                ("metrics", figures(found.metrics)),
                ("champion's", figures(found.champion_metrics)),
                ("seconds", figures(found.seconds)),
                *[(one.severity, f"{one.text} ({one.name})") for one in found.findings],
                *[("range", f"{part.topic}/{part.partition} {part.first}..{part.end}") for part in found.ranges],
            ]
        )
