"""a supervisor that was killed → its children stop by themselves, in order: nothing predicts unseen."""

import os
import signal
import threading

SUPERVISOR = "HEADRACE_SUPERVISOR"  # the environment variable with the supervisor's process id
_LOOK_SECONDS = 1.0


def stop_when_orphaned() -> None:
    """Where a supervisor started this process: SIGTERM to itself when that one is gone."""
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is not None:
        threading.Thread(target=_watch, args=(int(supervisor),), name="orphan", daemon=True).start()


def _watch(supervisor: int) -> None:
    pause = threading.Event()
    while os.getppid() == supervisor:
        pause.wait(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
