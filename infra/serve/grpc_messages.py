"""The Open Inference Protocol v2's gRPC messages, by name and number, as classes.

Made here in a pool of their own, not by protoc: generated code registers `inference.ModelInferRequest` for the whole
process, where a client library of the same protocol has its own, and it is tied to one major version of protobuf.
Fields that other servers added (Triton's model_warmup, batch_input, …) are not among them; they are ignored.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}
_PARAMETERS = "map InferParameter parameters"
_TENSOR = ("string name", "string datatype", "int64* shape", _PARAMETERS, "InferTensorContents contents")
# A message: its fields in the order of their numbers. `*` is repeated, `map T` is map<string, T>, `|` is in a oneof.
_MESSAGES: Final[dict[str, tuple[str, ...]]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready",),
    "ModelReadyRequest": ("string name", "string version"),
    "ModelReadyResponse": ("bool ready",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name", "string version", "string* extensions"),
    "ModelMetadataRequest": ("string name", "string version"),
    "ModelMetadataResponse": (
        "string name",
        "string* versions",
        "string platform",
        "TensorMetadata* inputs",
        "TensorMetadata* outputs",
    ),
    "ModelMetadataResponse.TensorMetadata": ("string name", "string datatype", "int64* shape"),
    "InferParameter": (
        "bool |bool_param",
        "int64 |int64_param",
        "string |string_param",
        "double |double_param",
        "uint64 |uint64_param",
    ),
    "InferTensorContents": (
        "bool* bool_contents",
        "int32* int_contents",
        "int64* int64_contents",
        "uint32* uint_contents",
        "uint64* uint64_contents",
        "float* fp32_contents",
        "double* fp64_contents",
        "bytes* bytes_contents",
    ),
    "ModelInferRequest": (
        "string model_name",
        "string model_version",
        "string id",
        _PARAMETERS,
        "InferInputTensor* inputs",
        "InferRequestedOutputTensor* outputs",
        "bytes* raw_input_contents",
    ),
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": ("string name", _PARAMETERS),
    "ModelInferResponse": (
        "string model_name",
        "string model_version",
        "string id",
        _PARAMETERS,
        "InferOutputTensor* outputs",
        "bytes* raw_output_contents",
    ),
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    # model repository extension
    "RepositoryIndexRequest": ("string repository_name", "bool ready"),
    "RepositoryIndexResponse": ("ModelIndex* models",),
    "RepositoryIndexResponse.ModelIndex": ("string name", "string version", "string state", "string reason"),
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="headrace/open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        made[name] = message
        message.name = inner
        for number, field in enumerate(fields, 1):
            _add(message, name, number, field)
    return file


def _add(message: Any, owner: str, number: int, text: str) -> None:
    kind, _, name = text.rpartition(" ")
    field = message.field.add(number=number, label=_Field.LABEL_OPTIONAL)
    if name.startswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index, name = 0, name[1:]
    field.name = name
    if kind.startswith("map "):
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
        value = entry.field.add(name="value", number=2, type=_Field.TYPE_MESSAGE, label=_Field.LABEL_OPTIONAL)
        value.type_name = f".{PACKAGE}.{kind.removeprefix('map ')}"
        kind = f"{owner}.ParametersEntry*"
    if kind.endswith("*"):
        field.label, kind = _Field.LABEL_REPEATED, kind[:-1]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        nested = f"{owner}.{kind}"
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{nested if nested in _MESSAGES else kind}"


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_described())


def message(name: str) -> Any:
    """The class of a message, by its name in the package."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
