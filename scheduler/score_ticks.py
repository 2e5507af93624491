"""Ticks of `Pipeline.score`, the time → which one is to be scored, or goes on. Pure: a fold over `headrace.runs`.

Each source has its own ticks. They count from the moment at which a scheduler first saw the source, which is on record.
Several missed ones are one, the newest, as for `Cron`; its record says how many. A tick that was begun is finished
before another is, by the first record of its begin: one tick is of one version, and of the rows that were there then.
"""

from dataclasses import dataclass, field
from datetime import datetime

from headrace.models.durations import to_ms
from headrace.models.protocols import Numbers, Reason
from headrace.models.records import Paused, RunRecord, Scored, Scoring
from headrace.models.scoring import Score

DECLARED, DONE, FAILED = "declared", "scored", "failed"  # outcomes of a `Scored`


@dataclass(frozen=True, kw_only=True)
class Open:
    """A tick that was begun and has no outcome."""

    begun: Scoring
    so_far: Scored | None  # None: nothing of it is written yet

    @property
    def tick(self) -> int:
        """Unix ms."""
        return _ms(self.begun.tick)


@dataclass
class _Source:
    last: int | None = None  # the newest tick with an outcome, or when its ticks began to count, Unix ms
    open: dict[int, Open] = field(default_factory=dict)  # by tick, in the order in which they began


class ScoreTicks:
    """What is known of one pipeline's scheduled scoring. The same record twice changes nothing."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._sources: dict[str, _Source] = {}
        self._paused = False

    def apply(self, record: RunRecord) -> None:
        """Raises ValueError for a tick that no calendar holds."""
        if record.pipeline != self._pipeline:
            return
        match record:
            case Paused():
                self._paused = record.paused
            case Scoring():
                self._begin(record)
            case Scored():
                self._go_on(record)
            case _:
                pass

    def known(self, source: str) -> bool:
        """Whether it is on record since when its ticks count."""
        return self._of(source).last is not None

    def open(self, source: str) -> Open | None:
        """The tick that is to be finished first."""
        return next(iter(self._of(source).open.values()), None)

    def due(self, score: Score, now: int) -> Reason | None:
        """The next tick to begin, `now` being Unix ms. None while another is open, or the schedule is paused."""
        source = self._of(score.name)
        if self._paused or source.open or source.last is None:
            return None
        reason: Reason | None = score.at.due(Numbers(last_tick=source.last, started=source.last), now)
        return reason if reason is not None and source.last < reason.tick <= now else None

    def _begin(self, record: Scoring) -> None:
        source, tick = self._of(record.source), _ms(record.tick)
        if source.last is None or tick > source.last:
            source.open.setdefault(tick, Open(begun=record, so_far=None))

    def _go_on(self, record: Scored) -> None:
        source, tick = self._of(record.source), _ms(record.tick)
        if record.outcome == DECLARED:
            source.last = tick if source.last is None else source.last
        elif record.outcome:
            source.open.pop(tick, None)
            source.last = tick if source.last is None else max(source.last, tick)
        elif tick in source.open:
            source.open[tick] = Open(begun=source.open[tick].begun, so_far=record)

    def _of(self, source: str) -> _Source:
        return self._sources.setdefault(source, _Source())


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))
