"""a comparison → the pieces of its page, as HTML: for the file that `model diff` writes and for the console alike.

Names, ids and values are users' data: every text goes through `text`. Colours are those of the page around it.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

from headrace.infra.services.compare import plots
from headrace.infra.services.compare.model_diff import Moved, Report, Side
from headrace.models.bootstrap import Estimate, Measured
from headrace.models.difference import Segment

_LONG = 60  # characters of a feature's value


def about(report: Report) -> str:
    oldest, newest = report.event_times
    found = report.difference
    return (
        f"{found.rows:,} served rows from {oldest} to {newest}, {found.labelled:,} of them with a label."
        " Both versions run as ONNX on the features as served; differences are second − first."  # noqa: RUF001
    )


def tiles(report: Report) -> str:
    found, shift = report.difference, report.difference.shift
    shown = [(_figure(found.tau), "Kendall's tau: 1 is the same order")]
    if found.changed_decisions is not None:
        shown.append((f"{found.changed_decisions:.2%}", f"of decisions change, at {report.decide_at:g}"))
    shown += [
        (_signed(shift.mean), "mean difference"),
        (_figure(shift.mean_absolute), "mean size of the difference"),
        (_figure(shift.quantiles.get("0.99")), "99 % of rows move by less"),
    ]
    if (second := found.calibration[1]) is not None:
        shown.append((_figure(second), f"calibration error; the first's is {_figure(found.calibration[0])}"))
    return "\n".join(f'<div class="tile"><b>{value}</b><span>{text(what)}</span></div>' for value, what in shown)


def metrics(measured: Sequence[Measured]) -> str:
    if not any(one.first.value is not None or one.second.value is not None for one in measured):
        return '<p class="quiet">No metric can be said: no labels came for these rows so far.</p>'
    rows = []
    for one in measured:
        change, verdict = one.difference, _verdict(one)
        plot = ""
        if change.value is not None and change.low is not None and change.high is not None:
            reach = max(abs(change.low), abs(change.high), abs(change.value)) * 1.1 or 1.0
            plot = plots.interval(change.value, change.low, change.high, reach)
        rows.append(
            f"<tr><td>{text(one.metric)}</td>{_estimate(one.first)}{_estimate(one.second)}"
            f'{_estimate(change, signed=True)}<td class="bar">{plot}</td><td class="{verdict}">{verdict}</td></tr>'
        )
    headings = ["metric", "first", "second", "difference", "", ""]
    caption = "In brackets 95 % intervals by a paired bootstrap; the mark stands where they leave no doubt."
    return _table("Metrics", headings, rows, right={1, 2, 3}) + f'<p class="quiet">{caption}</p>'


def verdicts(report: Report) -> str:
    """What each one's own gate said, on the held-out rows of its run."""
    judged = [side for side in (report.first, report.second) if side.verdict]
    if not judged:
        return '<p class="quiet">No gate has judged either of them.</p>'
    names = list(dict.fromkeys(name for side in judged for name in side.numbers))
    rows = [f"<tr><td>verdict</td>{''.join(f'<td class=long>{text(side.verdict)}</td>' for side in judged)}</tr>"]
    for name in names:
        cells = "".join(_number(_figure(side.numbers.get(name))) for side in judged)
        rows.append(f"<tr><td>{text(name)}</td>{cells}</tr>")
    return _table("Verdicts", ["", *map(name_of, judged)], rows, right={1, 2})


def drawings(report: Report) -> str:
    scores, shift = report.difference.scores, report.difference.shift
    first, second = text(name_of(report.first)), text(name_of(report.second))
    at = "" if report.decide_at is None else f"; dashed: decisions at {report.decide_at:g}"
    figures = [
        (
            f'Rows by score: <span class="first">{first}</span> and <span class="second">{second}</span>{at}',
            plots.two_histograms(scores.edges, scores.first, scores.second, report.decide_at),
        ),
        (
            f'Row by row: <span class="first">{first}</span> across, <span class="second">{second}</span> upwards',
            plots.heat(scores.edges, scores.both, report.decide_at),
        ),
        ("Rows by difference, second − first", plots.one_histogram(shift.edges, shift.counts)),  # noqa: RUF001
    ]
    return "\n".join(f"<figure><figcaption>{what}</figcaption>{plot}</figure>" for what, plot in figures)


