"""request → trainer's process → outcome: what crosses between the scheduler and a training, as JSON."""

import msgspec

from headrace.trainer.run import RunRequest, RunResult


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its limits."""

    request: RunRequest
    time_limit_s: float
    memory_mb: int  # beyond what the trainer's process has at its start
    niceness: int


class Progressed(msgspec.Struct, frozen=True, tag="progressed", tag_field="kind"):
    stage: str
    facts: dict[str, float]


class Succeeded(msgspec.Struct, frozen=True, tag="succeeded", tag_field="kind"):
    result: RunResult


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="kind"):
    """`reason` and `detail` of the RunFailed that it becomes."""

    reason: str
    detail: str


Message = Progressed | Succeeded | Failed
