"""how much a process gives way to others: `nice`, and what makes it true between sessions as well.

Where Linux groups processes by session (sched(7), "The autogroup feature": the default outside containers and slices),
cores are shared out between sessions first. A nice value, and the idle class too, then give way to the same session
only, and take as much from a broker or a worker in another one as anybody: a stream's p99 beside two such idle loops
was five times the one alone, and 1.4 times where the loops' session gave way.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_SWITCH: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_TRIES, _WAIT_SECONDS = 20, 0.11  # the kernel takes ten such wishes a second, from all users together


def give_way(niceness: int) -> None:
    """Of this process, by so much more than it does, and of its session: it should be its own. On Linux; elsewhere
    there are no such sessions, and the process gives way alone."""
    let_session_give_way(os.getpid(), os.nice(niceness))


def let_session_give_way(pid: int, niceness: int) -> None:
    """Of the session of `pid`; `niceness` as nice(1) has it, from 0."""
    with suppress(OSError):  # no such feature, no such process
        place = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY)
        try:
            for _ in range(_TRIES):
                with suppress(BlockingIOError):
                    os.write(place, b"%d" % niceness)
                    return
                time.sleep(_WAIT_SECONDS)
        finally:
            os.close(place)


def are_sessions_groups() -> bool:
    try:
        return _SWITCH.read_text().strip() == "1"
    except OSError:
        return False
