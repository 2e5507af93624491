"""`headrace metrics`: how good was what was served, by version and event time?"""

from typing import Annotated, Any

import typer

from headrace.infra.cli.output import Output, OutputOption, PipelineArgument, print_json_lines, print_table
from headrace.infra.cli.places import named
from headrace.infra.cli.served_range import SinceOption, UntilOption, event_times


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace metrics flights.py --every 1w --segment origin")
    def metrics(
        file: PipelineArgument,
        since: SinceOption = None,
        until: UntilOption = None,
        every: Annotated[str | None, typer.Option(help="a line for each span, as 1d or 1w of UTC")] = None,
        segment: Annotated[list[str] | None, typer.Option(help="a category column; may be given several times")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Live metrics on the labels that came: of each version that served, with 95 % intervals."""
        from headrace.infra.services.compare.live_table import live_table  # noqa: PLC0415  heavy: only for this command
        from headrace.models.durations import milliseconds  # noqa: PLC0415

        begin, end = event_times(since, until)
        found = live_table(
            *named(file),
            since=begin or 0,
            until=end,
            every_ms=milliseconds("--every", every) if every else None,
            segments=segment or (),
        )
        if output is Output.json:
            print_json_lines(found)
            return
        measures = list(found[0].metrics) if found else []
        print_table(
            ["from", "version", "segment", "rows", "labelled", *measures],
            [
                (
                    one.begin,
                    one.version or "0, the baseline",
                    one.segment,
                    f"{one.rows:,}",
                    f"{one.labelled:,}",
                    *(_estimate(one.metrics.get(name)) for name in measures),
                )
                for one in found
            ],
            empty="nothing was served in that time",
        )


def _estimate(estimate: Any) -> str:
    if estimate is None or estimate.value is None:
        return ""
    shown = f"{estimate.value:.4g}"
    return shown if estimate.low is None else f"{shown} ({estimate.low:.4g} to {estimate.high:.4g})"
