"""`headrace dev doctor`: is everything here? `headrace dev bench`: how fast is it, beside others?"""

from pathlib import Path
from typing import Annotated

import typer

from headrace.infra.cli import faults, profile
from headrace.infra.cli.output import Output, OutputOption, err, out, print_json, print_json_lines


def register(app: typer.Typer) -> None:
    dev = typer.Typer(help="For those who set headrace up.", no_args_is_help=True)
    app.add_typer(dev, name="dev", epilog="Example: headrace dev doctor")

    @dev.callback()
    def group() -> None:
        """For those who set headrace up."""

    @dev.command(epilog="Example: headrace dev doctor flights.py")
    def doctor(
        file: Annotated[str | None, typer.Argument(help="a pipeline file, whose topics are looked at, too")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Says what is here, what is missing and what to do about it. The exit code is 1 where it is needed."""
        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415
        from headrace.infra.services.start.doctor import examine  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.settings import Settings  # noqa: PLC0415

        ill = False
        for check in examine(Settings.load(), read_pipelines(file) if file else None):
            ill = ill or (check.needed and not check.ok)
            if output is Output.json:
                print_json_lines([check])
            else:
                mark, style = ("ok", "green") if check.ok else ("missing", "red") if check.needed else ("-", "dim")
                out.print(f"{mark:8}", style=style, end="")
                out.print(f"{check.name:24} {check.found or check.missing}", markup=False)
        raise typer.Exit(1 if ill else 0)

    @dev.command(epilog="Example: headrace dev bench --quick --only echo --output json")
    def bench(
        quick: Annotated[bool, typer.Option("--quick", help="fewer events, and the throughput rows alone")] = False,
        events: Annotated[int | None, typer.Option(help="per run, 1,000,000 by default", min=1_000)] = None,
        runs: Annotated[int | None, typer.Option(help="rounds; medians are shown, 3 by default", min=1)] = None,
        only: Annotated[
            list[str] | None, typer.Option(help="a row's name, or a pattern as 'serve_*'; may be given several times")
        ] = None,
        json: Annotated[Path | None, typer.Option(help="a file for the result")] = None,
        plot: Annotated[Path | None, typer.Option(help="a file for the plot, SVG")] = None,
        install_peers: Annotated[bool, typer.Option("--install-peers", help="those that are missing, first")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Measures headrace beside its peers, in turn, on a broker of its own and two cores."""
        from headrace.infra.bench.run import Options, run_bench  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.settings import Settings  # noqa: PLC0415

        settings = Settings.load()
        options = Options(
            home=settings.home,
            install_peers=install_peers,
            quick=quick,
            events=events,
            runs=runs,
            only=only or (),
            json=json,
            plot=plot,
        )
        found = run_bench(settings, options, err)
        if output is Output.json:
            print_json(found)

    faults.register(dev)
    profile.register(dev)
