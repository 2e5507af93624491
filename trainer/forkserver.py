"""request → fork → outcome: the process that has everything imported, and forks one child per training.

It holds no threads and no clients. Per request it forks a supervisor, which forks the worker that trains: the
supervisor ends the worker at its deadline, or when nobody waits for it any more, and says how it ended. Lines of JSON
go back over the request's own socket. Run as `python -m headrace.trainer.forkserver <fd> <module> …`.
"""

import contextlib
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, Never

import msgspec

from headrace.trainer.messages import Failed, Job, Message, Progressed, Succeeded

_MAX_REQUEST = 1 << 20  # bytes
_NO_MEMORY = ("can't allocate memory", "bad_alloc")  # what torch and onnxruntime say instead of MemoryError


def serve(control: socket.socket) -> None:
    """Until the other side is gone. A job comes as one datagram, with the socket for its outcome attached."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are reaped by the kernel
    while True:
        data, sockets, _, _ = socket.recv_fds(control, _MAX_REQUEST, 1)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            _supervise(msgspec.json.decode(data, type=Job), socket.socket(fileno=sockets[0]))
        os.close(sockets[0])


def _supervise(job: Job, outcome: socket.socket) -> Never:
    """Never returns: the fork ends here."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    alive, held = os.pipe()  # the worker holds one end, so that its death wakes us at once
    worker = os.fork()
    if worker == 0:
        os.close(alive)
        _work(job, outcome)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(worker, worker)  # as the worker does itself: whoever comes first, the group is there
    os.close(held)
    poller = select.poll()
    poller.register(alive, select.POLLIN)
    poller.register(outcome, select.POLLRDHUP if hasattr(select, "POLLRDHUP") else select.POLLHUP)
    events = poller.poll(job.time_limit_s * 1000)
    if not any(fd == alive for fd, _ in events):  # too long, or nobody waits any more
        _end(worker)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    _end(worker)  # what it started and left behind
    if not events:
        _say(outcome, Failed("timeout", f"ended after {job.time_limit_s:g} s; allow more or train on less"))
    elif status != 0:
        _say(outcome, Failed("crashed", f"the trainer's process {_how(status)}; last words: {_last_words(job)}"))
    os._exit(0)


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _work(job: Job, outcome: socket.socket) -> Never:
    """Trains within the limits. Whatever happens, it ends with a message or with a status that is not 0."""
    code = 70
    try:
        os.setpgid(0, 0)
        _redirect_output(job)
        _limit(job)
        _say(outcome, _train(job, outcome))
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no exit handlers: they belong to the process that we are a copy of


def _train(job: Job, outcome: socket.socket) -> Message:
    from headrace.models.errors import HeadraceError, RunFailed  # noqa: PLC0415  preloaded, and not before `main` is
    from headrace.trainer.run import train_candidate  # noqa: PLC0415

    try:
        sys.path[:0] = job.request.import_path
        return Succeeded(train_candidate(job.request, lambda stage, facts: _say(outcome, Progressed(stage, facts))))
    except (Exception, SystemExit) as error:  # noqa: BLE001  this is where a run's accidents become facts
        traceback.print_exc()  # into the run's log
        if isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY):
            return Failed("memory", f"more than {job.memory_mb} MB: {error or 'no room for another object'}")
        if isinstance(error, RunFailed):
            return Failed(error.reason, error.detail)
        reason = "declaration" if isinstance(error, HeadraceError) else "raised"
        return Failed(reason, f"{type(error).__name__}: {error}")


def _limit(job: Job) -> None:
    os.nice(job.niceness)
    data = _data_bytes() + job.memory_mb * 1024 * 1024
    # what a run may take beyond the copy that it starts as; an address-space limit would count torch's 10 GB of
    # mapped but never touched libraries
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ImportError):
        import torch  # noqa: PLC0415

        torch.set_num_threads(job.request.threads)


def _data_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)


def _redirect_output(job: Job) -> None:
    """Prints of users' code go to the run's log: standard output belongs to the command that waits."""
    out = Path(job.request.out)
    out.mkdir(parents=True, exist_ok=True)
    log = os.open(out / "run.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _last_words(job: Job) -> str:
    try:
        return (Path(job.request.out) / "run.log").read_text(errors="replace").strip()[-300:] or "none"
    except FileNotFoundError:
        return "none"


def _how(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _say(outcome: socket.socket, message: Any) -> None:
    """Begins with a line break: a worker may have died in the middle of a line."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody waits any more
        outcome.sendall(b"\n" + msgspec.json.encode(message) + b"\n")


def main() -> None:
    os.dup2(2, 1)
    # the allocator of Arrow and onnxruntime keep an idle thread each, which nobody's locks depend on
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    for name in sys.argv[2:]:
        with contextlib.suppress(ImportError):  # a pipeline with a learner of its own needs no torch
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page of what is imported here: 0.3 s
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
