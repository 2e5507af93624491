"""`headrace status`: is all well? The overview of the console, for a terminal and for scripts."""

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, err, out, print_facts, print_json_lines, print_table
from headrace.infra.cli.places import reached

if TYPE_CHECKING:
    from headrace.infra.services.watch.status import Status

_EXAMPLE = """Example: headrace status flights.py

Example: headrace status flights.py --output json | jq .lag"""


def register(app: typer.Typer) -> None:
    @app.command(epilog=_EXAMPLE)
    def status(
        files: Annotated[list[str], typer.Argument(help="pipeline files, or file.py:name for one of several")],
        seconds: Annotated[float, typer.Option(help="over which rates are taken", min=0.5, max=600)] = 3.0,
        output: OutputOption = Output.text,
    ) -> None:
        """Lag, rates, latency, live metrics, freshness and drift of each pipeline, and what should be looked at.

        The exit code is 1 where something is bad. Latencies and live metrics are those of processes on this machine.
        """
        from headrace.infra.names import Names  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415
        from headrace.infra.services.watch.status import looked_at  # noqa: PLC0415

        read = [read_pipelines(place) for place in files]
        settings = reached()
        names = [Names(settings.prefix, pipeline) for file in read for pipeline in file.pipelines.values()]
        with err.status(f"looking for {seconds:g} s"):
            found = looked_at(settings, names, seconds)
        if output is Output.json:
            print_json_lines(found)
        else:
            for one in found:
                _print(one)
        if any(one.level == "bad" for one in found):
            raise typer.Exit(1)


def _print(one: "Status") -> None:
    from headrace.infra.services.written import number, rate, seconds  # noqa: PLC0415

    out.print(f"{one.pipeline}: {'all is well' if not one.alerts else one.level}", markup=False)
    for alert in one.alerts:
        out.print(f"  {alert.level}: {alert.text} {alert.remedy}".rstrip(), markup=False)
    dead = f"{number(one.dead_letters)}, {number(one.dead_letters_open)} not redriven"
    print_facts(
        [
            ("champion", f"version {one.champion}, since {one.champion_since}" if one.champion else "the baseline"),
            ("events", f"{rate(one.events_per_second)}, {number(one.lag)} wait"),
            ("predictions", f"{rate(one.predictions_per_second)}, p99 {seconds(one.latency_p99)} from the append on"),
            ("labels", rate(one.labels_per_second)),
            ("dead letters", f"{dead}, {rate(one.dead_per_second)}"),
            ("workers", number(one.workers)),
            ("schedulers", number(one.schedulers)),
            ("freshness", seconds(one.rows.freshness_seconds)),
            ("drift", ", ".join(f"{moved.column} {moved.psi:.2g}" for moved in one.rows.drift[:5])),
            ("training", one.running_stage if one.running else ""),
            ("newest run", f"{one.newest_run} {one.newest_run_state}".strip()),
            ("next by schedule", one.next_tick),
        ]
    )
    if one.live:
        measures = list(one.live[0].metrics)
        print_table(
            ["version", "", "rows", *measures],
            [
                (
                    live.version,
                    ", ".join(live.names),
                    number(live.rows),
                    *(number(live.metrics.get(name)) for name in measures),
                )
                for live in one.live
            ],
        )
