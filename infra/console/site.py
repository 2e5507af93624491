"""what every page is given, and how its answer is made."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, quote

from headrace.infra.console.board import Board
from headrace.infra.console.comparisons import Comparisons
from headrace.infra.console.hub import Hub
from headrace.infra.console.once import Once
from headrace.infra.console.sessions import Sessions
from headrace.infra.console.view import View
from headrace.infra.names import Names
from headrace.infra.serve.access import Access
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.in_threads import InThreads
from headrace.infra.serve.refusals import NotFound, RequestRefused, TooLarge
from headrace.infra.services.compare.live_lines import LiveLines
from headrace.infra.services.versions.event_times import EventTimes
from headrace.infra.services.watch.live_catalog import LiveCatalog
from headrace.infra.settings import Settings
from headrace.infra.training import Origin
from headrace.models.pipeline import Pipeline

HTML = (b"content-type", b"text/html; charset=utf-8")
# Nothing from elsewhere, no inline script, no frame: whatever a record's text may hold.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    b" form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_FIELDS = 200  # of a form
_FORM_BYTES = 256 * 1024  # fifty places and a reason are some kilobytes
_QUESTIONS = 8  # to the broker, at once
_MORE_QUESTIONS = 128  # that wait: pages that are open all ask at once when something changes
_NOTICES = 200  # texts that wait for their page


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who looks at a page, and what they may do."""

    name: str
    operates: bool
    signed_in: bool  # with a key: then there is a way out


class Site:
    """One console. For the event loop; `ask` takes what waits for the broker to a thread."""

    def __init__(
        self,
        settings: Settings,
        pipelines: Mapping[str, Pipeline],
        origins: Mapping[str, Origin],
        access: Access,
        catalog: LiveCatalog,
        board: Board,
        hub: Hub,
        view: View,
        port: int,
    ) -> None:
        """`origins` where the pipelines' files are known: then whoever asks for a move may lead for it."""
        self.settings, self.access, self.catalog, self.hub, self.view = settings, access, catalog, hub, view
        self.board = board
        self.lines: dict[str, tuple[float, asyncio.Task[LiveLines]]] = {}  # since when they are read, by pipeline
        self.names = {name: Names(settings.prefix, pipeline) for name, pipeline in pipelines.items()}
        self.origins, self.sessions = origins, Sessions(port)
        self.ask = InThreads(_QUESTIONS, waiting=_MORE_QUESTIONS)
        self._notices: dict[str, str] = {}
        self.once = Once()
        self.comparisons = Comparisons(settings)
        self.event_times = {name: EventTimes(settings, names) for name, names in self.names.items()}

    def close(self) -> None:
        for times in self.event_times.values():
            times.close()

    def place(self, pipeline: str) -> Names:
        """Raises NotFound."""
        found = self.names.get(pipeline)
        if found is None:
            raise NotFound(f"pipeline: expected one of {', '.join(list(self.names)[:20])}; got {pipeline[:100]!r}")
        return found

    def page(
        self,
        request: Request,
        template: str,
        *,
        title: str,
        pipeline: str = "",
        tab: str = "",
        watch: Sequence[str] = (),
        status: int = 200,
        **data: Any,
    ) -> Response:
        """`watch` are the changes (`kind:pipeline`) at which an open page asks for itself again."""
        own = {
            "title": title,
            "pipeline": pipeline,
            "pipelines": list(self.names),
            "tab": tab,
            "watch": ",".join(watch),
            "since": request.arrived,
            "asker": self.asker(request),
            "here": here(request),
            "notice": self._notices.pop(request.query("notice"), ""),
        }
        return Response(status, self.view.html(template, own | data), [HTML, *SAFE])

    def part(self, template: str, **data: Any) -> Response:
        """Of a page, which asks for it by itself: what takes a while. Always 200: a refusal, too, is shown there."""
        return Response(200, self.view.html(template, data), [HTML, *SAFE])

    def asker(self, request: Request) -> Asker:
        try:
            self.access.who("operate", lambda: self.authorization(request))
            operates = True
        except RequestRefused:
            operates = False
        signed_in = self.sessions.authorization(request.headers.get(b"cookie", b"")) is not None
        return Asker(name=request.who, operates=operates, signed_in=signed_in)

    def authorization(self, request: Request) -> str | None:
        """A program's header, else what a browser's cookie stands for."""
        return request.authorization() or self.sessions.authorization(request.headers.get(b"cookie", b""))

    def notice(self, place: str, text: str) -> Response:
        """On to a page of ours that says it once."""
        key = token_urlsafe(12)
        self._notices[key] = text
        while len(self._notices) > _NOTICES:
            del self._notices[next(iter(self._notices))]
        return redirect(f"{place}{'&' if '?' in place else '?'}notice={key}")


@dataclass(frozen=True)
class Route:
    """`pattern` is a path below /console whose parts in braces are the handler's arguments."""

    method: str
    pattern: str
    handler: Callable[..., Any]
    role: Any = "read"

    def matches(self, parts: Sequence[str]) -> dict[str, str] | None:
        wanted = self.pattern.split("/")[1:]
        if len(wanted) != len(parts):
            return None
        found = {}
        for want, got in zip(wanted, parts, strict=True):
            if want.startswith("{"):
                if not got:
                    return None
                found[want[1:-1]] = got
            elif want != got:
                return None
        return found


def here(request: Request, **changed: str) -> str:
    """The path and query of the request, with some of its parameters changed; "" takes one away.

    Raises RequestRefused.
    """
    try:
        query = parse_qs(request.scope["query_string"].decode("latin-1"), max_num_fields=_FIELDS)
    except ValueError as error:
        raise RequestRefused(f"query: expected up to {_FIELDS} parameters; {error}") from error
    pairs = {name: values[-1] for name, values in query.items() if name != "notice"} | changed
    text = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs.items() if value)
    return quote(request.scope["path"]) + (f"?{text}" if text else "")


def redirect(place: str) -> Response:
    return Response(303, b"", [(b"location", place.encode()), *SAFE])


async def form(request: Request) -> dict[str, str]:
    """Raises RequestRefused."""
    body = await request.body()
    if len(body) > _FORM_BYTES:
        raise TooLarge(f"form: expected up to {_FORM_BYTES:,} bytes, got {len(body):,}")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError as error:
        raise RequestRefused(f"form: expected name=value, UTF-8 and percent-encoded; {error}") from error
    # a browser writes a new line as two characters, and counts one against a text's maxlength
    return {name: values[-1].replace("\r\n", "\n") for name, values in fields.items()}
