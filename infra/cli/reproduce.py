"""`headrace model reproduce`: trains a version again from its manifest, and says whether it comes out the same."""

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    print_facts,
    print_json,
    print_table,
    progress,
    say,
)
from headrace.infra.cli.places import one_pipeline, reached

if TYPE_CHECKING:
    from headrace.infra.services.runs.reproduce import Reproduction

_DIFFERENT = 3


def register(model: typer.Typer) -> None:
    @model.command(epilog="Example: headrace model reproduce flights.py 12")
    def reproduce(
        file: PipelineArgument,
        version: Annotated[int | None, typer.Argument(help="the champion if not given", min=1)] = None,
        recorded_sources: Annotated[
            bool,
            typer.Option("--recorded-sources", help="run the code of then, from the topic, where it is not that here"),
        ] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Trains a version again from the same rows, code and seed: 0 equal, 3 different. Publishes nothing."""
        from headrace.infra.services.runs.reproduce import reproduce as again  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.training import Origin  # noqa: PLC0415

        source, pipeline = one_pipeline(file)
        with progress(f"training {pipeline.name} again") as (bar, task):
            found = again(
                reached(),
                Origin(file=source, pipeline=pipeline),
                version,
                run_recorded=recorded_sources,
                said=lambda what: bar.update(task, note=what),
            )
        print_json(found) if output is Output.json else _show(found)
        raise typer.Exit(0 if found.equal else _DIFFERENT)


def _show(found: "Reproduction") -> None:
    print_facts([("version", found.version), ("equal" if found.equal else "different", found.reason)])
    pairs = [
        ("graph", *found.graph_sha256),
        ("dataset", *found.dataset_sha256),
        ("rows", *found.rows),
        ("held out", *found.holdout_rows),
        *[(name, *pair) for name, pair in found.metrics.items()],
        *[(f"{name} of {found.parent or 'the baseline'}", *pair) for name, pair in found.champion_metrics.items()],
        *[(name, *pair) for name, pair in found.libraries.items()],
        *([("platform", *found.platform)] if found.platform[0] != found.platform[1] else []),
    ]
    print_table(["", "recorded", "again"], [(name, _shown(then), _shown(now)) for name, then, now in pairs])
    for remark in found.remarks:
        say(remark)


def _shown(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
