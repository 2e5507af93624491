"""how long runs took, how far this one is → does it end before the next tick? Pure: times are arguments, Unix ms."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from headrace.models.durations import iso
from headrace.models.protocols import Trigger
from headrace.scheduler.next_ticks import next_of

_PRESENT_MS = 86_400_000  # a request that is older is a replay's: its ticks are not on the clock's day


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Of one run: when it began, by the clock, and the tick that it should end before; None where none is known."""

    began: int
    next_tick: int | None
    seconds: float | None  # that runs took so far

    def expected_end(self, now: int, eta_seconds: float | None = None) -> int | None:
        """By the training's own estimate where it has one, else by the runs before."""
        if eta_seconds is not None:
            return now + round(1000 * eta_seconds)
        return None if self.seconds is None else self.began + round(1000 * self.seconds)

    def overrun(self, now: int, eta_seconds: float | None = None) -> int | None:
        """The tick that comes before the run's end, as far as can be said now."""
        if self.next_tick is None:
            return None
        end = self.expected_end(now, eta_seconds)
        is_late = now > self.next_tick or (end is not None and end > self.next_tick)
        return self.next_tick if is_late else None


def schedule_of(triggers: Sequence[Trigger], *, at: int, began: int, durations: Sequence[float]) -> Schedule:
    """`at` is what the run was asked for, `durations` the seconds that the newest runs took."""
    is_present = abs(began - at) < _PRESENT_MS
    return Schedule(
        began=began,
        next_tick=next_of(triggers, began) if is_present else None,
        seconds=median(durations) if durations else None,
    )


def sentence(tick: int, end: int | None) -> str:
    expected = "it has not ended" if end is None else f"its end is expected at {iso(end)}"
    return f"the next tick is at {iso(tick)}, {expected}: that tick runs late, once"
