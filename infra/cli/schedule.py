"""`headrace schedule list|pause|resume`: when pipelines retrain and score next, and whether they do."""

from typing import Annotated

import typer

from headrace.infra.cli.moves import Why, ask_and_show
from headrace.infra.cli.output import Output, OutputOption, PipelineArgument, print_json_lines, print_table
from headrace.infra.cli.places import moment


def register(app: typer.Typer) -> None:
    schedule = typer.Typer(help="When pipelines retrain and score.", no_args_is_help=True)
    app.add_typer(schedule, name="schedule", epilog="Example: headrace schedule list flights.py")

    @schedule.command(epilog='Example: headrace schedule pause flights.py --why "the labels are late"')
    def pause(file: PipelineArgument, why: Why = "", output: OutputOption = Output.text) -> None:
        """No trigger makes a run, and no tick is scored any more, on whichever scheduler. `headrace train` still works.

        A training or a tick that goes on is finished.
        """
        ask_and_show(file, "pause", output, why=why)

    @schedule.command(epilog="Example: headrace schedule resume flights.py")
    def resume(file: PipelineArgument, why: Why = "", output: OutputOption = Output.text) -> None:
        """Triggers make runs and ticks are scored again. What came due meanwhile is one, under the newest tick."""
        ask_and_show(file, "resume", output, why=why)

    @schedule.command("list", epilog="Example: headrace schedule list flights.py --count 5")
    def list_(
        file: PipelineArgument,
        count: Annotated[int, typer.Option(help="times of each trigger", min=1, max=1000)] = 3,
        after: Annotated[str | None, typer.Option(help="RFC 3339 or Unix ms; now by default")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """The next times of every trigger and of everything scored by schedule, in its own timezone and in UTC.

        No server is needed.
        """
        from time import time_ns  # noqa: PLC0415

        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.runs.upcoming import upcoming  # noqa: PLC0415

        given = moment("--after", after)
        since = time_ns() // 1_000_000 if given is None else given
        found = [
            one for pipeline in read_pipelines(file).pipelines.values() for one in upcoming(pipeline, since, count)
        ]
        if output is Output.json:
            print_json_lines(found)
            return
        rows: list[tuple[str, str, str, str, str]] = []
        for one in found:
            times = list(zip(one.local, one.utc, strict=True)) or [("no schedule: it fires by what it counts", "")]
            does = f"score {one.source}" if one.source else one.does
            rows += [(one.pipeline, does, one.trigger, local, utc) for local, utc in times]
        print_table(["pipeline", "does", "trigger", "local", "UTC"], rows, empty="no trigger: trained on demand alone")
