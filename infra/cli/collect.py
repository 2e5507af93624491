"""`headrace model gc`: what no version needs any more leaves the artifacts topic."""

from typing import Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, print_facts, print_json, progress, say
from headrace.infra.cli.places import one_pipeline, reached


def register(model: typer.Typer) -> None:
    @model.command(epilog="Example: headrace model gc --yes")
    def gc(
        file: Annotated[
            str | None,
            typer.Argument(help="only this pipeline's archived versions lose their graphs; all if not given"),
        ] = None,
        yes: Annotated[bool, typer.Option("--yes", help="do it; without, only say what would be done")] = False,
        older_than: Annotated[str, typer.Option(help="leave alone what is younger")] = "1h",
        output: OutputOption = Output.text,
    ) -> None:
        """Moves the start of the artifacts log forward: graphs of archived versions and leftovers of crashes go.

        What is needed is copied to the end first. It may be stopped and run again at any moment.
        """
        from headrace.infra.services.changes.artifact_gc import collect  # noqa: PLC0415  heavy: only for this command
        from headrace.models.durations import milliseconds  # noqa: PLC0415

        keep_ms = milliseconds("--older-than", older_than)
        pipeline = one_pipeline(file)[1].name if file is not None else None
        with progress("artifacts") as (bar, task):
            plan = collect(
                reached(),
                pipeline=pipeline,
                keep_ms=keep_ms,
                dry_run=not yes,
                said=lambda step: bar.update(task, note=step),
            )
        if output is Output.json:
            print_json(plan)
            return
        print_facts(
            [
                ("before", f"{plan.bytes_before:,} bytes from offset {plan.begin}"),
                ("after", f"{plan.bytes_after:,} bytes from offset {plan.cut}"),
                ("needed", f"{plan.needed} artifacts; {plan.archived} versions are archived"),
                ("copied", f"{plan.copied} artifacts, {plan.copied_bytes:,} bytes" if plan.copied else ""),
            ]
        )
        if plan.cut == plan.begin:
            say(f"there is nothing to gain: nothing unneeded is older than {older_than}, or copies would cost more")
        elif not yes:
            say("nothing was changed. To do it: --yes")
