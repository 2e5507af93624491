"""a policy, numbers of the past → the ticks that it would have had; what policies came to → the one to take. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headrace.models.bootstrap import Estimate
from headrace.models.durations import iso
from headrace.models.protocols import Trigger
from headrace.models.records import Finished, Requested
from headrace.scheduler.combined import AtLeast, only_scheduled
from headrace.scheduler.decide import Live, PipelineRuns, Run, decide
from headrace.scheduler.next_ticks import slice_ends
from headrace.scheduler.triggers import Always, Cron, Every, Never, NewLabels

_KNOWN_BEFORE = (Always, Cron, Every, Never, NewLabels)
_PIPELINE = "plan"
LiveNumbers = Callable[[int, int], Live]
"""What is counted after the newest run's moment, up to now; both Unix ms."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    at: int  # when the run begins, Unix ms: nothing newer is trained on
    trigger: str


def ticks(triggers: Sequence[Trigger], live: LiveNumbers, *, start: int, end: int, step_ms: int) -> Iterator[Tick]:
    """In (start, end), in order; a model was trained at `start`. The decisions are the leader's (`decide`).

    Triggers without a schedule are asked at the multiples of `step_ms`. `live` is asked as the ticks are drawn, so
    that what came of one tick may be in the numbers for the next.
    """
    runs, since = PipelineRuns(pipeline=_PIPELINE, started=start), start
    at_ticks_alone = only_scheduled(triggers)
    for at, is_tick in slice_ends(triggers, start, end, step_ms):
        if at >= end or (at_ticks_alone and not is_tick):
            continue
        request = Requested(run=str(at), pipeline=_PIPELINE, at=at, by=_PIPELINE)
        decision = decide(triggers, request, runs, live(since, at))
        if isinstance(decision, Run):
            yield Tick(at=at, trigger=decision.trigger)
            ended = Finished(
                run=decision.run, pipeline=_PIPELINE, at=iso(at), outcome="ended", reason="", tick=decision.tick_text
            )
            runs.apply(ended)
            since = at


def known_before(triggers: Sequence[Trigger]) -> bool:
    """Whether the ticks depend on time and labels alone, and not on the models that are trained at them."""
    return all(
        known_before(trigger.triggers) if isinstance(trigger, AtLeast) else isinstance(trigger, _KNOWN_BEFORE)
        for trigger in triggers
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a policy came to."""

    policy: str
    training_seconds: float
    behind: Estimate  # how much worse than the best one, in the metric's unit, on the same rows; its own is 0


def cheapest(outcomes: Sequence[Outcome], tolerance: float) -> str | None:
    """The policy that costs least of those that are surely not worse than the best by more than the tolerance: the
    high end of the interval counts, where there is one. Of equal cost, the better. None where nothing can be said."""
    within = [outcome for outcome in outcomes if _most_behind(outcome.behind) <= tolerance]
    return min(within, key=lambda one: (one.training_seconds, one.behind.value or 0.0)).policy if within else None


def _most_behind(behind: Estimate) -> float:
    known = behind.value if behind.high is None else behind.high
    return float("inf") if known is None else known
