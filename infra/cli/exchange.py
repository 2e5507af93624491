"""`headrace model import|export`: models from elsewhere, and versions for elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, PipelineArgument, err, print_facts, print_json
from headrace.infra.cli.places import one_pipeline, reached


def register(model: typer.Typer) -> None:
    @model.command("import", epilog="Example: headrace model import flights.py model.onnx --promote")
    def import_(
        file: PipelineArgument,
        place: Annotated[Path, typer.Argument(help="an ONNX file, or a directory with an MLmodel (onnx flavour)")],
        promote: Annotated[bool, typer.Option("--promote", help="make it the champion, too")] = False,
        why: Annotated[str, typer.Option(help="goes on record")] = "",
        output: OutputOption = Output.text,
    ) -> None:
        """Publishes a model that was made elsewhere as the next version; nobody serves it until it is promoted."""
        from headrace.infra.services.changes.exchange import import_model  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.training import Origin  # noqa: PLC0415

        source, pipeline = one_pipeline(file)
        with err.status("waiting for the leader"):
            done = import_model(reached(), Origin(file=source, pipeline=pipeline), place, promote=promote, why=why)
        if output is Output.json:
            print_json(done)
            return
        print_facts(
            [
                ("version", f"{done.version} of {pipeline.name}, {'the champion' if promote else 'not promoted'}"),
                ("origin", done.origin),
                ("graph", f"sha256 {done.graph_sha256}"),
                ("next", "" if promote else f"headrace model promote {file} {done.version}"),
            ]
        )

    @model.command(epilog="Example: headrace model export flights.py 12 --to ./delay-12 --mlflow sqlite:///mlflow.db")
    def export(
        file: PipelineArgument,
        version: Annotated[int | None, typer.Argument(help="the champion if not given", min=1)] = None,
        to: Annotated[Path, typer.Option("--to", help="a directory that is not there yet, or is empty")] = Path(
            "model"
        ),
        mlflow: Annotated[
            str | None, typer.Option(metavar="URI", help="also register it there: http://…, sqlite:///…")
        ] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Writes a version as an MLflow model directory, and registers it with its lineage where a URI is given."""
        from headrace.infra.services.changes.exchange import export_model  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.training import Origin  # noqa: PLC0415

        source, pipeline = one_pipeline(file)
        done = export_model(reached(), Origin(file=source, pipeline=pipeline), version, to, mlflow=mlflow)
        if output is Output.json:
            print_json(done)
            return
        there = done.registered
        known = "" if there is None or there.new else ", which was there"
        print_facts(
            [
                ("version", f"{done.version} of {pipeline.name}"),
                ("directory", done.folder),
                ("graph", f"sha256 {done.graph_sha256}"),
                ("MLflow", f"{there.model} version {there.mlflow_version}{known}" if there else ""),
                ("run", there.run_id if there else ""),
            ]
        )
