"""worker → sandbox → worker: what crosses between them. Nothing is unpickled; what does not fit its type is refused."""

import os
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.models.schema import Schema

MAX_ANSWER = 1 << 16  # bytes: 8,000 scores
MAX_SCORES = 7_500  # of them; of more, those of the first rows: golden rows come first


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one version. It goes over the control socket, with the trial as an open file in memory attached."""

    seconds: float  # for everything
    memory_bytes: int  # beyond what the process has at its start


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Comes back over the control socket: what the child said, which may be anything, or how it ended without that."""

    answer: bytes = b""
    how: str = ""
    late: bool = False


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """An array: its bytes, or its texts."""

    kind: str  # float64, float32, text
    shape: tuple[int, ...]
    data: bytes = b""
    texts: list[str | None] = []


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    onnx: bytes
    schema: Schema
    columns: dict[str, Packed]
    rows: int
    operators: tuple[str, ...]


class Proved(msgspec.Struct, frozen=True, kw_only=True, tag="proved"):
    scores: bytes  # float64, [rows] or [rows, classes]
    classes: int = 0


class NotProved(msgspec.Struct, frozen=True, kw_only=True, tag="not_proved"):
    reason: str
    detail: str


Answer = Proved | NotProved


def rows_told(rows: int, classes: int) -> int:
    """How many rows' scores an answer holds."""
    return min(rows, MAX_SCORES // max(1, classes)) if classes else rows


def pack(array: NDArray[Any]) -> Packed:
    if array.dtype == object:
        return Packed(kind="text", shape=array.shape, texts=array.ravel().tolist())
    kind = "float32" if array.dtype == np.float32 else "float64"
    return Packed(kind=kind, shape=array.shape, data=np.ascontiguousarray(array, kind).tobytes())


def unpack(column: Packed) -> NDArray[Any]:
    if column.kind == "text":
        texts = np.empty(len(column.texts), object)
        texts[:] = column.texts
        return texts.reshape(column.shape)
    return np.frombuffer(column.data, column.kind).reshape(column.shape)


# ── open files in memory ──────────────────────────────────────────────────────────────────────────────────────────────


def in_memory(data: bytes) -> IO[bytes]:
    """Handed over at once, however much it is: a stream of so many bytes would wait for its reader again and again."""
    file = os.fdopen(os.memfd_create("trial"), "w+b") if hasattr(os, "memfd_create") else TemporaryFile()  # noqa: SIM115
    file.write(data)
    file.flush()
    return file


def from_memory(descriptor: int) -> bytes:
    pieces, at, size = [], 0, os.fstat(descriptor).st_size
    while at < size:
        pieces.append(os.pread(descriptor, size - at, at))
        at += len(pieces[-1])
    os.close(descriptor)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
