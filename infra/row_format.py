"""a row as JSON → in the format of its topic, and back into what a person can read."""

import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from headrace.models.errors import BadInput
from headrace.models.features import Format, fields_of
from headrace.models.pipeline import Pipeline
from headrace.streams.formats import encoded

Write = Callable[[bytes], bytes]
"""A row as JSON → as it goes on its topic."""
_SHOWN = 80  # characters of a bad row
_SHORT = 16  # bytes that are shown as they are


def writer(pipeline: Pipeline, topic: str) -> Write:
    """As it is where the topic is JSON. What is no JSON object stays as it is, for the pipeline to park.

    Raises BadInput for a topic that the pipeline does not read; what it gives raises it for numbers beyond 64 bits.
    """
    known = {one.name: one for one in pipeline.inputs}
    if topic not in known:
        raise BadInput(f"topic: expected {' or '.join(map(repr, known))} of {pipeline.name}, got {topic!r}.")
    if known[topic].format == "json":
        return _as_it_is
    is_events = topic == pipeline.events.name
    tensors = [field.name for field in fields_of(pipeline.features) if is_events and field.kind == "tensor"]
    return lambda value: _as_msgpack(value, tensors)


def readable(data: bytes, written: Format = "json") -> str:
    """MessagePack as JSON, with long bytes left out; else text as it is; else hexadecimal numbers after 0x."""
    if written == "msgpack":
        with suppress(msgspec.DecodeError, ValueError, TypeError, RecursionError):
            return msgspec.json.encode(_without_bytes(msgspec.msgpack.decode(data)), enc_hook=repr).decode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"


def _as_it_is(value: bytes) -> bytes:
    return value


def _as_msgpack(value: bytes, tensors: Sequence[str]) -> bytes:
    """Texts in tensors' fields are base64, and become the bytes that they stand for."""
    try:
        row = msgspec.json.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return value
    if not isinstance(row, dict):
        return value
    for name in tensors:
        if isinstance(text := row.get(name), str):
            with suppress(ValueError):  # no base64: the pipeline says so
                row[name] = base64.b64decode(text, validate=True)
    try:
        return encoded(row, "msgpack")
    except (OverflowError, RecursionError) as error:
        raise BadInput(f"expected what MessagePack can hold, got {value[:_SHOWN]!r} ({error}).") from error


def _without_bytes(value: Any) -> Any:
    match value:
        case bytes():
            return f"<{len(value):,} bytes>" if len(value) > _SHORT else f"0x{value.hex()}"
        case list():
            return [_without_bytes(one) for one in value]
        case dict():
            return {_without_bytes(key): _without_bytes(one) for key, one in value.items()}
    return value
