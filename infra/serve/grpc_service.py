"""gRPC → the Open Inference Protocol v2: the same pipelines, lanes and refusals as by REST."""

import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from headrace.infra.api_keys import Role
from headrace.infra.serve import messages
from headrace.infra.serve.access import Access
from headrace.infra.serve.grpc_messages import SERVICE, message
from headrace.infra.serve.receiving import Receiving
from headrace.infra.serve.refusals import RequestRefused
from headrace.infra.serve.rest import EXTENSIONS
from headrace.infra.serve.servable import Scores, Servable
from headrace.infra.serve.service import Service
from headrace.infra.serve.tally import Tally
from headrace.infra.serve.tensors import Given, to_binary

_INFER_RESPONSE = message("ModelInferResponse")
_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}
_log = logging.getLogger("headrace.serve")
Context = Any  # grpc.aio.ServicerContext: grpcio has no types of its own
Method = Callable[[Any, float], Awaitable[Any]]  # request, deadline in monotonic seconds


class Grpc:
    """The methods, as handlers for a `grpc.aio.Server`."""

    def __init__(self, service: Service, access: Access, tally: Tally, *, version: str) -> None:
        self._service, self._access, self._tally, self._version = service, access, tally, version
        self._receiving = Receiving(service.bodies)

    def handler(self) -> grpc.GenericRpcHandler:
        methods: dict[str, tuple[Method, Role | None]] = {
            "ServerLive": (self._live, None),
            "ServerReady": (self._ready, None),
            "ModelReady": (self._model_ready, "read"),
            "ServerMetadata": (self._metadata, "read"),
            "ModelMetadata": (self._model, "read"),
            "ModelInfer": (self._infer, "predict"),
            "RepositoryIndex": (self._index, "read"),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.stream_unary_rpc_method_handler(  # of one message, read when there is room for it
                    self._answering(name, method, role),
                    response_serializer=message(f"{name}Response").SerializeToString,
                )
                for name, (method, role) in methods.items()
            },
        )

    def _answering(self, name: str, method: Method, role: Role | None) -> Callable[[Any, Context], Awaitable[Any]]:
        most, parsed = self._service.limits.deadline_seconds, message(f"{name}Request").FromString

        async def answer(_requests: Any, context: Context) -> Any:
            arrived, status, data = monotonic(), "OK", b""
            given = dict(context.invocation_metadata() or ())
            if identity := given.get("x-request-id"):
                await context.send_initial_metadata((("x-request-id", identity),))
            left = context.time_remaining()
            deadline = arrived + (most if left is None else min(left, most))
            try:
                if role is None:  # probes say nothing, and are answered whatever else comes in
                    return await method(None, deadline)
                self._access.who(role, lambda: _text(given.get("authorization")))
                data = await self._receiving.read(context, deadline)
                return await method(parsed(data), deadline)
            except DecodeError as error:
                status = "INVALID_ARGUMENT"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected a {name}Request; {error}")
            except RequestRefused as refused:
                status = refused.code.name
                await context.abort(refused.code, str(refused), _trailing(refused))
            except Exception as error:
                if isinstance(error, grpc.aio.AbortError):
                    raise
                status = "INTERNAL"
                _log.exception("request %s %s %s", identity or "", name, given.get("traceparent", ""))
                await context.abort(grpc.StatusCode.INTERNAL, "see the server's log")
            finally:
                self._receiving.release(data)
                self._tally.answered("grpc", name, status, monotonic() - arrived)

        return answer

    async def _infer(self, request: Any, deadline: float) -> Any:
        pipeline = self._service.pipeline(request.model_name)
        if "timeout" in request.parameters:
            within = messages.milliseconds(_timeout(request.parameters["timeout"]))
            if within is not None:
                deadline = min(deadline, monotonic() + within / 1000)
        given = _given(request)
        version = request.model_version
        served = pipeline.versions.there(version) or await pipeline.versions.load(version, deadline)
        for one in request.outputs:
            messages.expect_output(served, one.name)
        scores = await pipeline.infer(served, given, deadline)
        return _answered(served, request.id, scores, raw=bool(request.raw_input_contents))

    async def _live(self, _request: Any, _deadline: float) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, _request: Any, _deadline: float) -> Any:
        return message("ServerReadyResponse")(ready=self._service.ready)

    async def _model_ready(self, request: Any, _deadline: float) -> Any:
        ready = self._service.ready and self._service.pipeline(request.name).is_ready(request.version)
        return message("ModelReadyResponse")(ready=ready)

    async def _metadata(self, _request: Any, _deadline: float) -> Any:
        return message("ServerMetadataResponse")(name="headrace", version=self._version, extensions=EXTENSIONS)

    async def _model(self, request: Any, deadline: float) -> Any:
        pipeline = self._service.pipeline(request.name)
        served = await pipeline.versions.load(request.version, deadline)
        known = messages.metadata(served, pipeline.numbers())
        answer = message("ModelMetadataResponse")(name=known.name, versions=known.versions, platform=known.platform)
        for one in known.inputs:
            answer.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        for one in known.outputs:
            answer.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        return answer

    async def _index(self, request: Any, _deadline: float) -> Any:
        answer = message("RepositoryIndexResponse")()
        for one in self._service.index(ready=request.ready):
            answer.models.add(name=one.name, version=one.version, state=one.state, reason=one.reason)
        return answer


def _timeout(parameter: Any) -> int | str:
    """As a whole number or as a text, as by REST. Raises RequestRefused."""
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param", "string_param"):
        raise RequestRefused(f"parameters.timeout: expected microseconds as int64_param; got {kind or 'nothing'}")
    found: int | str = getattr(parameter, kind)
    return found


def _given(request: Any) -> list[Given]:
    """Raises RequestRefused."""
    raw = request.raw_input_contents
    if raw:
        if len(raw) != len(request.inputs):
            raise RequestRefused(f"raw_input_contents: expected {len(request.inputs)}, one per input; got {len(raw)}")
        return [
            Given(one.name, one.datatype, one.shape, binary=memoryview(data))
            for one, data in zip(request.inputs, raw, strict=True)
        ]
    return [
        Given(one.name, one.datatype, one.shape, flat=getattr(one.contents, _CONTENTS.get(one.datatype, ""), ()))
        for one in request.inputs
    ]


def _answered(served: Servable, identity: str, scores: Scores, *, raw: bool) -> Any:
    """In the form of the question: raw, or as contents."""
    answer = _INFER_RESPONSE(model_name=served.pipeline, model_version=str(served.version), id=identity)
    spec = served.output
    tensor = answer.outputs.add(name=spec.name, datatype=spec.datatype, shape=scores.shape)
    if raw:
        answer.raw_output_contents.append(to_binary(scores))
    else:
        getattr(tensor.contents, _CONTENTS[spec.datatype]).extend(scores.ravel().tolist())
    return answer


def _trailing(refused: RequestRefused) -> tuple[tuple[str, str], ...]:
    """The second one is what gRPC's own clients wait for before they try again (gRFC A6)."""
    after = refused.retry_after
    return () if after is None else (("retry-after", str(after)), ("grpc-retry-pushback-ms", str(1_000 * after)))


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
