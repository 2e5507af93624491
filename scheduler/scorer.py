"""clock, runs log → due tick → its rows in parts → predictions and progress, each part one fenced transaction (law 8).

The scorer is the owner of partition 0 of `headrace.runs` in a group of its own, beside the leader:
trainings, moves and rollbacks go on while it scores. (1) Its first record fences whoever scored before and is read
back: all that one committed is known by then. (2) A tick that is due is put on record with the champion's version and
the ends of its source. (3) Each part's predictions and dead letters go out together with how far the tick is, (4) the
last one with the outcome. Whoever finds a tick without an outcome goes on after its last part.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import monotonic, time_ns
from typing import Any, Protocol

from msgspec.structs import replace

from headrace.models.errors import BadInput, RunFailed
from headrace.models.facts import Observer
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Reason
from headrace.models.records import RunRecord, Scored, Scoring
from headrace.models.scoring import Score
from headrace.scheduler.ledger import LeadershipLost
from headrace.scheduler.score_records import Begin, ScoreRecords, fact_of
from headrace.scheduler.score_ticks import DONE, FAILED, Open, ScoreTicks

_POLL_SECONDS = 0.2
_READ_BACK_SECONDS = 30.0  # from a commit until readers see it: milliseconds, on a broker that is well
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0  # between two tries of a tick
_TRY_SECONDS = 900.0  # a tick that cannot be scored for so long, and comes no further, has failed
_log = logging.getLogger("headrace.scheduler")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some rows of a tick, scored."""

    records: Sequence[Any]  # for the writer
    partition: int  # where the rest begins
    position: int
    rows: int
    rejected: int
    newer: int
    last: bool


class Scoreboard(Protocol):
    """The rows of the sources, and the versions."""

    def begin(self, score: Score) -> Begin:
        """As they are now."""

    def parts(self, score: Score, begun: Scoring, partition: int, position: int) -> Generator[Part | None, None, None]:
        """From there on, the last one said to be so; None while it looks. Raises RunFailed or BadInput for what no
        retry mends."""


class RunsLog(Protocol):
    """`headrace.runs` as a member of the scorers' group."""

    def poll(self, seconds: float) -> Sequence[RunRecord]: ...

    @property
    def leads(self) -> bool: ...


class Writer(Protocol):
    """Transactions that the broker refuses to one who lost the group. Raises LeadershipLost, or RunFailed for records
    that the broker will never take."""

    def write(self, record: Scoring | Scored, records: Sequence[Any] = ()) -> None: ...


@dataclass
class _Tries:
    since: float  # of the first failure after progress, monotonic seconds
    again_at: float
    wait: float = _FIRST_WAIT_SECONDS


