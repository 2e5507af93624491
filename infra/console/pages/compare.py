"""two versions → the numbers of `headrace model diff`: the page at once, and the comparison when it is made."""

from urllib.parse import quote

from markupsafe import Markup

from headrace.infra.console.comparisons import ROWS
from headrace.infra.console.site import HTML, SAFE, Route, Site
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import RequestRefused
from headrace.infra.services.compare import diff_parts as parts
from headrace.infra.services.versions.resolve import resolve
from headrace.models.aliases import CHAMPION
from headrace.models.errors import BadInput, HeadraceError

_OFFERED = 50  # versions, the newest


async def _page(site: Site, request: Request, pipeline: str) -> Response:
    site.place(pipeline)
    first, second = request.query("first")[:50], request.query("second")[:50]
    with site.catalog.of(pipeline).book() as book:
        newest = [*book.known.aliases, *(str(one.version) for one in book.versions()[:_OFFERED])]
    sides: tuple[int | None, int | None] = (None, None)
    problem = ""
    if second or first:
        try:
            sides = _sides(site, pipeline, first, second)
        except RequestRefused as error:
            problem = str(error)
    return site.page(
        request,
        "compare.html",
        title="Compare",
        pipeline=pipeline,
        tab="Versions",
        status=400 if problem else 200,
        first=sides[0],
        second=sides[1],
        given_first=first,
        given_second=second,
        newest=newest,
        most=ROWS,
        problem=problem,
    )


async def _result(site: Site, request: Request, pipeline: str) -> Response:
    """A piece of the page. What goes wrong is said in its place."""
    names = site.place(pipeline)
    try:
        first, second = _sides(site, pipeline, request.query("first")[:50], request.query("second")[:50])
        report = await site.comparisons(names, first, second)
    except HeadraceError as error:
        again = f"/console/p/{quote(pipeline)}/compare?{request.scope['query_string'].decode('latin-1')}"
        said = {"problem": str(error), "again": again}
        return Response(200, site.view.html("compare_result.html", said), [HTML, *SAFE])
    # every text in these pieces was escaped where they are made
    pieces = {
        "about": parts.about(report),
        "tiles": parts.tiles(report),
        "metrics": parts.metrics(report.difference.metrics),
        "verdicts": parts.verdicts(report),
        "plots": parts.drawings(report),
        "segments": parts.segments(report),
        "moved": parts.moved(report),
        "notes": parts.notes(report),
    }
    shown = {name: Markup(piece) for name, piece in pieces.items()}  # noqa: S704  see above
    return Response(200, site.view.html("compare_result.html", {"problem": "", **shown}), [HTML, *SAFE])


def _sides(site: Site, pipeline: str, first: str, second: str) -> tuple[int, int]:
    """One alone is compared with the champion. Raises RequestRefused."""
    try:
        with site.catalog.of(pipeline).book() as book:
            one, other = resolve(book.known, first or CHAMPION), resolve(book.known, second or CHAMPION)
    except BadInput as error:
        raise RequestRefused(str(error)) from error
    if one == other:
        raise RequestRefused(f"Expected two versions, both are version {one}.")
    return one, other


ROUTES = [Route("GET", "/p/{pipeline}/compare", _page), Route("GET", "/p/{pipeline}/compare/result", _result)]
