"""`headrace demo`."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, err, print_json


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace demo --days 60 --output json")
    def demo(
        days: Annotated[int | None, typer.Option(help="stop after so many days of 2013", min=1)] = None,
        speed: Annotated[float | None, typer.Option(help="event seconds a second, 3600: an hour a second")] = None,
        slice_: Annotated[str | None, typer.Option("--slice", help="longest slice of event time, up to 2d")] = None,
        workers: Annotated[int, typer.Option(help="worker processes", min=1)] = 1,
        partitions: Annotated[int, typer.Option(help="partitions of the flights", min=1)] = 1,
        keep: Annotated[bool, typer.Option("--keep", help="leave everything running until Ctrl-C")] = False,
        keep_past: Annotated[
            Path | None, typer.Option(help="a folder for what was served and labelled, for headrace plan")
        ] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """A year of real flights through real Kafka and Redis: predictions, weekly retraining, hot swaps."""
        from headrace.infra.demo.run import Options, run_demo  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.settings import Settings  # noqa: PLC0415

        options = Options(
            days=days,
            speed=speed,
            longest=slice_ or ("1h" if speed else "1d"),
            workers=workers,
            partitions=partitions,
            keep=keep,
            keep_past=keep_past,
        )
        summary = run_demo(Settings.load(), options, err)
        if output is Output.json:
            print_json(summary)
