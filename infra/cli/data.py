"""`headrace data …`: what is on the topics, one prediction and why, and the past scored again."""

from typing import Annotated

import typer

from headrace.infra.cli import data_profile, data_show
from headrace.infra.cli.explanation import show
from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    err,
    print_facts,
    print_found,
    print_json,
    progress,
    say,
)
from headrace.infra.cli.places import moment, named

_LOOK_BACK = 1_000_000  # served rows
_DIFFERENT = 3
_EXPLAIN = """Example: headrace data explain flights.py flights/0/4711

Example: headrace data explain flights.py 2013-07-04T11Z-UA1545 --output json | jq .rerun"""
_REPLAY = """Example: headrace data replay flights.py --from 2013-07-01T00:00:00Z --to 2013-07-08T00:00:00Z
--version challenger --to-file july.parquet

Example: headrace data replay flights.py --from 2013-07-01T00:00:00Z --version 12 --to-topic flights-again"""


def register(app: typer.Typer) -> None:
    data = typer.Typer(help="What is on the topics, what was served, and why.", no_args_is_help=True)
    app.add_typer(data, name="data", epilog="Example: headrace data explain flights.py flights/0/4711")
    data_show.register(data)
    data_profile.register(data)
    _explain(data)
    _replay(data)


def _explain(data: typer.Typer) -> None:
    @data.command(epilog=_EXPLAIN)
    def explain(
        file: PipelineArgument,
        event: Annotated[str, typer.Argument(help="topic/partition/offset, or the event's id: its newest prediction")],
        look_back: Annotated[int, typer.Option(help="served rows in which an id is looked for", min=1)] = _LOOK_BACK,
        output: OutputOption = Output.text,
    ) -> None:
        """One prediction: event, features as served, version and what made it; and whether it comes out again.

        Exit code 3 where the version, run again, answers something else; 1 where it cannot be run.
        """
        from headrace.infra.services.data.explain import NotAmongServed  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.data.explain import explain as explained  # noqa: PLC0415
        from headrace.models.errors import BadInput  # noqa: PLC0415

        settings, names = named(file)
        try:
            with err.status("looking"):
                found = explained(settings, names, event, look_back=look_back)
        except NotAmongServed as error:
            raise BadInput(f"{error} --look-back looks further.") from error
        print_found(found, output, show)
        if found.rerun is not None and found.rerun.verdict == "not possible":
            raise BadInput(f"not run again: {found.rerun.why_not}")
        if found.rerun is not None and found.rerun.verdict == "different":
            raise typer.Exit(_DIFFERENT)


def _replay(data: typer.Typer) -> None:
    @data.command(epilog=_REPLAY)
    def replay(
        file: PipelineArgument,
        version: Annotated[str, typer.Option(help="a number or an alias; 0 is the baseline")],
        begin: Annotated[str, typer.Option("--from", help="event time: RFC 3339 or Unix ms")],
        end: Annotated[str | None, typer.Option("--to", help="event time, not included; all there is if not")] = None,
        to_file: Annotated[str | None, typer.Option(help="a new .parquet or .jsonl file")] = None,
        to_topic: Annotated[str | None, typer.Option(help="without the prefix; created where it is missing")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Scores the past with any version, on the features as served, beside what was served then.

        Workers and their group are not touched. Rows that lack a column which the version needs are counted by it.
        """
        from headrace.infra.services.scores.rescore import rescore  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.scores.rescore_file import FileTarget  # noqa: PLC0415
        from headrace.infra.services.scores.rescore_topic import TopicTarget  # noqa: PLC0415
        from headrace.models.errors import BadInput  # noqa: PLC0415

        if (to_file is None) == (to_topic is None):
            raise BadInput("expected --to-file or --to-topic, one of the two.")
        since, until = moment("--from", begin) or 0, moment("--to", end)
        target = FileTarget(to_file) if to_file is not None else None
        settings, names = named(file)
        with (
            target or TopicTarget(settings, names, to_topic or "") as out,
            progress(f"replaying {names.pipeline.name}") as (bar, task),
        ):
            done = rescore(
                settings,
                names,
                version,
                since=since,
                until=until,
                out=out,
                seen=lambda rows: bar.update(task, note=f"{rows:,} rows"),
            )
        if output is Output.json:
            print_json(done)
            return
        for column, rows in done.lacking.items():
            say(f"{rows:,} rows left out: {column} was not logged then, and version {done.version} needs it")
        print_facts(
            [
                ("version", done.version),
                ("rows", f"{done.rows:,}"),
                ("as served", f"{done.same:,} with the same score to the bit" if done.rows else ""),
                ("served by", ", ".join(f"{one}: {rows:,} rows" for one, rows in done.served_by.items())),
                ("left out", f"{done.lacking_rows:,} rows lack {', '.join(done.lacking)}" if done.lacking else ""),
                ("unanswered", f"{done.unanswered:,} rows" if done.unanswered else ""),
                ("served twice", f"{done.repeated:,} rows, once here" if done.repeated else ""),
                ("written to", done.target),
            ]
        )
