"""request → fork → outcome: the process that has everything imported, and forks one child per training.

It holds no threads and no clients, and ends with its scheduler. Per request it forks a supervisor in a session of its
own, which outlives both and forks the worker that trains: the supervisor ends the worker at its deadline, or when it is
told to, and says how it ended. Lines of JSON go to a file in the run's folder. Run as
`python -m headrace.trainer.forkserver <fd> <module> …`.
"""

import contextlib
import errno
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, Literal, Never

import msgspec

from headrace.trainer.eta import Eta
from headrace.trainer.lifeline import die_with
from headrace.trainer.messages import Failed, Job, Message, Progressed, Succeeded
from headrace.trainer.priority import give_way
from headrace.trainer.run_folder import LOG, MESSAGES, STOP

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MAX_REQUEST = 1 << 20  # bytes
_LOOK_SECONDS = 0.25  # between two looks whether the run is to stop
_FAILED, _NOT_SAID = 70, 74  # sysexits.h: EX_SOFTWARE, EX_IOERR
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
OF_THE_MACHINE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ESTALE)
)
_NO_MEMORY = ("can't allocate memory", "bad_alloc")  # what torch and onnxruntime say instead of MemoryError


def serve(control: socket.socket) -> None:
    """Until the other side is gone. A job comes as one datagram, with the run's lock attached, and perhaps a leash."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are reaped by the kernel
    while True:
        data, held, _, _ = socket.recv_fds(control, _MAX_REQUEST, 2)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            _supervise(msgspec.json.decode(data, type=Job), *held)
        for one in held:
            os.close(one)


def _supervise(job: Job, lock: int, leash: int | None = None) -> Never:
    """Never returns: the fork ends here, and with it the lock is released."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _redirect_output(job)
    said = os.open(Path(job.request.out) / MESSAGES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    alive, held = os.pipe()  # the worker holds one end, so that its death wakes us at once
    us, worker = os.getpid(), os.fork()
    if worker == 0:
        for ours in filter(None, (alive, lock, leash)):
            os.close(ours)
        _work(job, said, us)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(worker, worker)  # as the worker does itself: whoever comes first, the group is there
    os.close(held)
    ended = _watch(job, alive, leash)
    if ended is not None:
        _end(worker)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    _end(worker)  # what it started and left behind
    with contextlib.suppress(OSError):  # a full disk: then the run ends without a word
        if ended == "timeout":
            _say(said, Failed("timeout", f"ended after {job.time_limit_s:g} s; allow more or train on less"))
        elif ended is None and status != 0:
            _say(said, Failed(*_how(status, job)))
    os._exit(0)


def _watch(job: Job, alive: int, leash: int | None) -> Literal["timeout", "stopped"] | None:
    """Why the worker is to end; None where it did."""
    poller = select.poll()
    for one in filter(None, (alive, leash)):
        poller.register(one, select.POLLIN)
    stop, deadline = Path(job.request.out) / STOP, time.monotonic() + job.time_limit_s
    while (left := deadline - time.monotonic()) > 0:
        events = [fd for fd, _ in poller.poll(min(left, _LOOK_SECONDS) * 1000)]
        if alive in events:
            return None
        if events or stop.exists():
            return "stopped"
    return "timeout"


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _work(job: Job, said: int, supervisor: int) -> Never:
    """Trains within the limits. Whatever happens, it ends with a message or with a status that is not 0."""
    code = _FAILED
    try:
        os.setpgid(0, 0)
        die_with(supervisor)
        _limit(job)
        _say(said, _train(job, said))
        code = 0
    except OSError:
        code = _NOT_SAID
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no exit handlers: they belong to the process that we are a copy of


def _train(job: Job, said: int) -> Message:
    from headrace.models.errors import HeadraceError, RunFailed  # noqa: PLC0415  preloaded, and not before `main` is
    from headrace.trainer.run import train_candidate  # noqa: PLC0415

    eta = Eta()

    def progress(stage: str, facts: dict[str, float]) -> None:
        if not facts:
            eta.restart()
        _say(said, Progressed(stage, eta.added(facts)))

    try:
        sys.path[:0] = job.request.import_path
        return Succeeded(train_candidate(job.request, progress))
    except (Exception, SystemExit) as error:  # noqa: BLE001  this is where a run's accidents become facts
        traceback.print_exc()  # into the run's log
        if (lacking := _of_the_machine(error)) is not None:
            return Failed("machine", f"{type(lacking).__name__}: {lacking}")
        if isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY):
            return Failed("memory", f"more than {job.memory_mb} MB: {error or 'no room for another object'}")
        if isinstance(error, RunFailed):
            return Failed(error.reason, error.detail)
        reason = "declaration" if isinstance(error, HeadraceError) else "raised"
        return Failed(reason, f"{type(error).__name__}: {error}")


def _of_the_machine(error: BaseException | None) -> OSError | None:
    """What an error comes from, where neither the rows nor the model can help it: a full disk, no more files."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            return error
        error = error.__cause__
    return None


def _limit(job: Job) -> None:
    give_way(job.niceness)
    if hasattr(os, "sched_setaffinity"):  # a share of the machine that no library's threads exceed
        there = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(there)  # runs that go on side by side do not share the same ones
        os.sched_setaffinity(0, (there[first:] + there[:first])[: job.cpus])
    os.environ |= dict.fromkeys(THREADS, str(job.cpus))  # for what is loaded from now on, and for children
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
    """Prints of users' code go to the run's log. Nobody's terminal or pipe is held open by a run that outlives them."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(job.request.out) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _last_words(job: Job) -> str:
    return (Path(job.request.out) / LOG).read_text(errors="replace").strip()[-300:] or "none"


def _how(status: int, job: Job) -> tuple[str, str]:
    """Reason and detail of a worker that ended without a message."""
    if status == _NOT_SAID:
        return "machine", f"its outcome could not be written; last words: {_last_words(job)}"
    if -status in _FROM_OUTSIDE:
        how = f"was ended by {signal.Signals(-status).name} from outside, as for want of memory"
        return "killed", f"the trainer's process {how}; last words: {_last_words(job)}"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return "crashed", f"the trainer's process {how}; last words: {_last_words(job)}"


def _say(said: int, message: Any) -> None:
    """Begins with a line break: a worker may have died in the middle of a line."""
    line = b"\n" + msgspec.json.encode(message) + b"\n"
    while line:
        line = line[os.write(said, line) :]


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
