"""HTTP → the Open Inference Protocol v2, predictions for events, trainings on demand. An ASGI application without a
framework: what is asked thousands of times a second passes through as few hands as possible."""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any

import msgspec

from headrace.infra.api_keys import Role
from headrace.infra.serve import messages
from headrace.infra.serve.access import Access
from headrace.infra.serve.events import EventRefused
from headrace.infra.serve.http import JSON, ClientGone, Receive, Request, Response, Send, respond
from headrace.infra.serve.operations import Operations
from headrace.infra.serve.refusals import NotAllowed, NotFound, RequestRefused, Unprocessable
from headrace.infra.serve.rows import Events
from headrace.infra.serve.service import Service
from headrace.infra.serve.tally import Tally

HEADER_LENGTH = b"inference-header-content-length"
EXTENSIONS = ["binary_tensor_data", "model_repository"]
_BINARY = (b"content-type", b"application/octet-stream")
_CONSOLE = ("", "console")  # the first part of a path that is for people
_MOST_PARTS = 7  # of a path
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("headrace.serve")
Handler = Callable[..., Awaitable[Response]]
Routes = Mapping[str, tuple[Handler, Role | None]]  # by method; None: whoever reaches it, as probes do


class RepositoryIndex(msgspec.Struct, frozen=True):
    ready: bool = False


_index = msgspec.json.Decoder(RepositoryIndex).decode


