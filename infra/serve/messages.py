"""Open Inference Protocol v2 over REST: a body → what was given; scores → a body. JSON, with tensors after it or not.

The binary tensor data extension is Triton's: a JSON object of `Inference-Header-Content-Length` bytes, then the
elements of each tensor that has `binary_data_size`, in their order.
"""

from typing import Any

import msgspec

from headrace.infra.serve.refusals import RequestRefused
from headrace.infra.serve.servable import Scores, Servable
from headrace.infra.serve.tensors import Given, to_binary

_LONGEST_TIMEOUT = 10**15  # microseconds; what the server allows is less in any case
_MOST_TENSORS = 10_000  # inputs and outputs that a request may name


class TensorParameters(msgspec.Struct, kw_only=True, gc=False):
    binary_data_size: int | None = None
    binary_data: bool | None = None


class RequestParameters(msgspec.Struct, kw_only=True, gc=False):
    binary_data_output: bool = False
    timeout: int | str | None = None  # microseconds, as in Triton's schedule policy extension; 0: none


class RequestInput(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: TensorParameters | None = None

    def __post_init__(self) -> None:
        _named.one_more()


class RequestOutput(msgspec.Struct, gc=False):
    name: str
    parameters: TensorParameters | None = None

    def __post_init__(self) -> None:
        _named.one_more()


class InferRequest(msgspec.Struct, gc=False):
    inputs: list[RequestInput]
    id: str = ""
    outputs: list[RequestOutput] | None = None
    parameters: RequestParameters | None = None


class TensorMetadata(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class _Named:
    """Tensors in the body that is being decoded, by the event loop alone: hundreds of thousands fit into 8 MB."""

    def __init__(self) -> None:
        self.left = _MOST_TENSORS

    def one_more(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RequestRefused(f"body: expected up to {_MOST_TENSORS:,} inputs and outputs; got more")


_named = _Named()
_decode = msgspec.json.Decoder(InferRequest).decode
_encode = msgspec.json.Encoder().encode


def parsed(body: bytes, header_length: int | None) -> tuple[InferRequest, list[Given]]:
    """`header_length` is that of the JSON at the beginning, where tensors follow it. Raises RequestRefused."""
    head: Any = body if header_length is None else memoryview(body)[:header_length]
    _named.left = _MOST_TENSORS
    try:
        request = _decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(f"body: expected an inference request as JSON; {error}") from error
    if header_length is None:
        return request, [_given(one, None) for one in request.inputs]
    rest, given = memoryview(body)[header_length:], []
    for one in request.inputs:
        size = one.parameters.binary_data_size if one.parameters else None
        if size is None:
            given.append(_given(one, None))
            continue
        if not 0 <= size <= len(rest):
            raise RequestRefused(f"input {one.name!r}: expected {size} bytes after the JSON, {len(rest)} are left")
        given.append(_given(one, rest[:size]))
        rest = rest[size:]
    if len(rest):
        raise RequestRefused(f"body: expected the tensors' binary_data_size and no more, {len(rest)} bytes are left")
    return request, given


def milliseconds(timeout: int | str) -> float | None:
    """The parameter, which is in microseconds; None for 0, the protocol's default. Raises RequestRefused."""
    try:
        given = int(timeout)
    except ValueError:
        given = -1
    if given < 0:
        raise RequestRefused(f"parameters.timeout: expected microseconds, 0 for none; got {str(timeout)[:40]!r}")
    return min(given, _LONGEST_TIMEOUT) / 1000 or None


def _given(one: RequestInput, binary: memoryview | None) -> Given:
    if binary is not None:
        return Given(one.name, one.datatype, one.shape, None, binary)
    if one.data is msgspec.UNSET:
        raise RequestRefused(f"input {one.name!r}: expected data, or parameters.binary_data_size; got neither")
    return Given(one.name, one.datatype, one.shape, one.data)


def answered(served: Servable, request: InferRequest, scores: Scores) -> tuple[bytes, int | None]:
    """A body, and the length of its JSON where a tensor follows it."""
    spec, binary = served.output, bool(request.parameters and request.parameters.binary_data_output)
    if request.outputs:
        binary = _binary(request.outputs, otherwise=binary)
    head = b'{"model_name":%b,"model_version":"%d"' % (_encode(served.pipeline), served.version)
    if request.id:
        head += b',"id":' + _encode(request.id)
    tensor = b',"outputs":[{"name":"%b","datatype":"%b","shape":%b,' % (
        spec.name.encode(),
        spec.datatype.encode(),
        b"[%d]" % len(scores) if scores.ndim == 1 else _encode(scores.shape),
    )
    if not binary:
        return b'%b%b"data":%b}]}' % (head, tensor, _encode(scores.ravel().tolist())), None
    data = to_binary(scores)
    head = b'%b%b"parameters":{"binary_data_size":%d}}]}' % (head, tensor, len(data))
    return head + data, len(head)


def expect_output(served: Servable, name: str) -> None:
    """Before it is run. Raises RequestRefused."""
    if name != served.output.name:
        raise RequestRefused(f"outputs: expected {served.output.name}; got {name[:50]!r}")


def _binary(outputs: list[RequestOutput], *, otherwise: bool) -> bool:
    said = outputs[0].parameters
    return otherwise if said is None or said.binary_data is None else said.binary_data


def metadata(served: Servable, versions: list[str]) -> ModelMetadata:
    return ModelMetadata(
        name=served.pipeline,
        versions=versions,
        platform="onnxruntime_onnx" if served.version else "headrace_baseline",
        inputs=[TensorMetadata(spec.name, spec.datatype, list(spec.shape)) for spec in served.inputs],
        outputs=[TensorMetadata(served.output.name, served.output.datatype, list(served.output.shape))],
    )
