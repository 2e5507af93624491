"""a learner's progress → the seconds that it still takes. Pure but for the clock that it is given."""

from collections.abc import Callable, Mapping
from time import monotonic

ETA = "eta_seconds"
COUNTS = (("epoch", "epochs"), ("step", "steps"), ("tree", "trees"))  # how far, of how many


class Eta:
    """As fast as since the training's first word: of facts that say how far it is."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._begun = clock, clock()

    def restart(self) -> None:
        self._begun = self._clock()

    def added(self, facts: Mapping[str, float]) -> dict[str, float]:
        """The facts, with `eta_seconds` where it can be said."""
        for name, names in COUNTS:
            done, all_ = facts.get(name, 0), facts.get(names, 0)
            if 0 < done <= all_:
                taken = self._clock() - self._begun
                return {**facts, ETA: round(taken / done * (all_ - done), 3)}
        return dict(facts)
