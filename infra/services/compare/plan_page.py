"""a plan's report → one HTML page that needs nothing else: no script, no network, legible in light and in dark.

Names are users' data: every text goes through `_text`.
"""

from html import escape
from importlib.resources import files
from string import Template

from headrace.infra.services.compare import plots
from headrace.infra.services.compare.plan import Report, Row


def page(report: Report) -> str:
    template = (files("headrace.infra.services.compare") / "templates" / "plan.html.tmpl").read_text(encoding="utf-8")
    name = _text(report.pipeline)
    return Template(template).substitute(
        title=f"{name}: which schedule?",
        heading=f"{name}: which schedule?",
        about=f"{report.rows:,} served rows with a label, from {report.since} to {report.until}, replayed under each"
        " policy: labels became visible when they came, and each row was scored by what would have served it.",
        verdict=_verdict(report),
        costs=_costs(report),
        periods=_periods(report),
        policies=_policies(report),
        notes="Intervals are of 95 %, by a paired bootstrap over rows. Seconds are those of the trainings on the"
        " machine that made the plan. Made by headrace plan.",
    )


def _verdict(report: Report) -> str:
    chosen = next((row for row in report.policies if row.recommended), None)
    if chosen is None:
        return "No policy can be recommended: the metric cannot be said on these rows."
    return (
        f'<b class="chosen">{_text(chosen.policy)}</b> is the cheapest that is surely not worse than the best by more'
        f" than {report.tolerance:g}: {_text(report.metric)} {_figure(chosen.live_metric)}, {chosen.trainings:,}"
        f" trainings, {chosen.training_seconds:,.1f} s."
    )


def _costs(report: Report) -> str:
    points = [
        plots.Point(
            name=_text(row.policy),
            cost=row.training_seconds,
            value=row.live_metric,
            low=row.live_metric if row.ci_low is None else row.ci_low,
            high=row.live_metric if row.ci_high is None else row.ci_high,
        )
        for row in report.policies
        if row.live_metric is not None
    ]
    if not points:
        return '<p class="quiet">The metric cannot be said on these rows.</p>'
    sign = 1 if report.higher_is_better else -1
    best = max((point.value for point in points), key=lambda value: sign * value)
    caption = f"{_text(report.metric)} upwards, seconds of training across; dashed: the best, less the tolerance"
    return _figure_of(caption, plots.costs(points, best - sign * report.tolerance))


def _periods(report: Report) -> str:
    series = [row.periods for row in report.policies]
    if not any(value is not None for one in series for value in one):
        return '<p class="quiet">The metric cannot be said on any part of the time.</p>'
    caption = f"{_text(report.metric)} in twelfths of the time, by policy"
    return _figure_of(caption, plots.lines(series, (report.since[:10], report.until[:10])))


def _policies(report: Report) -> str:
    headings = ["", "policy", report.metric, "95 %", "behind the best", "trainings", "promoted", "seconds", ""]
    right = {2, 3, 4, 5, 6, 7}
    head = "".join(
        f'<th class="number">{_text(heading)}</th>' if at in right else f"<th>{_text(heading)}</th>"
        for at, heading in enumerate(headings)
    )
    rows = "".join(_row(number, row) for number, row in enumerate(report.policies))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(number: int, row: Row) -> str:
    figures = [
        _figure(row.live_metric),
        _interval(row.ci_low, row.ci_high),
        f"{_figure(row.behind)} {_interval(row.behind_low, row.behind_high)}",
        f"{row.trainings:,}",
        f"{row.promotions:,}",
        f"{row.training_seconds:,.1f}",
    ]
    cells = "".join(f'<td class="number">{figure}</td>' for figure in figures)
    chosen = '<td class="chosen">recommended</td>' if row.recommended else "<td></td>"
    mark = f'<td class="series series-{number % plots.SERIES}">●</td>'
    return f"<tr>{mark}<td>{_text(row.policy)}</td>{cells}{chosen}</tr>"


def _figure_of(caption: str, plot: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{plot}</figure>"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f'<span class="quiet">[{_figure(low)}, {_figure(high)}]</span>'


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f}"


def _text(value: str) -> str:
    return escape(value, quote=True)
