"""`headrace predict`: a file of events, scored now by any version."""

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, PipelineArgument, print_json_lines, print_table, say
from headrace.infra.cli.places import named
from headrace.models.aliases import CHAMPION

if TYPE_CHECKING:
    from headrace.infra.services.scores.predict_targets import Answers

_EXAMPLE = """Example: headrace predict flights.py s3://bucket/tomorrow.parquet --to predictions.parquet

Example: headrace predict flights.py tomorrow.jsonl --to topic:flights-by-hand

Example: headrace predict flights.py - --version challenger --output json < events.jsonl | jq .prediction"""


def register(app: typer.Typer) -> None:
    @app.command(epilog=_EXAMPLE)
    def predict(
        file: PipelineArgument,
        rows: Annotated[str, typer.Argument(help="events: .parquet or JSON lines, path or URL; - for standard input")],
        version: Annotated[str, typer.Option(help="a number or an alias; 0 is the baseline")] = CHAMPION,
        to: Annotated[
            str | None,
            typer.Option(help="a new .jsonl or .parquet file, path or URL; or topic:NAME, one of yours"),
        ] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Scores rows through the same features as the stream. Without --to, predictions go to standard output.

        A row that would be a dead letter has a reason instead of a prediction; then the exit code is 3. To a topic go
        predictions alone, and such rows to standard output.
        """
        from headrace.infra.rows import read_rows  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.scores import predict_targets as targets  # noqa: PLC0415
        from headrace.infra.services.scores.predict import Predictor  # noqa: PLC0415

        topic = to.removeprefix(targets.TOPIC) if to is not None and to.startswith(targets.TOPIC) else None
        if to is not None and topic is None:
            targets.expect_new_file(to)
        settings, names = named(file)
        predictor = Predictor(settings, names, version)
        answers = predictor.predict(read_rows(rows, strict=False))
        if topic is not None:
            _show(targets.to_topic(answers, settings, names, topic, rows), output)
        elif to is not None:
            targets.to_file(answers, to)
        else:
            _show(answers, output)
        for reason, count in predictor.rejected.most_common():
            say(f"{count:,} rows rejected: {reason}")
        if predictor.rejected:
            raise typer.Exit(3)


def _show(answers: "Answers", output: Output) -> None:
    import msgspec  # noqa: PLC0415

    if output is Output.json:
        print_json_lines(answers)
        return
    facts = [msgspec.to_builtins(answer) for answer in answers]
    shown = ("row", "id", "prediction", "decision", "version", "event_time", "reason", "detail")
    print_table(shown, [[one.get(name, "") for name in shown] for one in facts], empty="")
