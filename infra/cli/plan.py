"""`headrace plan`: which schedule would have been best?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    print_facts,
    print_json_lines,
    print_table,
    progress,
    say,
)
from headrace.infra.cli.places import moment, one_pipeline, reached

if TYPE_CHECKING:
    from headrace.infra.services.compare.plan import Report
    from headrace.infra.services.compare.plan_trainings import Counted

_DEFAULT = ("never", "declared", "every:1d", "drift")
_EXAMPLE = """Example: headrace plan flights.py --schedule "0 3 * * *" --schedule drift --schedule never

Example: headrace plan flights.py --schedule declared --schedule labels:20000 --tolerance 0.002 --html plan.html"""


def register(app: typer.Typer) -> None:
    @app.command(epilog=_EXAMPLE)
    def plan(
        file: PipelineArgument,
        schedule: Annotated[
            list[str] | None,
            typer.Option(
                help="a cron line, never, declared, drift:0.2, degraded, every:1d, labels:20000 …; once per policy"
            ),
        ] = None,
        timezone: Annotated[
            str | None, typer.Option(help="of cron lines; that of the pipeline's own Cron if not given")
        ] = None,
        begin: Annotated[
            str | None,
            typer.Option("--from", help="event time of the first training; after a tenth of the past if not given"),
        ] = None,
        end: Annotated[str | None, typer.Option("--to", help="event time; the last row's if not given")] = None,
        step: Annotated[
            str, typer.Option(help="event time between two looks of triggers that keep no schedule")
        ] = "1h",
        tolerance: Annotated[
            float, typer.Option(help="how much worse than the best a cheaper schedule may be", min=0.0)
        ] = 0.005,
        metric: Annotated[str | None, typer.Option(help="the gate's if not given")] = None,
        jobs: Annotated[int, typer.Option(help="trainings at once; 0: as many as there are cores", min=0)] = 0,
        past: Annotated[str | None, typer.Option(help="a folder of dataset files instead of the topics")] = None,
        html: Annotated[str | None, typer.Option(help="also a page with plots, in this file")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Replays the pipeline's own past under several schedules: live metric against training cost.

        Recommended is the cheapest schedule that is, with 95 % confidence, worse than the best by no more than the
        tolerance. Nothing is published. Started again, it goes on with the trainings that were finished.
        """
        from headrace.infra.services.compare.plan import Options  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.compare.plan import plan as planned  # noqa: PLC0415
        from headrace.infra.services.compare.plan_page import page  # noqa: PLC0415
        from headrace.infra.settings import Settings  # noqa: PLC0415
        from headrace.infra.training import Origin  # noqa: PLC0415
        from headrace.models.durations import milliseconds  # noqa: PLC0415
        from headrace.scheduler.policies import policy_of  # noqa: PLC0415

        options = Options(
            start=moment("--from", begin),
            end=moment("--to", end),
            step_ms=milliseconds("--step", step),
            tolerance=tolerance,
            metric=metric,
            jobs=jobs,
            past=past,
        )
        source, pipeline = one_pipeline(file)
        asked = dict.fromkeys(text.strip() for text in schedule or _DEFAULT)
        policies = [policy_of(text, pipeline.retrain, timezone) for text in asked]
        settings = Settings.load() if past is not None else reached()
        with progress(f"plan of {pipeline.name}") as (bar, task):

            def said(what: str, counted: "Counted | None") -> None:
                bar.update(task, note=_note(what, counted))

            try:
                report = planned(settings, Origin(file=source, pipeline=pipeline), policies, options, said)
            except KeyboardInterrupt:
                say("finished trainings are kept: the same command goes on from there")
                raise
        if html is not None:
            _write(html, page(report))
        if output is Output.json:
            print_json_lines(report.policies)
            return
        _show(report)
        if html is not None:
            say(f"the plots are in {html}")


def _note(what: str, counted: "Counted | None") -> str:
    if counted is None:
        return what
    found = f", {counted.found} of them found from before" if counted.found else ""
    return f"{what}: {counted.done} of {counted.asked} asked for{found}"


def _write(place: str, text: str) -> None:
    from headrace.models.errors import BadInput  # noqa: PLC0415

    try:
        Path(place).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--html: {place} cannot be written: {error}") from error


def _show(report: "Report") -> None:
    print_facts(
        [
            ("pipeline", report.pipeline),
            ("metric", f"{report.metric}, {'higher' if report.higher_is_better else 'lower'} is better"),
            ("rows", f"{report.rows:,} served from {report.since} to {report.until}, with a label"),
            ("tolerance", f"{report.tolerance:g}"),
        ]
    )
    typer.echo()
    print_table(
        ["policy", report.metric, "95 % interval", "behind the best", "trainings", "promoted", "seconds", ""],
        [
            (
                one.policy,
                _figure(one.live_metric),
                f"{_figure(one.ci_low)} to {_figure(one.ci_high)}",
                _behind(one.behind, one.behind_low, one.behind_high),
                one.trainings,
                one.promotions,
                f"{one.training_seconds:.1f}",
                "recommended" if one.recommended else "",
            )
            for one in report.policies
        ],
    )
    for one in report.policies:
        if one.failures:
            say(f"{one.policy}: {one.failures} trainings failed, the first: {one.failed}")


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f}"


def _behind(value: float | None, low: float | None, high: float | None) -> str:
    if value == 0 and low == 0 and high == 0:
        return "the best"
    interval = "" if low is None else f"  [{_figure(low)}, {_figure(high)}]"
    return _figure(value) + interval
