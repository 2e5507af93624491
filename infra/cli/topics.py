"""`headrace apply`, `produce` and `subscribe`: what goes into Kafka and what comes out of it."""

from enum import StrEnum
from typing import Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    print_json,
    print_json_lines,
    print_table,
    progress,
    say,
)
from headrace.infra.cli.places import named, one_pipeline, reached, stop_signals

_POLL_SECONDS = 0.2
_PRODUCE = """Example: headrace produce flights flights.jsonl --key flight_id

Example: kcat -C … | headrace produce flights -

Example: headrace produce images images.jsonl --pipeline images.py   (whose Topic says format="msgpack")"""


class From(StrEnum):
    beginning = "beginning"
    end = "end"


def register(app: typer.Typer) -> None:
    _apply(app)
    _produce(app)
    _subscribe(app)


def _apply(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace apply flights.py --partitions 6")
    def apply(
        file: PipelineArgument,
        partitions: Annotated[int | None, typer.Option(help="of the events, where they are created", min=1)] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Creates the topics that the pipelines need. Twice is once; topics that differ are refused, not changed."""
        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.topics import apply as create  # noqa: PLC0415

        read = read_pipelines(file)
        settings = reached()
        applied = {
            (pipeline.name, one.topic): one
            for pipeline in read.pipelines.values()
            for one in create(settings, pipeline, partitions)
        }
        if output is Output.json:
            print_json_lines(
                {"pipeline": name, "topic": one.topic, "partitions": one.partitions, "created": one.created}
                for (name, _), one in applied.items()
            )
        else:
            print_table(
                ["pipeline", "topic", "partitions", ""],
                [
                    (name, one.topic, one.partitions, "created" if one.created else "was there")
                    for (name, _), one in applied.items()
                ],
            )


def _produce(app: typer.Typer) -> None:
    @app.command(epilog=_PRODUCE)
    def produce(
        topic: Annotated[str, typer.Argument(help="without the prefix")],
        file: Annotated[str, typer.Argument(help="JSON lines or .parquet; - for standard input")] = "-",
        key: Annotated[str | None, typer.Option(help="the field whose text is the message key")] = None,
        pipeline: Annotated[str | None, typer.Option(help="a pipeline file: rows go in the topic's format")] = None,
        raw: Annotated[bool, typer.Option("--raw", help="lines as they are, JSON or not")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Sends rows to a topic, and returns when the broker has them all.

        A file with a line that is no JSON is refused as a whole; standard input is sent up to that line. Rows go as
        JSON, or in the format that the topic has in a pipeline file.
        """
        from headrace.infra.row_format import writer  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.data.produce import produce as send  # noqa: PLC0415
        from headrace.infra.services.data.produce import rows_of, size_of  # noqa: PLC0415

        write = writer(one_pipeline(pipeline)[1], topic) if pipeline is not None and not raw else None
        settings = reached()
        rows = rows_of(file, key, raw=raw, write=write)
        with progress(f"to {settings.prefixed(topic)}", size_of(file)) as (bar, task):
            count = send(settings, topic, rows, lambda sent: bar.update(task, completed=sent))
        if output is Output.json:
            print_json({"topic": settings.prefixed(topic), "delivered": count})
        else:
            say(f"delivered {count:,} records to {settings.prefixed(topic)}")


def _subscribe(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace subscribe flights.py --from beginning --count 10 | jq .prediction")
    def subscribe(
        file: PipelineArgument,
        begin: Annotated[From, typer.Option("--from", help="where to begin to read")] = From.end,
        count: Annotated[int | None, typer.Option(help="end after so many", min=1)] = None,
        output: Annotated[Output, typer.Option("--output", help="json: a prediction per line; text: columns")] = (
            Output.json
        ),
    ) -> None:
        """Prints predictions as they come, one JSON object per line, until Ctrl-C. Committed ones only."""
        from headrace.infra.topic_reader import TopicReader, from_end  # noqa: PLC0415  heavy: only for this command

        settings, names = named(file)
        topics = [names.topics.predictions]
        reader = from_end(settings, topics) if begin is From.end else TopicReader(settings, topics)
        left = count
        try:
            with stop_signals() as stopping:
                say(f"reading {topics[0]}; Ctrl-C ends it")
                while not stopping.is_set() and left != 0:
                    for message in reader.poll(_POLL_SECONDS)[:left]:
                        typer.echo(_line(message.value() or b"", output))
                        left = None if left is None else left - 1
        finally:
            reader.close()


def _line(value: bytes, output: Output) -> str:
    if output is Output.json:
        return value.decode(errors="replace")
    import msgspec  # noqa: PLC0415  only for people

    row = msgspec.json.decode(value)
    decision = {True: "yes", False: "no"}.get(row.get("decision"), "")
    return f"{row['event_time']}  {row['prediction']:8.4f}  {decision:3}  version {row['version']:<4} {row['id']}"
