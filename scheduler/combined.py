"""several triggers → one: any, all or some of them, and not too soon after the newest run. Pure, as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError
from headrace.models.protocols import Numbers, Reason, Scheduled, Trigger


@dataclass(frozen=True, init=False, repr=False)
class AtLeast:
    """When `count` of the triggers are due at once. One that is due stays so until a run uses its tick up: Monday's
    cron line and 1,000 new labels are both there as soon as the labels are, on Wednesday.

    With `min_interval`, not within that time after the newest run's tick. The tick is that of the newest schedule
    among those that are due; where none of them keeps one, the moment of the decision.
    """

    count: int
    triggers: Sequence[Trigger]
    min_interval: str
    _interval_ms: int = field(compare=False)

    def __init__(self, count: int, *triggers: Trigger, min_interval: str = "") -> None:
        name = type(self).__name__
        if not triggers or not all(isinstance(trigger, Trigger) for trigger in triggers):
            raise DeclarationError(name, "triggers", triggers, "For example NewLabels(1_000).")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= len(triggers):
            raise DeclarationError(f"{name}.count", f"a number from 1 to {len(triggers)}", count, "Change it.")
        interval = milliseconds(f"{name}.min_interval", min_interval) if min_interval else 0
        for attribute, value in (
            ("count", count),
            ("triggers", triggers),
            ("min_interval", min_interval),
            ("_interval_ms", interval),
        ):
            object.__setattr__(self, attribute, value)

    def __repr__(self) -> str:
        given = [*([str(self.count)] if type(self) is AtLeast else []), *map(repr, self.triggers)]
        given += [f"min_interval={self.min_interval!r}"] if self.min_interval else []
        return f"{type(self).__name__}({', '.join(given)})"

    def due(self, numbers: Numbers, now: int) -> Reason | None:
        if numbers.last_tick is not None and now - numbers.last_tick < self._interval_ms:
            return None
        found = [(trigger, trigger.due(numbers, now)) for trigger in self.triggers]
        reasons = [(trigger, reason) for trigger, reason in found if reason is not None]
        if len(reasons) < self.count:
            return None
        ticks = [reason.tick for trigger, reason in reasons if has_ticks(trigger, reason, now)]
        return Reason(max(ticks, default=now), " and ".join(reason.text for _, reason in reasons))

    def next_after(self, after: int) -> int | None:
        times = [trigger.next_after(after) for trigger in self.triggers if isinstance(trigger, Scheduled)]
        return min((time for time in times if time is not None), default=None)

    @property
    def only_scheduled(self) -> bool:
        """Whether nothing can make it due between two scheduled times."""
        return only_scheduled(self.triggers) and not self._interval_ms


class AllOf(AtLeast):
    """When all of them are due at once."""

    def __init__(self, *triggers: Trigger, min_interval: str = "") -> None:
        super().__init__(len(triggers) or 1, *triggers, min_interval=min_interval)


class AnyOf(AtLeast):
    """When one of them is due: what a list of triggers means, and what a part of another one can be."""

    def __init__(self, *triggers: Trigger, min_interval: str = "") -> None:
        super().__init__(1, *triggers, min_interval=min_interval)


def only_scheduled(triggers: Sequence[Trigger]) -> bool:
    """Whether it is enough to look at them at their scheduled times."""
    return all(isinstance(trigger, Scheduled) and getattr(trigger, "only_scheduled", True) for trigger in triggers)


def has_ticks(trigger: Trigger, reason: Reason, now: int) -> bool:
    """Whether the reason's tick is a schedule's, and so the same for whoever decides."""
    return isinstance(trigger, Scheduled) and (not isinstance(trigger, AtLeast) or reason.tick != now)
