"""a command in a terminal → the same in a session of its own, where the kernel shares out cores by session.

Then what it gives way to is all the machine, and the terminal's other processes keep their share.
"""

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Final

from headrace.trainer.lifeline import die_with
from headrace.trainer.priority import are_sessions_groups

_HANDED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def in_own_session() -> None:
    """Returns in a child. The process that was there before hands signals on to it and ends as it does; who kills the
    one kills both. Call it before there are threads."""
    us = os.getpid()
    if not are_sessions_groups() or os.getsid(0) == us:
        return
    signals = {*_HANDED_ON, signal.SIGTSTP}
    held = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        os.setsid()
        die_with(us)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return

    def hand_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):  # it has ended just now
            os.kill(child, number)

    def pause(_number: int, _frame: FrameType | None) -> None:
        hand_on(signal.SIGSTOP, None)
        os.kill(us, signal.SIGSTOP)
        hand_on(signal.SIGCONT, None)  # when we go on

    for number in _HANDED_ON:
        signal.signal(number, hand_on)
    signal.signal(signal.SIGTSTP, pause)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(us, -status)
    os._exit(status)
