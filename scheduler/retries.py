"""why an attempt failed → whether and when there is another one. Pure; one table says what is whose fault.

What the machine or the broker is to blame for is tried again, a bounded number of times and ever later. What the rows,
the pipeline file, the model or the run's own limits are to blame for would fail again: it ends the run.
"""

from headrace.models.errors import BrokerUnavailable, RegistryRefused, RunFailed
from headrace.models.limits import RunLimits

# by the reason of a RunFailed; whatever is not named here is the run's own fault
TRIED_AGAIN = {
    "gone": "the training's processes ended without a word: a reboot, a kill of both",
    "killed": "a signal from outside: the machine's memory ran out, an operator, a shutdown",
    "machine": "no space left, no more memory, no more files, a disk that fails",
    "no_forkserver": "the trainer cannot be started",
    "busy": "another scheduler's training of this run is about to end",
}
_LONGEST_SECONDS = 600.0


def reason_of(error: Exception) -> str:
    """A short fixed word."""
    match error:
        case RunFailed() | RegistryRefused():
            return error.reason
        case BrokerUnavailable():
            return "broker_unavailable"
        case OSError():
            return "machine"
        case _:
            return "refused"


def is_tried_again(error: Exception) -> bool:
    if isinstance(error, RegistryRefused):  # of an artifact that cannot be read now
        return error.reason == "unavailable"
    return isinstance(error, BrokerUnavailable | OSError) or reason_of(error) in TRIED_AGAIN


def seconds_before(attempt: int, limits: RunLimits) -> float:
    """How long to wait before the attempt of this number; the first is 1."""
    return min(_LONGEST_SECONDS, limits.backoff_s * 2.0 ** max(0, attempt - 2))
