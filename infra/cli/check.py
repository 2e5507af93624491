"""`headrace init` and `headrace check`: from nothing to a pipeline that has seen its data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    err,
    out,
    print_json,
    print_json_lines,
    say,
)
from headrace.infra.cli.places import one_pipeline, reached

if TYPE_CHECKING:
    from headrace.models.pipeline import Pipeline

_CHECK = """Example: headrace check flights.py --events flights.jsonl --labels arrivals.jsonl --side weather=w.jsonl

Example: headrace check flights.py --sample 5000   (from the pipeline's own topics)"""


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace init late-orders --name late-orders")
    def init(
        directory: Annotated[Path, typer.Argument(help="where to; made if it is not there")],
        name: Annotated[str | None, typer.Option(help="of the pipeline; by default the directory's")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Writes a pipeline file, its network, a test of both and a few rows, which all work at once."""
        from headrace.infra.services.start.scaffold import init as write  # noqa: PLC0415  only for this command

        written = write(directory, name or directory.resolve().name)
        if output is Output.json:
            print_json_lines({"file": str(path)} for path in written)
            return
        for path in written:
            typer.echo(path)
        file, events, labels = written[0], written[-2], written[-1]
        say(f"next: headrace check {file} --events {events} --labels {labels}")

    @app.command(epilog=_CHECK)
    def check(
        file: PipelineArgument,
        events: Annotated[str | None, typer.Option(help="JSON lines or .parquet")] = None,
        labels: Annotated[str | None, typer.Option(help="as events")] = None,
        side: Annotated[list[str] | None, typer.Option(help="TOPIC=FILE of a side topic, for each")] = None,
        sample: Annotated[int, typer.Option(help="newest records of each topic, where no file is given", min=1)] = 2000,
        output: OutputOption = Output.text,
    ) -> None:
        """Shows what rows decode to and whether the network can learn from them; publishes nothing.

        Rows come from files, or else from the pipeline's own topics. The exit code is 1 where something is wrong.
        """
        from headrace.infra.services.start.check import check as examine  # noqa: PLC0415  heavy: only for this command

        _, pipeline = one_pipeline(file)
        with err.status("reading the rows"):
            found = (
                _from_files(pipeline, events, labels, side or [])
                if events is not None
                else _from_topics(pipeline, sample)
            )
        with err.status("decoding, joining, and learning one batch by heart"):
            report = examine(pipeline, *found)
        if output is Output.json:
            print_json(report)
        else:
            out.print(report)
        raise typer.Exit(0 if report.ok else 1)


_Rows = tuple[list[bytes], list[bytes] | None, dict[str, list[bytes]]]


def _from_files(pipeline: "Pipeline", events: str, labels: str | None, side: list[str]) -> _Rows:
    from headrace.infra.row_format import writer  # noqa: PLC0415
    from headrace.infra.rows import read_rows  # noqa: PLC0415
    from headrace.infra.services.data.backfill import check_side, side_files  # noqa: PLC0415  heavy: only for this command

    places = side_files(side)
    check_side(pipeline, places)

    def rows(place: str, topic: str) -> list[bytes]:
        return list(map(writer(pipeline, topic), read_rows(place, strict=False)))

    return (
        rows(events, pipeline.events.name),
        None if labels is None else rows(labels, pipeline.label.topic.name),
        {topic: rows(place, topic) for topic, place in places.items()},
    )


def _from_topics(pipeline: "Pipeline", count: int) -> _Rows:
    from headrace.infra.names import Names  # noqa: PLC0415  heavy: only for this command
    from headrace.infra.services.data.sample import newest  # noqa: PLC0415

    settings = reached()
    names = Names(settings.prefix, pipeline)
    return (
        newest(settings, names.events, count),
        newest(settings, names.labels, count),
        {topic.name: newest(settings, names.of(topic.name), count) for topic in pipeline.side_topics},
    )
