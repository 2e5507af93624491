"""A sandbox's process in the hands of whoever broke out of a graph: it answers as the "graph" says."""

import socket
import sys

import msgspec
import numpy as np

from headrace.infra.sandbox_messages import Ended, Proved, Trial, from_memory

_SCORES = np.array([0.5, 0.5]).tobytes()


def proved(scores: bytes) -> bytes:
    return msgspec.msgpack.encode(Ended(answer=msgspec.msgpack.encode(Proved(scores=scores))))


ANSWERS = {
    b"speaks nonsense": b"\xc1" * 100,
    b"speaks at length": b"\x00" * 150_000,
    b"is silent": msgspec.msgpack.encode(Ended()),
    b"hands on nonsense": msgspec.msgpack.encode(Ended(answer=b"\xc1" * 100)),
    b"hands on something else": msgspec.msgpack.encode(Ended(answer=b"[]")),
    b"sends too many scores": proved(_SCORES * 50),
    b"sends half a score": proved(_SCORES[:12]),
    b"sends NaN": proved(np.array([0.5, np.nan]).tobytes()),
    b"is good": proved(_SCORES),
}


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, files, _, _ = socket.recv_fds(control, 4_096, 1)
        if not data:
            return
        control.send(ANSWERS[msgspec.msgpack.decode(from_memory(files[0]), type=Trial).onnx])


main()
