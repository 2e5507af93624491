"""`headrace dev faults`: what bad data upstream costs, with automatic rollback and without."""

from typing import Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, err, out, print_json_lines


def register(dev: typer.Typer) -> None:
    @dev.command(epilog='Example: headrace dev faults --only "labels flipped" --output json')
    def faults(
        only: Annotated[list[str] | None, typer.Option(help="a fault's name; may be given several times")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Shows what bad data upstream costs with automatic rollback and without, on two months of real flights."""
        from headrace.infra.bench.faults import damages, table  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.settings import Settings  # noqa: PLC0415

        found = damages(Settings.load(), only or [], err)
        if output is Output.json:
            print_json_lines(found)
            return
        out.print(table(found))
        for one in found:
            for said in one.rollbacks:
                out.print(f"{one.fault}: {said}", markup=False)
