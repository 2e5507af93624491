"""`headrace runs list|show|logs|cancel`: what was asked for, what becomes of it, and an end to it."""

from typing import Annotated

import typer

from headrace.infra.cli.moves import Why, ask_and_show
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

_Run = Annotated[str | None, typer.Argument(help="its id or the beginning of it; the newest if not given")]


def register(app: typer.Typer) -> None:
    runs = typer.Typer(help="Trainings, scheduled scoring, and their outcomes.", no_args_is_help=True)
    app.add_typer(runs, name="runs", epilog="Example: headrace runs list flights.py")

    @runs.command("list", epilog="Example: headrace runs list flights.py --limit 5")
    def list_(
        file: PipelineArgument,
        limit: Annotated[int | None, typer.Option(help="only the newest so many", min=1)] = None,
        every: Annotated[bool, typer.Option("--all", help="also requests for which nothing was due")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Every run, oldest first: its tick or who asked for it, its state or outcome, and why."""
        from headrace.infra.services.runs.run_list import due  # noqa: PLC0415
        from headrace.infra.services.versions.catalog import runs as facts  # noqa: PLC0415  heavy: only for this command

        found = facts(*named(file)) if every else due(facts(*named(file)))
        found = found[-limit:] if limit else found
        if output is Output.json:
            print_json_lines(found)
            return
        print_table(
            ["run", "tick", "asked by", "state", "version", "rows", "reason"],
            [
                (
                    one.run,
                    (one.tick or "on demand") + (f" {one.source}" if one.source else ""),
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
        run: _Run = None,
        output: OutputOption = Output.text,
    ) -> None:
        """All that is on record of one run."""
        from headrace.infra.services.runs.run_words import curve_in_a_line, rows_of  # noqa: PLC0415
        from headrace.infra.services.versions.catalog import run as facts  # noqa: PLC0415  heavy: only for this command

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
                ("on", found.host),
                ("limits", figures(found.limits)),
                *[
                    ("attempt", f"{one.attempt} at {one.started_at} on {one.host}, after: {one.after}")
                    for one in found.attempts
                    if one.after
                ],
                ("stage", f"{found.stage} {figures(found.facts)}" if found.stage and not found.finished_at else ""),
                ("overruns", f"the tick at {found.overruns}, which runs late" if found.overruns else ""),
                ("finished", found.finished_at),
                ("version", found.version or ""),
                ("source", found.source),
                ("rows", rows_of(found)),
                ("metrics", figures(found.metrics)),
                ("champion's", figures(found.champion_metrics)),
                ("seconds", figures(found.seconds)),
                *[(f"{name} by epoch", curve_in_a_line(values)) for name, values in found.curves.items() if values],
                *[(one.severity, f"{one.text} ({one.name})") for one in found.findings],
                *[("range", f"{part.topic}/{part.partition} {part.first}..{part.end}") for part in found.ranges],
            ]
        )

    @runs.command(epilog="Example: headrace runs logs flights.py --follow")
    def logs(
        file: PipelineArgument,
        run: _Run = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="until its training ends")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """What a training printed, on the machine where it trains: every attempt, oldest first."""
        from headrace.infra.services.runs.run_logs import log_lines  # noqa: PLC0415
        from headrace.infra.services.versions.catalog import run as facts  # noqa: PLC0415  heavy: only for this command

        settings, names = named(file)
        lines = log_lines(settings, names, facts(settings, names, run), follow=follow)
        for one in lines:  # each at once: somebody may follow
            print_json_lines([one]) if output is Output.json else typer.echo(one.line)

    @runs.command(epilog='Example: headrace runs cancel flights.py 2025-07-07T030000Z --why "the wrong rows"')
    def cancel(
        file: PipelineArgument,
        run: Annotated[str, typer.Argument(help="its id or the beginning of it")],
        why: Why = "",
        output: OutputOption = Output.text,
    ) -> None:
        """Ends a run that trains or waits. Its tick is used up: the next one trains again, or `headrace train` does."""
        from headrace.infra.services.versions.catalog import run as facts  # noqa: PLC0415  heavy: only for this command

        target = facts(*named(file), run).run
        ask_and_show(file, "cancel", output, why=why, target=target)
