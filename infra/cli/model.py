"""`headrace model list|show`: what the registry holds. What moves it is in `moves`."""

from typing import Annotated, Any

import typer

from headrace.infra.cli import collect, diff, exchange, keys, moves, reproduce
from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    figures,
    print_facts,
    print_found,
    print_json_lines,
    print_table,
)
from headrace.infra.cli.places import named
from headrace.models.aliases import CHAMPION

_PAST = {"promote": "promoted", "rollback": "rolled back to", "pin": "pinned"}


def register(app: typer.Typer) -> None:
    model = typer.Typer(help="Versions in the registry.", no_args_is_help=True)
    app.add_typer(model, name="model", epilog="Example: headrace model list flights.py")
    moves.register(model)
    diff.register(model)
    keys.register(model)
    exchange.register(model)
    collect.register(model)
    reproduce.register(model)

    @model.command("list", epilog="Example: headrace model list flights.py --output json | jq .version")
    def list_(file: PipelineArgument, output: OutputOption = Output.text) -> None:
        """Every version, newest first: which one serves, when, by whom and why it was promoted, and its metrics."""
        from headrace.infra.services.versions.catalog import versions  # noqa: PLC0415  heavy: only for this command

        found = versions(*named(file))
        if output is Output.json:
            print_json_lines(found)
            return
        print_table(
            ["version", "aliases", "state", "promoted at", "by", "rows", "metrics", "why"],
            [
                (
                    one.version,
                    ", ".join(one.aliases),
                    one.state,
                    one.promoted_at,
                    one.by,
                    f"{one.rows:,}" if one.rows else "",
                    figures(one.metrics),
                    one.why,
                )
                for one in found
            ],
        )

    @model.command(epilog="Example: headrace model show flights.py 12")
    def show(
        file: PipelineArgument,
        version: Annotated[str, typer.Argument(help="a number or an alias")] = CHAMPION,
        output: OutputOption = Output.text,
    ) -> None:
        """What made a version: data, rows, metrics beside its champion's, verdict, hyperparameters, lineage."""
        from headrace.infra.services.versions.catalog import version as detail  # noqa: PLC0415  heavy: only for this command

        found = detail(*named(file), version)
        print_found(found, output, _show)


def _anchor(numbers: dict[str, float], metrics: dict[str, float], sha256: str) -> list[tuple[str, str]]:
    """As the holdout's metrics are shown; versions with the same hash were judged on the same rows."""
    if "anchor_rows" not in numbers:
        return []
    return [
        ("anchor", f"{numbers['anchor_rows']:,.0f} rows, sha256 {sha256}"),
        *[
            (f"  {name}", f"{numbers[f'anchor_{name}']:.4g}, champion's {numbers[f'anchor_champion_{name}']:.4g}")
            for name in metrics
            if f"anchor_{name}" in numbers and f"anchor_champion_{name}" in numbers
        ],
    ]


def _show(found: Any) -> None:
    manifest = found.manifest
    lineage = " ← ".join(str(one) if one else "baseline" for one in found.lineage)
    print_facts(
        [
            ("version", f"{found.version} of {manifest.pipeline}"),
            ("aliases", ", ".join(found.aliases)),
            ("state", found.state),
            *[(_PAST[one.move], f"{one.at} by {one.by}: {one.why}") for one in found.promotions],
            ("verdict", manifest.verdict),
            ("  numbers", figures(manifest.numbers)),
            ("trigger", f"{manifest.trigger}, tick {manifest.tick}" if manifest.tick else manifest.trigger),
            ("run", manifest.run),
            ("created", f"{manifest.created_at} by {manifest.created_by}"),
            ("lineage", f"{found.version} ← {lineage}"),
            ("trained on", f"{manifest.rows:,} rows from {manifest.trained_from} to {manifest.trained_through}"),
            ("held out", f"{manifest.holdout_rows:,} rows"),
            *[
                (f"  {name}", f"{value:.4g}, champion's {manifest.champion_metrics.get(name, float('nan')):.4g}")
                for name, value in manifest.metrics.items()
            ],
            *_anchor(manifest.numbers, manifest.metrics, manifest.anchor_sha256),
            *[(one.severity, f"{one.text} ({one.name})") for one in manifest.findings],
            ("null shares", figures(manifest.null_shares)),
            ("hyperparameters", ", ".join(f"{name}={value}" for name, value in manifest.hyperparameters.items())),
            ("columns", ", ".join(f"{column.name} ({column.kind})" for column in manifest.schema.columns)),
            ("dataset", f"sha256 {manifest.dataset_sha256}" if manifest.dataset_sha256 else ""),
            *[("  range", f"{part.topic}/{part.partition} {part.first}..{part.end}") for part in manifest.ranges],
            ("graph", f"{manifest.onnx.size:,} bytes of ONNX, sha256 {manifest.onnx.sha256}"),
            ("libraries", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())),
            ("platform", manifest.platform),
            ("git commit", manifest.git_commit),
            ("sources", f"{manifest.pipeline_file}, sha256 {manifest.sources.sha256}" if manifest.sources else ""),
        ]
    )
