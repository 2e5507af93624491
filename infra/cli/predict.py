"""`headrace predict`: a file of events, scored now by any version."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, PipelineArgument, print_json_lines, print_table, say
from headrace.infra.cli.places import named
from headrace.models.aliases import CHAMPION

_EXAMPLE = """Example: headrace predict flights.py tomorrow.parquet --to predictions.jsonl

Example: headrace predict flights.py - --version challenger --output json < events.jsonl | jq .prediction"""


def register(app: typer.Typer) -> None:
    @app.command(epilog=_EXAMPLE)
    def predict(
        file: PipelineArgument,
        rows: Annotated[str, typer.Argument(help="events: JSON lines, .parquet, or - for standard input")],
        version: Annotated[str, typer.Option(help="a number or an alias; 0 is the baseline")] = CHAMPION,
        to: Annotated[Path | None, typer.Option(help="a new file for JSON lines; standard output if not")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Scores rows through the same features as the stream. Nothing goes onto a topic.

        A row that would be a dead letter has a reason instead of a prediction; then the exit code is 3.
        """
        import msgspec  # noqa: PLC0415

        from headrace.infra.rows import read_rows  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.predict import Predictor  # noqa: PLC0415
        from headrace.models.errors import BadInput  # noqa: PLC0415

        if to is not None and to.exists():
            raise BadInput(f"--to: {to} is there already. Remove it, or give another name.")
        predictor = Predictor(*named(file), version)
        answers = predictor.predict(read_rows(rows, strict=False))
        if to is None and output is Output.json:
            print_json_lines(answers)
        elif to is None:
            facts = (msgspec.to_builtins(answer) for answer in answers)
            shown = ("row", "id", "prediction", "decision", "version", "event_time", "reason", "detail")
            print_table(shown, [[one.get(name, "") for name in shown] for one in facts])
        else:
            encode = msgspec.json.Encoder().encode
            try:
                with to.open("xb") as target:
                    target.writelines(encode(answer) + b"\n" for answer in answers)
            except OSError as error:
                raise BadInput(f"--to: {to} cannot be written: {error}") from error
        for reason, count in predictor.rejected.most_common():
            say(f"{count:,} rows rejected: {reason}")
        if predictor.rejected:
            raise typer.Exit(3)
