"""What one training may take of its machine, and how often it is tried: `Pipeline(run=RunLimits(…))`."""

from dataclasses import dataclass

from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError

_LARGEST_MB = 1 << 24  # 16 TB


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Checked when made. Only what the machine is to blame for is tried again: see `scheduler.retries`."""

    time: str = "1h"  # of one attempt; longer is a failed run
    memory_mb: int = 8192  # beyond what the trainer's process has at its start
    cpus: int = 1  # threads, and on Linux the CPUs that it may run on
    nice: int = 5  # 0: as urgent as the workers; 19: only what nobody else wants
    attempts: int = 5  # all together
    backoff: str = "10s"  # before the second attempt; twice as long before each further one

    def __post_init__(self) -> None:
        milliseconds("RunLimits.time", self.time), milliseconds("RunLimits.backoff", self.backoff)
        for name, least, most in (
            ("memory_mb", 64, _LARGEST_MB),
            ("cpus", 1, 1024),
            ("nice", 0, 19),
            ("attempts", 1, 100),
        ):
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
                expected = f"a whole number from {least} to {most}"
                raise DeclarationError(f"RunLimits.{name}", expected, given, "Change it.")

    @property
    def time_s(self) -> float:
        return milliseconds("RunLimits.time", self.time) / 1000

    @property
    def backoff_s(self) -> float:
        return milliseconds("RunLimits.backoff", self.backoff) / 1000
