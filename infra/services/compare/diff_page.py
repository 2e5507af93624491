"""a comparison → one HTML page that needs nothing else: no script, no network, legible in light and in dark."""

from importlib.resources import files
from string import Template

from headrace.infra.services.compare import diff_parts as parts
from headrace.infra.services.compare.model_diff import Report


def page(report: Report) -> str:
    template = (files("headrace.infra.services.compare") / "templates" / "diff.html.tmpl").read_text(encoding="utf-8")
    first, second = (parts.text(parts.name_of(side)) for side in (report.first, report.second))
    name = parts.text(report.pipeline)
    return Template(template).substitute(
        title=f"{name}: {first} against {second}",
        heading=f'{name}: <span class="first">{first}</span> against <span class="second">{second}</span>',
        about=parts.about(report),
        tiles=parts.tiles(report),
        metrics=parts.metrics(report.difference.metrics),
        verdicts=parts.verdicts(report),
        plots=parts.drawings(report),
        segments=parts.segments(report),
        moved=parts.moved(report),
        notes=f"{parts.notes(report)} Made by headrace model diff.",
    )
