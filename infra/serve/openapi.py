"""what the REST face answers → its OpenAPI description, and a page of it that needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import msgspec

from headrace.infra.serve.events import EventClass, EventPrediction, EventRefused
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.messages import InferRequest, ModelMetadata
from headrace.infra.serve.operations import RetrainAccepted, RetrainRequest
from headrace.infra.serve.rest import RepositoryIndex
from headrace.infra.serve.service import Indexed
from headrace.infra.services.versions.book import RunFacts

_ID_LENGTH, _NAME_LENGTH = 128, 100


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What was expected, and what came; `reason` where an event would be a dead letter."""

    error: str
    reason: str = ""


class Live(msgspec.Struct, frozen=True):
    live: bool


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool
    name: str = ""
    error: str = ""  # what to do, where it does not become ready by itself


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    extensions: list[str]


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """`data` row by row; without it, where the answer is binary."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] = []
    parameters: dict[str, int] = {}


class InferResponse(msgspec.Struct, frozen=True, kw_only=True):
    model_name: str
    model_version: str
    id: str = ""
    outputs: list[Tensor]


_TYPES = {
    **{
        kind.__name__: kind
        for kind in (
            *(
                EventClass,
                EventPrediction,
                EventRefused,
                InferRequest,
                InferResponse,
                Live,
                ModelMetadata,
                Ready,
                Refusal,
            ),
            *(RepositoryIndex, RetrainAccepted, RetrainRequest, ServerMetadata),
        )
    },
    "Index": list[Indexed],
    "RunFacts": RunFacts,
    "Runs": list[RunFacts],
}


def description(pipelines: Sequence[str], limits: Limits, version: str) -> dict[str, Any]:
    """OpenAPI 3.1."""
    schemas, components = msgspec.json.schema_components(_TYPES.values(), ref_template="#/components/schemas/{name}")
    shown = dict(zip(_TYPES, schemas, strict=True))
    event = {"type": "object", "description": "as it is on the events topic"}
    some = [shown[name] for name in ("EventPrediction", "EventClass", "EventRefused")]
    shown["Predictions"] = {"anyOf": [*some[:2], {"type": "array", "items": {"anyOf": some}}]}
    shown["Events"] = {"oneOf": [event, {"type": "array", "items": event, "maxItems": limits.request_rows}]}
    model, pipeline = _path("model", pipelines), _path("pipeline", pipelines)
    number, run = _path("version", (), "a number, or an alias as champion"), _path("run", (), "or its beginning")
    infer = _post("Predict for tensors; binary as in Triton's extension", "predict", shown, "InferRequest")
    paths: dict[str, Any] = {
        "/v2": _get("What answers here", "read", shown, "ServerMetadata"),
        "/v2/health/live": _get("Whether the process answers", None, shown, "Live"),
        "/v2/health/ready": _get("Whether to send requests here", None, shown, "Ready", not_yet="Ready"),
        "/v2/models/{model}": _get("Names, shapes, datatypes", "read", shown, "ModelMetadata", model),
        "/v2/models/{model}/versions/{version}": _get(
            "Those of a version, loaded for it", "read", shown, "ModelMetadata", model, number
        ),
        "/v2/models/{model}/ready": _get("Whether it answers", "read", shown, "Ready", model, not_yet="Ready"),
        "/v2/models/{model}/versions/{version}/ready": _get(
            "Whether it answers at once", "read", shown, "Ready", model, number, not_yet="Ready"
        ),
        "/v2/models/{model}/infer": _with(infer(("200", "InferResponse")), model),
        "/v2/models/{model}/versions/{version}/infer": _with(infer(("200", "InferResponse")), model, number),
        "/v2/repository/index": _post("What there is", "read", shown, "RepositoryIndex", needed=False)(
            ("200", "Index")
        ),
        "/v1/pipelines/{pipeline}/predict": _with(
            _post("Predict for an event, or a list of them", "predict", shown, "Events")(
                ("200", "Predictions"), ("422", "EventRefused")
            ),
            pipeline,
            {"name": "version", "in": "query", "schema": {"type": "string"}, "description": "a number or an alias"},
        ),
        "/v1/pipelines/{pipeline}/retrain": _with(
            _post("Ask for a training now", "operate", shown, "RetrainRequest", needed=False)(
                ("202", "RetrainAccepted")
            ),
            pipeline,
        ),
        "/v1/pipelines/{pipeline}/runs": _get("The newest trainings", "read", shown, "Runs", pipeline),
        "/v1/pipelines/{pipeline}/runs/{run}": _get("A training", "read", shown, "RunFacts", pipeline, run),
    }
    refused = {
        "description": "Refused: see error. 429 and 503 say with Retry-After when to ask again.",
        "content": {"application/json": {"schema": shown["Refusal"]}},
    }
    for path in paths.values():
        for operation in path.values():
            operation["responses"]["default"] = refused
            operation["parameters"] = [*operation.get("parameters", ()), *_headers(limits)]
    return {
        "openapi": "3.1.0",
        "info": {"title": "headrace serve", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "headrace key add"}},
        },
    }


_ABOUT = (
    "Predictions on demand, by the Open Inference Protocol v2 and for events as they are on the topic. With API keys, "
    "each operation needs the role that it names; operate includes predict, predict includes read."
)


def page(described: Mapping[str, Any]) -> str:
    """The description for people."""
    rows = []
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            role = operation["x-role"] or "none"
            cells = (f"<b>{method.upper()}</b> {escape(path)}", escape(operation["summary"]), role)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    schemas = msgspec.json.format(msgspec.json.encode(described["components"]["schemas"]), indent=2).decode()
    template = Template(files(__package__).joinpath("docs.html.tmpl").read_text(encoding="utf-8"))
    return template.substitute(
        about=escape(described["info"]["description"]),
        version=escape(described["info"]["version"]),
        rows="\n".join(rows),
        schemas=escape(schemas),
    )


def _path(name: str, known: Sequence[str], about: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": _NAME_LENGTH}
    if known:
        schema = {"type": "string", "enum": list(known)}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": about}


def _headers(limits: Limits) -> list[dict[str, Any]]:
    most = round(limits.deadline_seconds * 1000)
    text = {"type": "string", "maxLength": _ID_LENGTH, "pattern": "^[!-~]+$"}
    deadline = {"type": "integer", "minimum": 1, "maximum": most}
    return [
        {"name": "X-Request-Id", "in": "header", "schema": text, "description": "echoed"},
        {"name": "X-Request-Timeout-Ms", "in": "header", "schema": deadline, "description": "from its arrival"},
    ]


def _get(
    summary: str, role: str | None, shown: Mapping[str, Any], answer: str, *parameters: Any, not_yet: str = ""
) -> dict[str, Any]:
    responses = {"200": _content(shown, answer)} | ({"503": _content(shown, not_yet)} if not_yet else {})
    return {"get": _operation(summary, role, responses, parameters)}


def _post(summary: str, role: str, shown: Mapping[str, Any], body: str, *, needed: bool = True) -> Any:
    def answering(*answers: tuple[str, str]) -> dict[str, Any]:
        responses = {status: _content(shown, answer) for status, answer in answers}
        operation = _operation(summary, role, responses, ())
        content = {"application/json": {"schema": shown[body]}}
        return {"post": operation | {"requestBody": {"required": needed, "content": content}}}

    return answering


def _with(path: dict[str, Any], *parameters: Any) -> dict[str, Any]:
    return {method: operation | {"parameters": list(parameters)} for method, operation in path.items()}


def _operation(summary: str, role: str | None, responses: dict[str, Any], parameters: Sequence[Any]) -> dict[str, Any]:
    security: list[dict[str, list[str]]] = [{"key": []}] if role else []
    return {
        "summary": summary,
        "x-role": role,
        "security": [*security, {}],
        "parameters": list(parameters),
        "responses": responses,
    }


def _content(shown: Mapping[str, Any], answer: str) -> dict[str, Any]:
    return {"description": answer, "content": {"application/json": {"schema": shown[answer]}}}