class Rest:
    def __init__(
        self,
        service: Service,
        access: Access,
        operations: Operations,
        tally: Tally,
        *,
        version: str,
        pages: Mapping[str, tuple[bytes, bytes]],
        console: Callable[[Request, Send], Awaitable[int]] | None = None,
    ) -> None:
        """`pages` are there as they are: a path's one part → content type, body. `console`: all below /console."""
        self._service, self._access, self._operations, self._tally = service, access, operations, tally
        self._pages, self._bodies, self._console = pages, service.bodies, console
        self._events = Events(service.limits.request_rows)
        self._server = _encode({"name": "headrace", "version": version, "extensions": EXTENSIONS})

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive, self._bodies)
        operation = "unknown"
        if self._console is not None and request.parts[0] in _CONSOLE:
            try:
                await self._console(request, send)
            finally:
                request.release()
            return
        try:
            try:
                routes, operation, arguments = self._route(request.parts)
                response = await self._handler(request, routes)(request, *arguments)
            except RequestRefused as refused:
                response = _refusal(refused)
            except ClientGone:
                return
            except Exception:  # noqa: BLE001  whoever asks hears that it is our mistake, and its log says which
                _log.exception("request %s %s %s", request.id.decode(), operation, request.trace)
                response = Response(500, _encode({"error": f"request {request.id.decode()}: see the server's log"}))
            request.release()  # who does not read the answer holds no room of the others
            await respond(send, request.id, response)
        finally:
            request.release()
        self._tally.answered("rest", operation, str(response.status), monotonic() - request.arrived)

    def _handler(self, request: Request, routes: Routes) -> Handler:
        """Raises NotAllowed, Forbidden, Unauthenticated, RequestRefused."""
        route = routes.get(request.method)
        if route is None:
            raise NotAllowed(request.method, ", ".join(routes))
        handler, role = route
        if role is not None:
            self._access.check_place(request.headers, changes=request.method != "GET")
            request.who = self._access.who(role, request.authorization)
        request.read_deadline()
        return handler

    def _route(self, parts: list[str]) -> tuple[Routes, str, tuple[str, ...]]:  # noqa: C901, PLR0911, PLR0912  one table
        if len(parts) > _MOST_PARTS:
            raise NotFound("path: expected one of /openapi.json")
        match parts:
            case ["v2", "models", model, "infer"]:
                return {"POST": (self._infer, "predict")}, "infer", (model, "")
            case ["v2", "models", model, "versions", version, "infer"]:
                return {"POST": (self._infer, "predict")}, "infer", (model, version)
            case ["v1", "pipelines", pipeline, "predict"]:
                return {"POST": (self._predict, "predict")}, "predict", (pipeline,)
            case ["v2", "health", "live"]:
                return {"GET": (self._live, None)}, "live", ()
            case ["v2", "health", "ready"]:
                return {"GET": (self._ready, None)}, "ready", ()
            case ["v2"] | ["v2", ""]:
                return {"GET": (self._metadata, "read")}, "server_metadata", ()
            case ["v2", "models", model]:
                return {"GET": (self._model, "read")}, "model_metadata", (model, "")
            case ["v2", "models", model, "versions", version]:
                return {"GET": (self._model, "read")}, "model_metadata", (model, version)
            case ["v2", "models", model, "ready"]:
                return {"GET": (self._model_ready, "read")}, "model_ready", (model, "")
            case ["v2", "models", model, "versions", version, "ready"]:
                return {"GET": (self._model_ready, "read")}, "model_ready", (model, version)
            case ["v2", "repository", "index"]:
                return {"POST": (self._index, "read")}, "repository_index", ()
            case ["v1", "pipelines", pipeline, "retrain"]:
                return {"POST": (self._retrain, "operate")}, "retrain", (pipeline,)
            case ["v1", "pipelines", pipeline, "runs"]:
                return {"GET": (self._runs, "read")}, "runs", (pipeline,)
            case ["v1", "pipelines", pipeline, "runs", run]:
                return {"GET": (self._run, "read")}, "run", (pipeline, run)
            case [page] if page in self._pages:
                return {"GET": (self._page, "read")}, "page", (page,)
        raise NotFound("path: expected one of /openapi.json")

    # ── predictions ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _infer(self, request: Request, model: str, version: str) -> Response:
        pipeline = self._service.pipeline(model)
        body = await request.body()
        asked, given = messages.parsed(body, _header_length(request, len(body)))
        if asked.parameters is not None and asked.parameters.timeout is not None:
            request.within(messages.milliseconds(asked.parameters.timeout))
        served = pipeline.versions.there(version) or await pipeline.versions.load(version, request.deadline)
        for one in asked.outputs or ():
            messages.expect_output(served, one.name)
        scores = await pipeline.infer(served, given, request.deadline)
        answer, length = messages.answered(served, asked, scores)
        if length is None:
            return Response(200, answer)
        return Response(200, answer, [_BINARY, (HEADER_LENGTH, b"%d" % length)])

    async def _predict(self, request: Request, name: str) -> Response:
        pipeline = self._service.pipeline(name)
        version = request.query("version")
        body = await request.body()
        many = body.lstrip()[:1] == b"["
        events = self._events(body) if many else [body]
        if not events:
            return Response(200, b"[]")
        served = pipeline.versions.there(version) or await pipeline.versions.load(version, request.deadline)
        answers = await pipeline.predict(served, events, request.deadline)
        if not many and isinstance(answers[0], EventRefused):
            return Response(422, _encode(answers[0]))
        return Response(200, _encode(answers if many else answers[0]))

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, _request: Request) -> Response:
        return Response(200, b'{"live":true}')

    async def _ready(self, _request: Request) -> Response:
        if self._service.ready:
            return Response(200, b'{"ready":true}')
        said = self._service.outdated()
        return Response(503, _encode({"ready": False} | ({"error": said} if said else {})))

    async def _metadata(self, _request: Request) -> Response:
        return Response(200, self._server)

    async def _model(self, request: Request, model: str, version: str) -> Response:
        pipeline = self._service.pipeline(model)
        served = await pipeline.versions.load(version, request.deadline)
        return Response(200, _encode(messages.metadata(served, pipeline.numbers())))

    async def _model_ready(self, _request: Request, model: str, version: str) -> Response:
        pipeline = self._service.pipeline(model)
        ready = self._service.ready and pipeline.is_ready(version)
        return Response(200 if ready else 503, _encode({"name": model, "ready": ready}))

    async def _index(self, request: Request) -> Response:
        body = await request.body()
        try:
            ready = _index(body).ready if body else False
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestRefused(f'body: expected nothing, or {{"ready": true}}; {error}') from error
        return Response(200, _encode(self._service.index(ready=ready)))

    async def _page(self, _request: Request, page: str) -> Response:
        kind, body = self._pages[page]
        return Response(200, body, [(b"content-type", kind), (b"x-content-type-options", b"nosniff")])

    # ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _retrain(self, request: Request, pipeline: str) -> Response:
        accepted = await self._operations.retrain(pipeline, await request.body(), request.who)
        place = f"/v1/pipelines/{pipeline}/runs/{accepted.run}"
        return Response(202, _encode(accepted), [JSON, (b"location", place.encode())])

    async def _runs(self, _request: Request, pipeline: str) -> Response:
        return Response(200, _encode(await self._operations.runs(pipeline)))

    async def _run(self, _request: Request, pipeline: str, run: str) -> Response:
        return Response(200, _encode(await self._operations.run(pipeline, run)))


def _header_length(request: Request, size: int) -> int | None:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not given.isdigit() or not 0 < int(given[:20]) <= size:
        got = repr(given[:40].decode("latin-1"))
        raise RequestRefused(f"Inference-Header-Content-Length: expected the JSON's length, 1 to {size:,}; got {got}")
    return int(given)


def _refusal(refused: RequestRefused) -> Response:
    said = {"error": str(refused)}
    if isinstance(refused, Unprocessable):
        said["reason"] = refused.reason
    response = Response(refused.status, _encode(said))
    if refused.retry_after is not None:
        response.headers = [JSON, (b"retry-after", b"%d" % refused.retry_after)]
    elif isinstance(refused, NotAllowed):
        response.headers = [JSON, (b"allow", refused.allowed.encode())]
    elif refused.status == 401:
        response.headers = [JSON, (b"www-authenticate", b"Bearer")]
    return response
