"""`headrace data profile`: what columns of served rows are like, beside what a version was trained on."""

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
from headrace.infra.cli.places import named
from headrace.infra.cli.served_range import LookBackOption, SinceOption, UntilOption, VersionOption, event_times

if TYPE_CHECKING:
    from headrace.infra.services.data.column_profile import Profile
    from headrace.infra.services.data.profiled import ColumnProfile

_ROWS = 20_000
_LOOK_BACK = 1_000_000
_TOP = 3  # values of a category, in the table; --output json has 20
_BARS = " ▁▂▃▄▅▆▇█"
_EXAMPLE = """Example: headrace data profile flights.py

Example: headrace data profile flights.py --since 2013-07-01T00:00:00Z --until 2013-07-08T00:00:00Z --against 12"""


def register(data: typer.Typer) -> None:
    @data.command(epilog=_EXAMPLE)
    def profile(
        file: PipelineArgument,
        since: SinceOption = None,
        until: UntilOption = None,
        version: VersionOption = None,
        rows: Annotated[int, typer.Option(help="of the range the newest so many", min=1)] = _ROWS,
        against: Annotated[
            str | None, typer.Option(help="whose training to compare with: a number or an alias; the champion")
        ] = None,
        look_back: LookBackOption = _LOOK_BACK,
        output: OutputOption = Output.text,
    ) -> None:
        """Every column of the served rows, and the score: missing, moments, quantiles, values, and how far it moved.

        PSI and KS are over the bins of the version's training; `moved` says what is significant at 1 %, corrected for
        the number of columns.
        """
        from headrace.infra.services.data.column_profile import column_profile  # noqa: PLC0415  heavy: only for this command

        begin, end = event_times(since, until)
        settings, names = named(file)
        with err.status("reading served rows"):
            found = column_profile(
                settings,
                names,
                since=begin,
                until=end,
                version=version,
                rows=rows,
                against=against,
                look_back=look_back,
            )
        print_found(found, output, _print)


def _print(found: "Profile") -> None:
    older = "" if found.whole_range else ", there may be older ones"
    print_facts(
        [
            ("pipeline", found.pipeline),
            ("rows", f"{found.rows:,} of {found.in_range:,} in range{older}; looked at {found.looked_at:,}"),
            ("event times", " to ".join(found.event_times) if found.event_times else ""),
            ("served by", ", ".join(f"version {number}: {rows:,}" for number, rows in found.versions.items())),
            ("against", f"version {found.against}" if not found.no_reference else f"none: {found.no_reference}"),
        ]
    )
    if not found.rows:
        say("no served rows in this range")
        return
    numbers = [one for one in found.columns if one.kind == "number"]
    typer.echo()
    print_table(
        ["number", "missing", "mean", "std", "min", "p1", "p50", "p99", "max", "", *_MOVED],
        [(one.name, _missing(one), *_number(one), *_moved(one)) for one in numbers],
    )
    categories = [one for one in found.columns if one.kind == "category"]
    if categories:
        typer.echo()
        print_table(
            ["category", "missing", "distinct", "most frequent", *_MOVED],
            [(one.name, _missing(one), *_category(one), *_moved(one)) for one in categories],
        )
    tensors = [one for one in found.columns if one.kind == "tensor"]
    if tensors:
        typer.echo()
        print_table(
            ["tensor", "missing", "shape", "mean", "min", "max"],
            [(one.name, _missing(one), *_tensor(one)) for one in tensors],
        )
    for one in found.columns:
        if one.lacking:
            say(f"{one.name}: {one.lacking:,} rows lack it: they are from before it was logged, or had it otherwise")


_MOVED = ("PSI", "KS", "moved", "not in training")


def _moved(one: "ColumnProfile") -> tuple[str, str, str, str]:
    against = one.against
    if against is None:
        return "", "", "", ""
    named = ", ".join(unseen.value for unseen in against.unseen[:_TOP])
    rare = "" if against.unseen_for_sure else ", or rare there"
    unseen = f"{against.unseen_rows:,} rows" + (f" ({named}{rare})" if named else "") if against.unseen_rows else ""
    return _figure(against.psi), _figure(against.ks), "yes" if against.significant else "", unseen


def _missing(one: "ColumnProfile") -> str:
    return "" if one.missing_share is None else f"{one.missing_share:.1%}"


def _number(one: "ColumnProfile") -> list[str]:
    facts = one.number
    if facts is None or facts.mean is None:
        return [""] * 8
    quantiles = [_figure(facts.quantiles[name]) for name in ("p1", "p50", "p99")]
    counts = facts.histogram.counts
    bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // max(counts))] for count in counts)
    return [*map(_figure, (facts.mean, facts.std, facts.min)), *quantiles, _figure(facts.max), bars]


def _category(one: "ColumnProfile") -> tuple[str, str]:
    facts = one.category
    if facts is None:
        return "", ""
    return f"{facts.distinct:,}", ", ".join(f"{top.value} {top.share:.0%}" for top in facts.top[:_TOP])


def _tensor(one: "ColumnProfile") -> tuple[str, str, str, str]:
    facts = one.tensor
    if facts is None:
        return "", "", "", ""
    shape = " x ".join(map(str, facts.shape))
    return shape, _figure(facts.mean), _figure(facts.min), _figure(facts.max)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