def segments(report: Report) -> str:
    found, decided = report.difference.segments, report.decide_at is not None
    if not found:
        return f'<p class="quiet">No value of a category has {report.segment_rows:,} rows.</p>'
    reach = max(abs(segment.mean_difference) for segment in found)
    headings = ["", "rows", "mean difference", "", *(["changed decisions"] if decided else []), "tau"]
    headings += [f"{report.metric} first", f"{report.metric} second", "labelled"]
    rows = []
    for column, of_column in groupby(found, lambda segment: segment.column):
        rows.append(f'<tr class="column"><td colspan="{len(headings)}">{text(column)}</td></tr>')
        rows += [_segment(segment, reach, decided=decided) for segment in of_column]
    numbers = set(range(len(headings))) - {0, 3}
    return _table("Segments", headings, rows, right=numbers)


def _segment(segment: Segment, reach: float, *, decided: bool) -> str:
    value = '<span class="quiet">missing</span>' if segment.value is None else text(_short(segment.value))
    changed = "" if segment.changed_decisions is None else f"{segment.changed_decisions:.2%}"
    cells = [
        f'<td class="name">{value}</td>',
        _number(f"{segment.rows:,}"),
        _number(_signed(segment.mean_difference)),
        f'<td class="bar">{plots.bar(segment.mean_difference, reach)}</td>',
        *([_number(changed)] if decided else []),
        *[_number(_figure(value)) for value in (segment.tau, segment.first, segment.second)],
        _number(f"{segment.labelled:,}"),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def moved(report: Report) -> str:
    if not report.moved:
        return '<p class="quiet">No row moved: both give the same scores.</p>'
    headings = ["event", "first", "second", "difference", "label", "served by", "features"]
    rows = [_row(one) for one in report.moved]
    return _table("Rows that moved most", headings, rows, right={1, 2, 3, 4, 5})


def _row(one: Moved) -> str:
    features = ", ".join(
        f"{text(name)}&nbsp;{text(_short(value))}" for name, value in one.features.items() if value is not None
    )
    cells = [
        f'<td class="name">{text(one.id)}<br><span class="quiet">{text(one.source)}<br>{one.event_time}</span></td>',
        _number(_figure(one.first)),
        _number(_figure(one.second)),
        _number(_signed(one.second - one.first)),
        _number("" if one.label is None else f"{one.label:g}"),
        _number(str(one.served_version)),
        f'<td class="long">{features}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def notes(report: Report) -> str:
    lacking = report.lacking.items()
    said = [f"Left out: {rows:,} rows, as {text(what)}, which was not logged then." for what, rows in lacking]
    if report.unanswered:
        said.append(f"Left out: {report.unanswered:,} rows to which a version gave no finite answer.")
    said.append(f"Segments have {report.segment_rows:,} rows at least, and show the 20 most frequent values.")
    return " ".join(said)


def _table(label: str, headings: Sequence[str], rows: Iterable[str], right: set[int]) -> str:
    """In a frame that scrolls, and that who moves by keyboard reaches."""
    head = "".join(
        f'<th class="number">{text(heading)}</th>' if at in right else f"<th>{text(heading)}</th>"
        for at, heading in enumerate(headings)
    )
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide" role="region" tabindex="0" aria-label="{label}">{inner}</div>'


def _estimate(one: Estimate, *, signed: bool = False) -> str:
    write = _signed if signed else _figure
    inner = "" if one.low is None else f' <span class="quiet">[{write(one.low)}, {write(one.high)}]</span>'
    return f'<td class="number">{write(one.value)}{inner}</td>'


def _verdict(one: Measured) -> str:
    low, high = one.difference.low, one.difference.high
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == one.higher_is_better else "worse"


def _number(inner: str) -> str:
    return f'<td class="number">{inner}</td>'


def name_of(side: Side) -> str:
    number = f"version {side.version}" if side.version else "the baseline"
    return number + (f" ({', '.join(side.aliases)})" if side.aliases else "")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def _short(value: Any) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= _LONG else f"{shown[:_LONG]}…"


def text(value: str) -> str:
    return escape(value, quote=True)
