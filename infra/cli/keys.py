"""`headrace model keygen`: a pair of keys for whoever leads and for those who believe it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, print_facts, print_json
from headrace.infra.cli.places import moment


def register(model: typer.Typer) -> None:
    @model.command(epilog="Example: headrace model keygen /etc/headrace/leader-2026")
    def keygen(
        place: Annotated[Path, typer.Argument(metavar="FILE", help="the private key; the public one is FILE.pub")],
        not_after: Annotated[
            str | None, typer.Option(help="what the key signs after this time counts for nothing; RFC 3339")
        ] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Makes a key that signs registry records. Nothing is overwritten, and the private key is never shown."""
        from headrace.infra.keys import write_keys  # noqa: PLC0415  heavy: only for this command

        until = moment("--not-after", not_after)
        public, named = write_keys(place, None if until is None else datetime.fromtimestamp(until / 1000, UTC))
        if output is Output.json:
            print_json({"key_id": named, "private": str(place), "public": str(public)})
            return
        print_facts(
            [
                ("key id", named),
                ("private", f"{place}: for schedulers alone, as signing_key_file"),
                ("public", f"{public}: for every process, in the folder trusted_keys"),
            ]
        )
