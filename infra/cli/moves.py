"""`headrace model promote|rollback|pin|unpin|alias|archive|history|at`: what serves, and what served."""

from typing import Annotated, Any

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    err,
    print_facts,
    print_json,
    print_json_lines,
    print_table,
)
from headrace.infra.cli.places import moment, named, one_pipeline, reached

Why = Annotated[str, typer.Option("--why", help="goes on record")]
ActivateAt = Annotated[
    str | None,
    typer.Option(help="not before these events: +1000 from now on, or offsets by partition, 0=5000,1=4900"),
]
Version = Annotated[str, typer.Argument(help="its number or an alias; 0 is the baseline")]
OtherVersion = Annotated[str | None, typer.Argument(help="its number or an alias; 0 is the baseline")]


def register(model: typer.Typer) -> None:
    _serving(model)
    _naming(model)
    _looking(model)


def _serving(model: typer.Typer) -> None:
    @model.command(epilog='Example: headrace model promote flights.py 12 --why "better at Newark"')
    def promote(
        file: PipelineArgument,
        version: Version,
        why: Why = "",
        activate_at: ActivateAt = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Makes a version the champion: every worker serves it from its next chunk on, or from given events on."""
        ask_and_show(file, "promote", output, why=why, version=version, activate_at=activate_at)

    @model.command(epilog='Example: headrace model rollback flights.py --why "false alarms since noon"')
    def rollback(
        file: PipelineArgument,
        version: OtherVersion = None,
        why: Why = "",
        activate_at: ActivateAt = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Takes the champion back: the version before it serves again, or the one that is given."""
        ask_and_show(file, "rollback", output, why=why, version=version, activate_at=activate_at)

    @model.command(epilog='Example: headrace model pin flights.py 11 --why "audit until Friday"')
    def pin(
        file: PipelineArgument, version: OtherVersion = None, why: Why = "", output: OutputOption = Output.text
    ) -> None:
        """Holds a version, or the champion: what is trained is published and does not serve until `unpin`."""
        ask_and_show(file, "pin", output, why=why, version=version)

    @model.command(epilog="Example: headrace model unpin flights.py")
    def unpin(file: PipelineArgument, why: Why = "", output: OutputOption = Output.text) -> None:
        """Lets the next version that proves itself serve again."""
        ask_and_show(file, "unpin", output, why=why)


def _naming(model: typer.Typer) -> None:
    @model.command(epilog="Example: headrace model alias flights.py challenger 13")
    def alias(
        file: PipelineArgument,
        name: Annotated[str, typer.Argument(help="such as challenger; `headrace worker --alias` serves it")],
        version: OtherVersion = None,
        remove: Annotated[bool, typer.Option("--remove", help="the alias then means no version")] = False,
        share: Annotated[
            float,
            typer.Option(help="of the champion's message keys that the challenger serves: a canary", min=0, max=1),
        ] = 0.0,
        why: Why = "",
        output: OutputOption = Output.text,
    ) -> None:
        """Gives a version a name of your own, or takes the name away. The champion's name moves with `promote`."""
        from headrace.models.errors import BadInput  # noqa: PLC0415

        if (version is None) != remove:
            raise BadInput("model alias: expected a version, or --remove and none.")
        ask_and_show(file, "alias", output, why=why, alias=name, version=version, share=share)

    @model.command(epilog='Example: headrace model archive flights.py 3 --why "trained on a broken feed"')
    def archive(file: PipelineArgument, version: Version, why: Why = "", output: OutputOption = Output.text) -> None:
        """Puts a version out of use: it stays on record, and can neither be promoted nor aliased any more."""
        ask_and_show(file, "archive", output, why=why, version=version)


def _looking(model: typer.Typer) -> None:
    @model.command(epilog="Example: headrace model history flights.py --output json | jq .version")
    def history(
        file: PipelineArgument,
        event_times: Annotated[bool, typer.Option("--event-times", help="look up when by event time, too")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Which version served which events, from which offset to which, on which worker."""
        from headrace.infra.services.versions.event_times import timed  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.versions.timeline import served  # noqa: PLC0415

        settings, names = named(file)
        found = served(settings, names)
        if event_times:
            with err.status("looking up event times"):
                found = timed(settings, names, found)
        print_json_lines(found) if output is Output.json else _print_served(found)

    @model.command("at", epilog="Example: headrace model at flights.py 2026-11-01T12:00Z")
    def at_(
        file: PipelineArgument,
        when: Annotated[str, typer.Argument(help="by the clock: RFC 3339, or Unix ms")],
        output: OutputOption = Output.text,
    ) -> None:
        """Which version was the champion at a moment, why, and what really served each partition then."""
        from headrace.infra.services.versions.timeline import at_moment  # noqa: PLC0415  heavy: only for this command
        from headrace.models.durations import iso  # noqa: PLC0415

        found = at_moment(*named(file), iso(moment("when", when) or 0))
        if output is Output.json:
            print_json(found)
            return
        print_facts(
            [
                ("at", found.at),
                ("champion", found.champion or "0, the baseline"),
                ("promoted", f"{found.promoted_at} by {found.by}: {found.why}" if found.seq else ""),
            ]
        )
        _print_served(found.served)


def _print_served(found: Any) -> None:
    print_table(
        ["partition", "events", "version", "event time", "since", "until", "workers", "late"],
        [
            (
                f"{one.topic}/{one.partition}",
                f"{one.first:,} to {one.end:,}" if one.end is not None else f"{one.first:,} on",
                one.version,
                one.event_time,
                one.since,
                one.until or "still serves",
                ", ".join(one.workers),
                one.late or "",
            )
            for one in found
        ],
        empty="nothing was served yet",
    )


def ask_and_show(
    file: str, move: Any, output: Output, *, version: str | None = None, activate_at: str | None = None, **said: Any
) -> None:
    """Asks the leader of the one pipeline in the file, and shows its reply."""
    from headrace.infra.names import Names  # noqa: PLC0415  heavy: only for these commands
    from headrace.infra.services.changes.moves import activation, ask  # noqa: PLC0415
    from headrace.infra.services.versions.catalog import known_versions  # noqa: PLC0415
    from headrace.infra.services.versions.resolve import resolve  # noqa: PLC0415
    from headrace.infra.training import Origin  # noqa: PLC0415

    source, pipeline = one_pipeline(file)
    settings, origin = reached(), Origin(file=source, pipeline=pipeline)
    names = Names(settings.prefix, pipeline)
    number = resolve(known_versions(settings, names), version) if version is not None else None
    activates = activation(settings, names, activate_at) if activate_at else None
    with err.status(f"{move}: waiting for the leader"):
        reply = ask(settings, origin, move, version=number, activate_at=activates, **said)
    if output is Output.json:
        print_json(reply)
        return
    serves = move in ("promote", "rollback", "pin")
    meant = f"version {reply.version}" if reply.version else "the baseline" if serves else ""
    print_facts(
        [
            ("done", " ".join(filter(None, (move, said.get("alias", ""), said.get("target", ""), meant)))),
            ("pipeline", reply.pipeline),
            ("seq", reply.seq or ""),
            ("at", reply.at),
            ("why", said.get("why", "")),
        ]
    )
