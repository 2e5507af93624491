"""ends of dead-letter topics, look by look → how many letters each pipeline has, and how many come a second."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letter_counts import LetterCounts
from headrace.infra.services.watch.recent import rate
from headrace.infra.settings import Settings

_LOOKS = 64  # that are kept


@dataclass(frozen=True, kw_only=True)
class _Parked:
    at: float  # monotonic seconds
    letters: Mapping[str, int]  # that were ever counted, by pipeline


class LetterRates:
    """For one thread; `of` is for any."""

    def __init__(self, settings: Settings, pipelines: Sequence[Names], seconds: float) -> None:
        """`seconds` of a look are for counting: where there is more, the next one goes on."""
        self._topics = {names.pipeline.name: names.topics.dead_letters for names in pipelines}
        self._of = {names.pipeline.name: LetterCounts(settings, names) for names in pipelines}
        self._seconds = seconds
        self._parked: deque[_Parked] = deque(maxlen=_LOOKS)

    def of(self, pipeline: str) -> LetterCounts:
        return self._of[pipeline]

    def look(self, at: float, ends: Mapping[str, int]) -> None:
        """Those first that were not for the longest time. `ends` are those of each topic at a monotonic time; one that
        is not there is not counted. Raises BrokerUnavailable."""
        until = monotonic() + self._seconds
        for name, letters in sorted(self._of.items(), key=lambda one: one[1].looked):
            if (end := ends.get(self._topics[name])) is not None:
                letters.follow(end, until)
        there = {name: one.counted for name, one in self._of.items()}
        parked = {name: counted.parked for name, counted in there.items() if counted is not None}
        self._parked.append(_Parked(at=at, letters=parked))

    def rate(self, pipeline: str) -> float | None:
        """Letters a second: marks of transactions and of what was redriven lie on the same topic."""
        return rate(self._parked, lambda look: look.letters.get(pipeline))
