"""an API key → a session of this browser's, and an end to it."""

import re

from headrace.infra.console.site import Route, Site, form, redirect
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import RequestRefused

_IN_A_HEADER = re.compile(r"[!-\[\]-~]{1,4000}")  # printable ASCII, and no backslash: browsers take it for a slash
_TOKEN = 200  # characters; a key has fewer


async def _ask(site: Site, request: Request) -> Response:
    return site.page(request, "sign_in.html", title="Sign in", next=_ours(request.query("next")), problem="")


async def _begin(site: Site, request: Request) -> Response:
    fields = await form(request)
    token, further = fields.get("key", "").strip()[:_TOKEN], _ours(fields.get("next", ""))
    try:
        site.access.who("read", lambda: f"Bearer {token}")
    except RequestRefused:
        problem = "This is no key of this server, or it was revoked."
        return site.page(request, "sign_in.html", title="Sign in", next=further, problem=problem, status=401)
    response = redirect(further)
    cookie = site.sessions.begin(token, secure=site.access.is_by_https(request.headers))
    response.headers.append((b"set-cookie", cookie.encode()))
    return response


async def _end(site: Site, request: Request) -> Response:
    response = redirect("/console/sign-in")
    response.headers.append((b"set-cookie", site.sessions.end(request.headers.get(b"cookie", b"")).encode()))
    return response


def _ours(place: str) -> str:
    """A page of the console's, whoever wrote the link: it becomes a header."""
    path = place.partition("?")[0]
    is_ours = path.startswith("/console/") and "//" not in path
    return place if is_ours and _IN_A_HEADER.fullmatch(place) else "/console/pipelines"


ROUTES = [
    Route("GET", "/sign-in", _ask, role=None),
    Route("POST", "/sign-in", _begin, role=None),
    Route("POST", "/sign-out", _end, role=None),
]
