"""graph and rows → fork → scores, or how it ended: the process in which a version runs first.

It has ONNX Runtime imported and holds no clients and no secrets. For each request it has forked a child beforehand,
which has rehearsed. Limited in memory, time, files and descriptors, in a working directory that is gone, the child
checks the graph, loads it, runs it and answers.
Run as `python -m headrace.infra.sandbox_server <fd>`.
"""

import contextlib
import gc
import math
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import warnings
from typing import Never

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from headrace.infra.sandbox_messages import (
    MAX_ANSWER,
    Ended,
    Limits,
    NotProved,
    Proved,
    Trial,
    from_memory,
    pack,
    rows_told,
    unpack,
)
from headrace.models.errors import RegistryRefused
from headrace.models.features import Column
from headrace.models.graph_check import check
from headrace.models.graph_shapes import MANY_ROWS
from headrace.models.schema import NUMBERS, PREDICTION, Schema
from headrace.models.session import Runtime, Session

_MAX_ORDER = 1 << 12  # bytes
_PAUSE_SECONDS = 0.05  # before the next child rehearses: just now the worker loads what was proven
_FILES = 32  # descriptors that a child may have
_NO_MEMORY = ("bad_alloc", "Failed to allocate", "allocate memory", "bad allocation")  # for MemoryError, in words


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────────────


def serve(control: socket.socket) -> None:
    """Until the other side is gone. One child at a time."""
    rehearsal = _rehearsal()
    check(rehearsal.onnx)
    Session(rehearsal.onnx, rehearsal.schema)  # loads ONNX Runtime's tables; to run it would leave a thread behind
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page of what is imported here
    pause = 0.0
    while True:
        asked, _, _ = select.select([control], [], [], pause)
        pause = _PAUSE_SECONDS
        ours, theirs = socket.socketpair(control.family, control.type)
        child = os.fork()
        if child == 0:
            for other in (control, ours):
                other.close()
            _work(theirs, None if asked else rehearsal)
        theirs.close()
        data, files, _, _ = socket.recv_fds(control, _MAX_ORDER, 1)
        if not data:
            return
        limits = msgspec.msgpack.decode(data, type=Limits)
        with ours:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died in its rehearsal
                socket.send_fds(ours, [data], files)
            os.close(files[0])
            answer, late = _awaited(ours, control, limits.seconds)
        if answer:
            control.send(msgspec.msgpack.encode(Ended(answer=answer)))
        if answer or late:  # who has answered has nothing more to do
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not answer:
            how = f"no answer within {limits.seconds:g} s" if late else _how(status)
            control.send(msgspec.msgpack.encode(Ended(how=how, late=late or status == -signal.SIGXCPU)))


def _awaited(ours: socket.socket, control: socket.socket, seconds: float) -> tuple[bytes, bool]:
    """The child's answer, or nothing where it died, and whether it outlived its time."""
    poller = select.poll()
    poller.register(ours, select.POLLIN)
    poller.register(control, select.POLLRDHUP if hasattr(select, "POLLRDHUP") else select.POLLHUP)
    events = poller.poll(seconds * 1000)
    if any(fd == control.fileno() for fd, _ in events):  # nobody waits any more
        os.killpg(0, signal.SIGKILL)  # us, and all that came of us
    try:
        return ours.recv(MAX_ANSWER) if events else b"", not events
    except ConnectionResetError:
        return b"", False


def _how(status: int) -> str:
    return (
        f"its process was ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"
    )


# ── the child ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _work(server: socket.socket, rehearsal: Trial | None) -> Never:
    code = 70
    try:
        _confine()
        if rehearsal is not None:  # a fork's first touch of each page costs: a third of the time of a small graph
            _prove(rehearsal, seconds=1.0)
        data, files, _, _ = socket.recv_fds(server, _MAX_ORDER, 1)
        if data:
            limits = msgspec.msgpack.decode(data, type=Limits)
            _limit(limits)
            server.send(msgspec.msgpack.encode(_answer(files[0], limits)))
        code = 0
    finally:
        os._exit(code)  # no exit handlers: they belong to the process that we are a copy of


def _confine() -> None:
    """Nothing is written anywhere, and little is opened."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit(limits: Limits) -> None:
    begun, seconds = _address_space(), math.ceil(limits.seconds) + 1
    if begun:
        memory = begun + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _address_space() -> int:
    """Bytes, as RLIMIT_AS counts them; 0 where there is no /proc (macOS, which does not honour that limit either)."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except FileNotFoundError:
        return 0
    pages = int(os.read(statm, 100).split()[0])
    os.close(statm)
    return pages * resource.getpagesize()


def _answer(trial: int, limits: Limits) -> Proved | NotProved:
    try:
        return _prove(msgspec.msgpack.decode(from_memory(trial), type=Trial), limits.seconds)
    except RegistryRefused as error:
        if any(word in error.detail for word in _NO_MEMORY):
            return NotProved(reason="memory", detail=_too_much(limits, error.detail))
        return NotProved(reason=error.reason, detail=error.detail)
    except MemoryError as error:
        return NotProved(reason="memory", detail=_too_much(limits, str(error)))


def _too_much(limits: Limits, said: str) -> str:
    where = f"it takes more than {limits.memory_bytes >> 20} MB (model_memory_mb) to check, load and run"
    return f"{where}: {said or 'no room for more'}"


def _prove(trial: Trial, seconds: float) -> Proved:
    """(1) what can be seen without running it, (2) load, contract, (3) the rows, (4) as many as a chunk may have, where
    the sizes of what is between could not be worked out."""
    checked = check(trial.onnx, trial.operators)
    session = Session(trial.onnx, trial.schema, Runtime(seconds=seconds))
    columns = {name: unpack(column) for name, column in trial.columns.items()}
    scores = session.warm(columns, trial.rows)
    if not checked.sizes_known:
        times = -(-MANY_ROWS // trial.rows)
        many = {name: np.concatenate([values] * times) for name, values in columns.items()}
        session.predict(many, times * trial.rows)
    told = rows_told(trial.rows, session.classes)
    return Proved(scores=scores[:told].tobytes(), classes=session.classes)


# ── the rehearsal ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _rehearsal() -> Trial:
    """A graph of 1 MB: after it, modules are imported and memory is at hand."""
    width = 512
    weights = numpy_helper.from_array(np.zeros((width, width), np.float32), "weights")
    first = numpy_helper.from_array(np.zeros(1, np.int64), "first")
    nodes = [
        helper.make_node("MatMul", [NUMBERS, "weights"], ["product"]),
        helper.make_node("Gather", ["product", "first"], ["column"], axis=1),
        helper.make_node("Flatten", ["column"], ["flat"], axis=0),
        helper.make_node("Squeeze", ["flat", "first"], [PREDICTION]),
    ]
    given = helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, ["n", width])
    made = helper.make_tensor_value_info(PREDICTION, TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "rehearsal", [given], [made], [weights, first])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    schema = Schema(tuple(Column(str(number), "number") for number in range(width)))
    zero = pack(np.zeros(1))
    columns = {column.name: zero for column in schema.columns}
    return Trial(onnx=model.SerializeToString(), schema=schema, columns=columns, rows=1, operators=())


def main() -> None:
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    empty = tempfile.mkdtemp(prefix="headrace-")
    os.chdir(empty)
    os.rmdir(empty)  # noqa: PTH106  nothing is in it, and nothing can be put there
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
