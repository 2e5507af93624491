"""bytes of a topic → records, by the topic's format: JSON objects, or MessagePack maps with the same fields.

Messages are decoded one by one: joined into one array, two broken ones could mend each other (`{"a":[{}` `{}]}`),
and for a typed struct the single call costs no more.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.models.errors import EventRejected
from headrace.models.features import Format

Rejected = tuple[int, EventRejected]
"""Index in the chunk, and why."""

_EXPECTED: Mapping[Format, str] = {"json": "a JSON object", "msgpack": "a MessagePack map"}
_as_one_value = msgspec.msgpack.Decoder(msgspec.Raw).decode  # raises where the bytes are no value, or more than one


def record_decoder(
    name: str, types: Mapping[str, tuple[Any, bool]], written: Format = "json"
) -> tuple[Callable[[bytes], Any], dict[str, str]]:
    """A decoder for records with these fields (their names → type, required), and the attribute that holds each."""
    attributes = {field: f"f{place}" for place, field in enumerate(types)}
    members: list[Any] = []
    for field, (kind, required) in types.items():
        members.append((attributes[field], kind) if required else (attributes[field], kind | None, None))
    struct = msgspec.defstruct(
        name, members, rename={held: field for field, held in attributes.items()}, kw_only=True, gc=False
    )
    if written == "msgpack":
        return msgspec.msgpack.Decoder(struct).decode, attributes
    return msgspec.json.Decoder(struct).decode, attributes


def decode_each(
    decode: Callable[[bytes], Any], values: Sequence[bytes | None], time_field: str, written: Format = "json"
) -> tuple[list[int], list[Any], list[Rejected]]:
    """Every value through `decode`: indexes and rows of the good ones, and the rejected. No bytes raise."""
    try:
        return list(range(len(values))), [decode(value) for value in values], []  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  one at a time below, where each gets its reason
        kept: list[int] = []
        rows: list[Any] = []
        rejected: list[Rejected] = []
        for index, value in enumerate(values):
            try:
                rows.append(_decode_one(decode, value, time_field, written))
                kept.append(index)
            except EventRejected as error:
                rejected.append((index, error))
        return kept, rows, rejected


def encoded(row: Mapping[str, Any], written: Format) -> bytes:
    """A row in the format. Raises TypeError, ValueError or OverflowError for what the format cannot hold."""
    return msgspec.msgpack.encode(row) if written == "msgpack" else msgspec.json.encode(row)


def _decode_one(decode: Callable[[bytes], Any], value: bytes | None, time_field: str, written: Format) -> Any:
    if value is None:
        raise EventRejected("tombstone", f"expected {_EXPECTED[written]}, got a record without a value")
    if not value:
        raise EventRejected("empty", f"expected {_EXPECTED[written]}, got an empty value")
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        if written == "msgpack":
            _expect_msgpack(value)
        of_time = f"`$.{time_field}`" in str(error) or f"required field `{time_field}`" in str(error)
        raise EventRejected("no_time" if of_time else "wrong_shape", str(error)) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if written == "msgpack" and not _of_text(error):
            raise _not_msgpack(value, error) from error
        if written == "msgpack":
            raise EventRejected("not_utf8", str(error)) from error
        raise EventRejected("not_json" if _is_utf8(value) else "not_utf8", str(error)) from error


def _expect_msgpack(value: bytes) -> None:
    """Any text begins like MessagePack, as a small number: whether the type or the format is wrong, its end tells."""
    try:
        _as_one_value(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _not_msgpack(value, error) from error


def _not_msgpack(value: bytes, error: Exception) -> EventRejected:
    like_json = " It begins as JSON does: see Topic(format=…)." if value.lstrip()[:1] in (b"{", b"[") else ""
    return EventRejected("not_msgpack", f"{error}.{like_json}")


def _of_text(error: Exception) -> bool:
    """msgspec before 0.23 raised what Python raises for it, since then an error of its own."""
    return isinstance(error, UnicodeDecodeError) or "UTF-8" in str(error)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
