"""what the scorer found, the time → the records that say it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import uuid4

from headrace.models.durations import iso
from headrace.models.facts import TickScored
from headrace.models.protocols import Reason
from headrace.models.records import Scored, Scoring
from headrace.scheduler.score_ticks import DECLARED


@dataclass(frozen=True, kw_only=True)
class Begin:
    """With what a tick begins."""

    version: int
    ends: Mapping[int, int]  # by partition, the offset after its last row
    identity: str  # of the source: another one where offsets would mean other rows


@dataclass(frozen=True, kw_only=True)
class ScoreRecords:
    """In the name of one scorer of one pipeline."""

    pipeline: str
    by: str
    clock_ms: Callable[[], int]

    @property
    def now(self) -> str:
        return iso(self.clock_ms())

    def declared(self, source: str) -> Scored:
        now, why = self.now, "ticks of this source count from here on"
        return self._scored(source, now, outcome=DECLARED, reason=why)

    def begins(self, source: str, due: Reason, begin: Begin) -> Scoring:
        tick = iso(due.tick)
        return Scoring(
            run=new_score_id(tick),
            pipeline=self.pipeline,
            source=source,
            tick=tick,
            trigger=due.text,
            at=self.now,
            by=self.by,
            version=begin.version,
            ends=dict(begin.ends),
            identity=begin.identity,
        )

    def nothing_yet(self, begun: Scoring) -> Scored:
        return self._scored(begun.source, begun.tick, run=begun.run, version=begun.version)

    def not_begun(self, source: str, due: Reason) -> Scored:
        return self._scored(source, iso(due.tick))

    def _scored(
        self, source: str, tick: str, *, run: str = "", version: int = 0, outcome: str = "", reason: str = ""
    ) -> Scored:
        return Scored(
            run=run or new_score_id(tick),
            pipeline=self.pipeline,
            source=source,
            tick=tick,
            at=self.now,
            by=self.by,
            version=version,
            outcome=outcome,
            reason=reason,
        )


def fact_of(ended: Scored) -> TickScored:
    return TickScored(
        pipeline=ended.pipeline,
        source=ended.source,
        tick=ended.tick,
        outcome=ended.outcome,
        reason=ended.reason,
        version=ended.version,
        rows=ended.rows,
        rejected=ended.rejected,
        newer=ended.newer,
        seconds=ended.seconds,
    )


def new_score_id(tick: str) -> str:
    """Sorts by time among the runs, and meets no other."""
    return f"{tick.replace(':', '')}-{uuid4().hex[:8]}"
