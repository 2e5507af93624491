"""a process and its children → CPU seconds and memory, cheap enough to be asked fifty times a second."""

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import psutil

_LOOK_SECONDS = 1.0  # between two looks for new children: it reads every process of the machine


class Tree:
    """Processes and what they started. What has ended keeps the CPU seconds that it was last seen with."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._known = {process.pid: process for process in self._roots}
        self._cpu: dict[int, float] = {}
        self._look_at = 0.0

    def cpu_seconds(self) -> float:
        """Since each of them began."""
        self._look()
        for pid, process in self._known.items():
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[pid] = times.user + times.system
        return sum(self._cpu.values())

    def resident_bytes(self) -> int:
        total = 0
        for process in self._known.values():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def _look(self) -> None:
        if monotonic() < self._look_at:
            return
        self._look_at = monotonic() + _LOOK_SECONDS
        for root in self._roots:
            with suppress(psutil.Error):
                self._known.update({child.pid: child for child in root.children(recursive=True)})


def machine_cpu() -> float:
    """CPU seconds of everybody since the start of the machine."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
