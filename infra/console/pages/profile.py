"""served rows of a range → what each column is like beside a version's training, what moved most first."""

from headrace.infra.console.fields import moment, whole_number
from headrace.infra.console.outlines import beside, outline
from headrace.infra.console.site import Route, Site, here
from headrace.infra.console.tabs import PROFILE, tabs
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import RequestRefused
from headrace.infra.services.data.column_profile import ROWS, column_profile
from headrace.infra.services.data.profiled import ColumnProfile
from headrace.models.errors import HeadraceError

_MOST = 200_000  # rows of a profile: some hundred bytes each in memory
_CHOICE = 500  # versions in a list to choose from
_FIELDS = ("rows", "since", "until", "version", "against")


async def _page(site: Site, request: Request, pipeline: str) -> Response:
    names = site.place(pipeline)
    given = {name: request.query(name).strip() for name in _FIELDS}
    with site.catalog.of(pipeline).book() as book:
        versions = sorted(book.known.published, reverse=True)
    chosen = {given["version"], given["against"]}
    return site.page(
        request,
        "profile.html",
        title="Profile",
        pipeline=pipeline,
        tab="Data",
        tabs=tabs(names, PROFILE),
        given=given | {"rows": given["rows"] or str(ROWS)},
        versions=[number for place, number in enumerate(versions) if place < _CHOICE or str(number) in chosen],
        most=_MOST,
        answer=here(request).replace("/data/profile", "/data/profile/answer", 1),
    )


async def _answer(site: Site, request: Request, pipeline: str) -> Response:
    names = site.place(pipeline)
    try:
        rows, version = whole_number(request, "rows", ROWS), whole_number(request, "version", -1)
        if not 1 <= rows <= _MOST:
            raise RequestRefused(f"rows: expected 1 to {_MOST:,}, got {rows:,}")
        since, until = moment(request, "since"), moment(request, "until")
        found = await site.ask(
            lambda: column_profile(
                site.settings,
                names,
                since=since,
                until=until,
                version=None if version < 0 else version,
                rows=rows,
                against=request.query("against").strip() or None,
            )
        )
    except HeadraceError as error:
        return site.part("profile_answer.html", found=None, text=str(error))
    columns = sorted(found.columns, key=_moved, reverse=True)
    return site.part(
        "profile_answer.html",
        found=found,
        text="",
        pipeline=pipeline,
        columns=columns,
        drawings={one.name: _drawn(one) for one in columns},
    )


def _moved(column: ColumnProfile) -> tuple[bool, float]:
    """What is significant first, and of that the farthest."""
    against = column.against
    return (False, -1.0) if against is None or against.psi is None else (against.significant, against.psi)


def _drawn(column: ColumnProfile) -> str:
    if column.against is not None and column.rows:
        return beside(column.against.bins)
    return outline(column.number.histogram) if column.number is not None else ""


ROUTES = [
    Route("GET", "/p/{pipeline}/data/profile", _page),
    Route("GET", "/p/{pipeline}/data/profile/answer", _answer),
]
