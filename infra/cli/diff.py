"""`headrace model diff`: what would change, seen on the rows that were served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    err,
    figures,
    print_facts,
    print_json,
    print_table,
    say,
)
from headrace.infra.cli.places import moment, named

if TYPE_CHECKING:
    from headrace.infra.services.compare.model_diff import Report, Side
    from headrace.models.bootstrap import Estimate

_ROWS = 20_000
_SEGMENT_ROWS = 100
_MOVED = 10  # in the table; --output json and --html have all
_EXAMPLE = """Example: headrace model diff flights.py challenger   (what would change, were it promoted)

Example: headrace model diff flights.py 11 12 --html report.html"""


def register(model: typer.Typer) -> None:
    @model.command(epilog=_EXAMPLE)
    def diff(
        file: PipelineArgument,
        first: Annotated[str | None, typer.Argument(help="a number or an alias; the one before the champion")] = None,
        second: Annotated[
            str | None, typer.Argument(help="as FIRST; if only one is given, the champion is FIRST")
        ] = None,
        rows: Annotated[int, typer.Option(help="served rows to compare on, the newest", min=1)] = _ROWS,
        begin: Annotated[str | None, typer.Option("--from", help="event time: then so many rows from there on")] = None,
        end: Annotated[str | None, typer.Option("--to", help="event time, not included")] = None,
        segment_rows: Annotated[int, typer.Option(help="fewest rows of a segment", min=1)] = _SEGMENT_ROWS,
        html: Annotated[str | None, typer.Option(help="also a page with plots, in this file")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Two versions on the same served rows: metrics, ranks, changed decisions, segments, rows that moved most.

        Both run as ONNX on the features as served. Differences are SECOND - FIRST; intervals are of 95 %.
        """
        from headrace.infra.services.compare.diff_page import page  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.services.compare.model_diff import compare  # noqa: PLC0415

        since, until = moment("--from", begin), moment("--to", end)
        settings, names = named(file)
        with err.status("scoring"):
            report = compare(
                settings, names, first, second, rows=rows, since=since, until=until, segment_rows=segment_rows
            )
        if html is not None:
            _write(html, page(report))
        if output is Output.json:
            print_json(report)
            return
        _show(report)
        if html is not None:
            say(f"the plots are in {html}")


def _write(place: str, text: str) -> None:
    from headrace.models.errors import BadInput  # noqa: PLC0415

    try:
        Path(place).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--html: {place} cannot be written: {error}") from error


def _show(report: "Report") -> None:
    found, shift = report.difference, report.difference.shift
    sizes = ", ".join(f"{float(share):.0%} up to {value:.3g}" for share, value in shift.quantiles.items())
    print_facts(
        [
            ("pipeline", report.pipeline),
            ("first", _side(report.first)),
            ("second", _side(report.second)),
            ("rows", f"{found.rows:,} served from {report.event_times[0]} to {report.event_times[1]}"),
            ("labelled", f"{found.labelled:,} of them"),
            ("left out", ", ".join(f"{rows:,} rows: {what}" for what, rows in report.lacking.items())),
            ("unanswered", f"{report.unanswered:,} rows" if report.unanswered else ""),
            ("Kendall's tau", _figure(found.tau)),
            ("changed decisions", "" if found.changed_decisions is None else f"{found.changed_decisions:.2%}"),
            ("calibration error", _calibration(found.calibration)),
            ("mean difference", _signed(shift.mean)),
            ("its size", f"mean {_figure(shift.mean_absolute)}; of all rows {sizes}"),
            *[fact for side in (report.first, report.second) for fact in _judged(side)],
        ]
    )
    typer.echo()
    print_table(
        ["metric", "first", "second", "difference", ""],
        [
            (one.metric, _estimate(one.first), _estimate(one.second), _estimate(one.difference, signed=True), verdict)
            for one in found.metrics
            for verdict in [_verdict(one.difference, higher_is_better=one.higher_is_better)]
        ],
    )
    decided = found.changed_decisions is not None
    typer.echo()
    print_table(
        ["segment", "rows", "difference", *(["changed"] if decided else []), "tau", f"{report.metric} first", "second"],
        [
            (
                f"{one.column} = {'missing' if one.value is None else one.value}",
                f"{one.rows:,}",
                _signed(one.mean_difference),
                *([f"{one.changed_decisions:.2%}"] if decided else []),
                _figure(one.tau),
                _figure(one.first),
                _figure(one.second),
            )
            for one in found.segments
        ],
        empty=f"no segment has {report.segment_rows:,} rows",
    )
    typer.echo()
    print_table(
        ["moved most", "first", "second", "label", "features"],
        [
            (
                f"{one.id} ({one.source})",
                _figure(one.first),
                _figure(one.second),
                "" if one.label is None else f"{one.label:g}",
                ", ".join(f"{name} {value}" for name, value in one.features.items() if value is not None),
            )
            for one in report.moved[:_MOVED]
        ],
        empty="no row moved",
    )


def _side(side: "Side") -> str:
    number = f"version {side.version}" if side.version else "version 0, the baseline"
    return number + (f" ({', '.join(side.aliases)})" if side.aliases else "")


def _judged(side: "Side") -> list[tuple[str, str]]:
    """What its own gate said, on the held-out rows of its run."""
    if not side.verdict:
        return []
    against = f", against version {side.judged_against}" if side.judged_against is not None else ""
    return [(f"verdict on {side.version}", side.verdict + against), ("  numbers", figures(side.numbers))]


def _calibration(found: "tuple[float | None, float | None]") -> str:
    return "" if found == (None, None) else f"{_figure(found[0])} of the first, {_figure(found[1])} of the second"


def _verdict(difference: "Estimate", *, higher_is_better: bool) -> str:
    """Whether the interval leaves no doubt."""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def _estimate(one: "Estimate", *, signed: bool = False) -> str:
    write = _signed if signed else _figure
    interval = "" if one.low is None else f"  [{write(one.low)}, {write(one.high)}]"
    return write(one.value) + interval


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4g}"
