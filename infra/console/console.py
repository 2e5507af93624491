"""a request below /console → its page. Every refusal is a page, too, with what was expected."""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from urllib.parse import quote

from headrace.infra.console.pages import (
    compare,
    data,
    explain,
    letters,
    moves,
    overview,
    profile,
    run,
    runs,
    signing_in,
    version,
    versions,
)
from headrace.infra.console.site import HTML, SAFE, Route, Site, redirect
from headrace.infra.serve.http import ClientGone, Request, Response, Send, respond
from headrace.infra.serve.refusals import NotAllowed, NotFound, RequestRefused, Unauthenticated
from headrace.models.errors import HeadraceError

_ROUTES: Sequence[Route] = (
    *signing_in.ROUTES,
    *overview.ROUTES,
    *versions.ROUTES,
    *version.ROUTES,
    *moves.ROUTES,
    *compare.ROUTES,
    *runs.ROUTES,
    *run.ROUTES,
    *data.ROUTES,
    *letters.ROUTES,
    *profile.ROUTES,
    *explain.ROUTES,
)
_YEAR = b"public, max-age=31536000, immutable"  # of a static file: its path has its hash
_WATCHED = 20  # kinds of changes of one page
_CATCH_UP_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_log = logging.getLogger("headrace.console")


class Console:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, request: Request, send: Send) -> int:
        """Answers, and gives the status."""
        parts = request.parts[1:] if request.parts[0] == "console" else []
        try:
            if not parts or parts == [""]:
                response = redirect("/console/pipelines")
            elif parts[0] == "static":
                response = self._static(parts)
            elif parts == ["changes"]:
                self._let_in(request, Route("GET", "/changes", self.__call__))
                key = self._site.access.key("read", lambda: self._site.authorization(request))
                topics, since = request.query("watch").split(",")[:_WATCHED], _since(request)
                whose = "" if key is None else key.id
                await self._site.hub.stream(topics, since, request.receive, send, key=whose)
                return 200
            else:
                response = await self._page(request, parts)
        except Unauthenticated:
            response = _to_sign_in(request)
        except ClientGone:
            return 499  # nobody reads it: what proxies log for such
        except RequestRefused as refused:
            response = self._refused(request, refused.status, str(refused))
            if refused.retry_after is not None:
                response.headers.append((b"retry-after", b"%d" % refused.retry_after))
        except HeadraceError as error:
            response = self._refused(request, 503, str(error))
        except Exception:  # noqa: BLE001  whoever asks hears that it is our mistake, and its log says which
            _log.exception("request %s %s", request.id.decode(), request.scope["path"])
            response = self._refused(request, 500, f"Our mistake. Request {request.id.decode()}: see the server's log.")
        await respond(send, request.id, response)
        return response.status

    async def _page(self, request: Request, parts: Sequence[str]) -> Response:
        allowed = []
        for route in _ROUTES:
            found = route.matches(parts)
            if found is None:
                continue
            allowed.append(route.method)
            if route.method == request.method:
                self._let_in(request, route)
                if route.role is not None:
                    await self._caught_up()
                answer: Response = await route.handler(self._site, request, **found)
                return answer
        if allowed:
            raise NotAllowed(request.method, ", ".join(allowed))
        raise NotFound("There is no such page.")

    async def _caught_up(self) -> None:
        """A server that has just begun knows no version so far, and would say that there is none."""
        deadline = monotonic() + _CATCH_UP_SECONDS
        # no thread, as many may ask at once; a thread sets it, so it is no event of this loop
        while not self._site.catalog.ready.is_set() and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)

    def _let_in(self, request: Request, route: Route) -> None:
        """Raises Forbidden, Unauthenticated."""
        self._site.access.check_place(request.headers, changes=route.method != "GET")
        if route.role is not None:
            request.who = self._site.access.who(route.role, lambda: self._site.authorization(request))

    def _static(self, parts: Sequence[str]) -> Response:
        found = self._site.view.static.get(parts[-1]) if len(parts) == 3 else None
        if found is None:
            raise NotFound("There is no such file.")
        kind, body = found
        return Response(200, body, [(b"content-type", kind), (b"cache-control", _YEAR), *SAFE[:-1]])

    def _refused(self, request: Request, status: int, text: str) -> Response:
        if request.headers.get(b"hx-request") == b"true":
            return Response(status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8"), *SAFE])
        try:
            return self._site.page(request, "refused.html", title="Not possible", status=status, text=text)
        except RequestRefused:  # its query, even
            return Response(status, self._site.view.html("plain.html", {"text": text}), [HTML, *SAFE])


def _to_sign_in(request: Request) -> Response:
    """And back to the page. A piece of one takes its page there: it is no place to sign in."""
    query = request.scope["query_string"].decode("latin-1")
    if request.headers.get(b"hx-request") != b"true":
        return redirect(f"/console/sign-in?next={quote(quote(request.scope['path']) + (query and f'?{query}'))}")
    address = request.headers.get(b"hx-current-url", b"").decode("latin-1")
    place = f"/console/sign-in?next={quote('/' + '/'.join(address.split('/')[3:]))}"  # without scheme and host
    return Response(401, b"", [(b"hx-redirect", place.encode()), *SAFE])


def _since(request: Request) -> float:
    """When the page came that listens. Raises RequestRefused."""
    text = request.query("since")
    try:
        return float(text) if text else request.arrived
    except ValueError as error:
        raise RequestRefused(f"since: expected seconds, got {text[:40]!r}") from error
