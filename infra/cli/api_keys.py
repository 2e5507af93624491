"""`headrace key`: who may ask `headrace serve`, and for what."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.infra.cli.output import Output, OutputOption, print_facts, print_json, print_json_lines, print_table

if TYPE_CHECKING:
    from headrace.infra.api_keys import ApiKey, ApiKeys

_SHOWN = ("id", "name", "role", "created_at", "revoked_at")


class RoleOption(StrEnum):
    read = "read"
    predict = "predict"
    operate = "operate"


def register(app: typer.Typer) -> None:
    key = typer.Typer(help="API keys of `headrace serve`.", no_args_is_help=True)
    app.add_typer(key, name="key", epilog="Example: headrace key add checkout-service --role predict")

    @key.command(epilog="Example: headrace key add checkout-service --role predict")
    def add(
        name: Annotated[str, typer.Argument(help="whose key it is")],
        role: Annotated[
            RoleOption, typer.Option(help="read: metadata and runs; predict: that, too; operate: trainings, too")
        ] = RoleOption.predict,
        output: OutputOption = Output.text,
    ) -> None:
        """Makes a key and shows it, this once: only its hash is kept. With the first one, every request needs a key.

        A server that runs knows it within a second.
        """
        entry, token = _keys().add(name, role.value)
        if output is Output.json:
            print_json(_shown(entry) | {"key": token})
            return
        print_facts([("key", token), ("id", entry.id), ("name", entry.name), ("role", entry.role)])

    @key.command("list", epilog="Example: headrace key list --output json | jq 'select(.revoked_at == \"\")'")
    def list_(output: OutputOption = Output.text) -> None:
        """Who has a key, and for what; never the keys themselves."""
        found = [_shown(entry) for entry in _keys().all()]
        if output is Output.json:
            print_json_lines(found)
            return
        print_table(
            _SHOWN, [list(entry.values()) for entry in found], empty="no keys: everybody on this machine may ask"
        )

    @key.command(epilog="Example: headrace key revoke 3f9a01bc")
    def revoke(
        identity: Annotated[str, typer.Argument(metavar="ID", help="as `headrace key list` shows it")],
        output: OutputOption = Output.text,
    ) -> None:
        """Ends a key: a server that runs refuses it within a second."""
        entry = _keys().revoke(identity)
        if output is Output.json:
            print_json(_shown(entry))
            return
        print_facts(list(_shown(entry).items()))


def _keys() -> "ApiKeys":
    from headrace.infra.api_keys import ApiKeys  # noqa: PLC0415  heavy: only for these commands
    from headrace.infra.settings import Settings  # noqa: PLC0415

    return ApiKeys(Settings.load().api_keys)


def _shown(entry: "ApiKey") -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _SHOWN}
