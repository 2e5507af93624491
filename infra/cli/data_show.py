"""`headrace data show|served`: records of any of a pipeline's topics, and served rows, as they are."""

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    err,
    print_facts,
    print_found,
    print_table,
    say,
)
from headrace.infra.cli.places import moment, named
from headrace.infra.cli.served_range import LookBackOption, SinceOption, UntilOption, VersionOption, event_times

if TYPE_CHECKING:
    from headrace.infra.services.data.browse import Page, WholeRecord
    from headrace.infra.services.data.served_rows import ServedPage, ServedRow, TensorFacts

_LIMIT = 20
_LOOK_BACK, _SERVED_LOOK_BACK = 10_000, 200_000  # records, rows
_SHOWN = 200  # characters of a value in the table; --output json has 2,000, a record's own place all of it
_WHOLE = 20_000  # characters of a value that is shown alone
_PLACE = re.compile(r"([^/]+)/(\d{1,9})/(\d{1,18})")
_SHOW = """Example: headrace data show flights.py

Example: headrace data show flights.py predictions --search UA1545 --limit 5

Example: headrace data show flights.py flights/0/4711 --hex"""
_SERVED = """Example: headrace data served flights.py --version 12 --limit 5

Example: headrace data served flights.py --since 2013-07-01T00:00:00Z --until 2013-07-02T00:00:00Z --output json"""


def register(data: typer.Typer) -> None:
    _show(data)
    _served(data)


def _show(data: typer.Typer) -> None:
    @data.command(epilog=_SHOW)
    def show(
        file: PipelineArgument,
        topic: Annotated[
            str,
            typer.Argument(
                help="events, labels, predictions, dead-letters or a topic's name; or topic/partition/offset: one whole"
            ),
        ] = "events",
        limit: Annotated[int, typer.Option(help="records", min=1, max=1_000)] = _LIMIT,
        search: Annotated[str, typer.Option(help="what is in the key or the readable value, or is the id")] = "",
        look_back: Annotated[int, typer.Option(help="records in which is searched", min=1)] = _LOOK_BACK,
        partition: Annotated[int | None, typer.Option(help="this one alone", min=0)] = None,
        before: Annotated[str, typer.Option(help="partition:offset, or what a page says: the records before it")] = "",
        after: Annotated[str, typer.Option(help="partition:offset, or what a page says: those from there on")] = "",
        begin: Annotated[str | None, typer.Option("--from", help="written from then on: RFC 3339 or Unix ms")] = None,
        hexadecimal: Annotated[bool, typer.Option("--hex", help="of one record: its bytes, too")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Records of a topic, newest first: when written, key, id, event time, value by the topic's format.

        What a transaction took back is left out. Reads no more of the topic than it shows, or looks through.
        """
        from headrace.infra.services.data.browse import WIDTH, browse, record  # noqa: PLC0415  heavy: only for this command

        written_from = moment("--from", begin)
        settings, names = named(file)
        if (place := _PLACE.fullmatch(topic)) is not None:
            found = record(settings, names, place[1], int(place[2]), int(place[3]))
            print_found(found, output, partial(_print_record, hexadecimal=hexadecimal))
            return
        with err.status("looking"):
            page = browse(
                settings,
                names,
                topic,
                partition=partition,
                before=before,
                after=after,
                written_from=written_from,
                limit=limit,
                search=search,
                look_back=look_back,
                width=WIDTH if output is Output.json else _SHOWN,
            )
        print_found(page, output, partial(_print_page, is_search=bool(search)))


def _served(data: typer.Typer) -> None:
    @data.command(epilog=_SERVED)
    def served(
        file: PipelineArgument,
        limit: Annotated[int, typer.Option(help="rows", min=1, max=1_000)] = _LIMIT,
        version: VersionOption = None,
        event_id: Annotated[str, typer.Option("--id", help="of the event")] = "",
        since: SinceOption = None,
        until: UntilOption = None,
        before: Annotated[str, typer.Option(help="what a page says: the rows before it")] = "",
        look_back: LookBackOption = _SERVED_LOOK_BACK,
        output: OutputOption = Output.text,
    ) -> None:
        """Served rows, newest first: the event's place, score and version, and its features as they were served."""
        from headrace.infra.services.data.served_rows import served_rows  # noqa: PLC0415  heavy: only for this command

        begin, end = event_times(since, until)
        settings, names = named(file)
        with err.status("looking"):
            page = served_rows(
                settings,
                names,
                limit=limit,
                version=version,
                event_id=event_id,
                since=begin,
                until=end,
                before=before,
                look_back=look_back,
            )
        print_found(page, output, _print_served)


def _print_page(page: "Page", *, is_search: bool) -> None:
    print_table(
        ["place", "written", "key", "id", "event time", "bytes", "value"],
        [
            (
                one.place,
                one.written_at,
                one.key,
                one.id,
                one.event_time,
                f"{one.size:,}",
                "none (a tombstone)" if one.value is None else one.value,
            )
            for one in page.records
        ],
        empty=f"no record of {page.topic}" + (" has it" if is_search else ""),
    )
    if is_search:
        say(_looked(page.looked_at, page.looked_at_to, "records"))
    if page.older is not None:
        say(f"older ones: --before {page.older}")


def _print_record(found: "WholeRecord", *, hexadecimal: bool) -> None:
    from headrace.infra.hexdump import hexdump  # noqa: PLC0415  only for this command

    one = found.record
    value = "none (a tombstone)" if one.value is None else one.value
    print_facts(
        [
            ("place", one.place),
            ("written", one.written_at),
            ("id", one.id),
            ("event time", one.event_time),
            ("key", "none" if one.key is None else one.key),
            *[(f"header {name}", "none" if held is None else held) for name, held in one.headers],
            ("bytes", f"{one.size:,}"),
            ("value", value if len(value) <= _WHOLE else f"{value[:_WHOLE]}… ({len(value):,} characters)"),
        ]
    )
    if hexadecimal:
        for data in (found.key, found.value):
            if data:
                typer.echo(f"\n{hexdump(data)}")


def _print_served(page: "ServedPage") -> None:
    print_table(
        ["event", "id", "event time", "version", "score", "features"],
        [(one.source, one.id, one.event_time, one.version, _score(one), _features(one)) for one in page.rows],
        empty="no served row",
    )
    say(_looked(page.looked_at, page.looked_at_to, "rows"))
    if page.older is not None:
        say(f"older ones: --before {page.older}")


def _looked(count: int, to: str, what: str) -> str:
    return f"looked at {count:,} {what}" + (f", back to what was written at {to}" if to else "")


def _score(row: "ServedRow") -> str:
    if row.probabilities is not None:
        return ", ".join(f"{one:.4g}" for one in row.probabilities)
    return "?" if row.score is None else f"{row.score:.4g}"


def _features(row: "ServedRow") -> str:
    return ", ".join(f"{name} {_feature(value)}" for name, value in row.features.items())


def _feature(value: "float | str | TensorFacts | None") -> str:
    if value is None:
        return "missing"
    if isinstance(value, str):
        return value
    if isinstance(value, float | int):
        return f"{value:.6g}"
    if value.mean is None:
        return f"{value.numbers:,} numbers"
    return f"{value.numbers:,} numbers from {value.min:.4g} to {value.max:.4g}"