class Scorer:
    """One pipeline's. `step` returns soon where nothing is due; else when the tick ended, or failed for now."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        name: str,
        log: RunsLog,
        writer: Writer,
        board: Scoreboard,
        observer: Observer,
        clock_ms: Callable[[], int] = lambda: time_ns() // 1_000_000,
        try_seconds: float = _TRY_SECONDS,
    ) -> None:
        self._pipeline, self._try_seconds = pipeline, try_seconds
        self._log, self._writer, self._board, self._observer = log, writer, board, observer
        self._records = ScoreRecords(pipeline=pipeline.name, by=name, clock_ms=clock_ms)
        self._ticks = ScoreTicks(pipeline.name)
        self._fenced = False  # whether whoever scored before is
        self._heard: Scoring | Scored | None = None  # the newest of such records
        self._tries: dict[str, _Tries] = {}  # by source

    def step(self) -> None:
        self._read(_POLL_SECONDS)
        for score in self._pipeline.score:
            tries = self._tries.get(score.name)
            if self._log.leads and (tries is None or monotonic() >= tries.again_at):
                self._look_at(score)

    def _look_at(self, score: Score) -> None:
        opened, due = self._at_hand(score)
        if not self._ticks.known(score.name) or (not self._fenced and (opened or due)):
            # the first of these records counts; any of them fences whoever scored before, so each leadership begins so
            self._put(self._records.declared(score.name))
            opened, due = self._at_hand(score)
        try:
            if opened is None and due is not None:
                self._put(self._records.begins(score.name, due, self._board.begin(score)))
                opened = self._ticks.open(score.name)
            if opened is not None:
                self._go_on(score, opened)
        except LeadershipLost:
            raise
        except (RunFailed, BadInput) as error:
            self._fail(score, due, str(error))
        except Exception as error:  # noqa: BLE001  a file system has errors of its own; retraining must go on
            self._put_off(score, due, f"{type(error).__name__}: {error}")

    def _at_hand(self, score: Score) -> tuple[Open | None, Reason | None]:
        return self._ticks.open(score.name), self._ticks.due(score, self._records.clock_ms())

    def _go_on(self, score: Score, opened: Open) -> None:
        begun, began = opened.begun, monotonic()
        so_far = opened.so_far or self._records.nothing_yet(begun)
        spent = so_far.seconds
        with closing(self._board.parts(score, begun, so_far.partition, so_far.position)) as parts:
            for part in parts:
                self._read(0)
                self._expect_to_lead()
                if part is None:
                    continue
                so_far = replace(
                    so_far,
                    at=self._records.now,
                    by=self._records.by,
                    outcome=DONE if part.last else "",
                    partition=part.partition,
                    position=part.position,
                    rows=so_far.rows + part.rows,
                    rejected=so_far.rejected + part.rejected,
                    newer=so_far.newer + part.newer,
                    seconds=round(spent + monotonic() - began, 3),
                )
                self._put(so_far, part.records)
                self._tries.pop(score.name, None)
        self._observer(fact_of(so_far))

    def _put_off(self, score: Score, due: Reason | None, why: str) -> None:
        now = monotonic()
        tries = self._tries.setdefault(score.name, _Tries(since=now, again_at=now))
        if now - tries.since >= self._try_seconds:
            self._fail(score, due, f"gave up after {self._try_seconds:.0f} s: {why}")
            return
        _log.warning("scoring of %s is tried again in %.0f s: %s", score.name, tries.wait, why)
        tries.again_at = now + tries.wait
        tries.wait = min(2 * tries.wait, _LONGEST_WAIT_SECONDS)

    def _fail(self, score: Score, due: Reason | None, why: str) -> None:
        """On record; what was written of it stays, and the next tick is another."""
        self._tries.pop(score.name, None)
        opened = self._ticks.open(score.name)
        if opened is not None:
            so_far = opened.so_far or self._records.nothing_yet(opened.begun)
        elif due is not None:  # it could not even begin
            so_far = self._records.not_begun(score.name, due)
        else:
            return
        ended = replace(so_far, at=self._records.now, by=self._records.by, outcome=FAILED, reason=why)
        self._put(ended)
        self._observer(fact_of(ended))

    def _put(self, record: Scoring | Scored, records: Sequence[Any] = ()) -> None:
        """Committed, and read back: what the scorer knows is what is on the topic, and nothing else."""
        self._writer.write(record, records)
        self._fenced = True
        deadline = monotonic() + _READ_BACK_SECONDS
        while self._heard != record:
            self._read(_POLL_SECONDS)
            self._expect_to_lead()
            if monotonic() > deadline:
                raise LeadershipLost(f"{self._pipeline.name}: what was committed to the runs cannot be read")

    def _read(self, seconds: float) -> None:
        for record in self._log.poll(seconds):
            try:
                self._ticks.apply(record)
            except (ValueError, OverflowError):  # a tick that no calendar holds: none of ours
                continue
            if isinstance(record, Scoring | Scored) and record.pipeline == self._pipeline.name:
                self._heard = record

    def _expect_to_lead(self) -> None:
        if not self._log.leads:
            raise LeadershipLost(self._pipeline.name)
