"""Triggers → the ticks to come: what `schedule list` shows, and the slices of a replay."""

from collections.abc import Iterator, Sequence

from headrace.models.errors import DeclarationError
from headrace.models.protocols import Scheduled, Trigger


def next_of(triggers: Sequence[Trigger], after: int) -> int | None:
    """The earliest scheduled time strictly after `after`, Unix ms; None where no trigger keeps a schedule."""
    times = [trigger.next_after(after) for trigger in triggers if isinstance(trigger, Scheduled)]
    return min((time for time in times if time is not None), default=None)


def slice_ends(triggers: Sequence[Trigger], start: int, end: int, longest: int) -> Iterator[tuple[int, bool]]:
    """Cut (start, end] of event time where a replay must stop: (end of the slice, is it a scheduled tick?).

    A slice ends at the next tick or at the next multiple of `longest` ms since 1970 in UTC, whichever is first; the
    last one at `end`. So one-day slices are unions of one-hour slices, and every tick in (start, end] ends a slice.
    """
    if longest < 1:
        raise DeclarationError("slice", "a length of at least 1 ms", longest, "For example one day.")
    at = start
    tick = next_of(triggers, at)
    while at < end:
        bound = min(end, at - at % longest + longest)
        is_tick = tick is not None and tick <= bound
        at = tick if tick is not None and is_tick else bound
        yield at, is_tick
        if is_tick:
            tick = next_of(triggers, at)
