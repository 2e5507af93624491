"""records of registry and runs → what they say of one pipeline's versions and runs: a fold, fed by whoever reads."""

from typing import Any

import msgspec

from headrace.infra.keys import verifier
from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.settings import Settings
from headrace.models import registry
from headrace.models.aliases import CHAMPION
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.findings import Finding
from headrace.models.manifest import OffsetRange
from headrace.models.records import (
    Asked,
    Finished,
    Paused,
    Progressed,
    Promoted,
    Replied,
    Requested,
    RunRecord,
    Scored,
    Scoring,
    Started,
)
from headrace.models.registry import Versions
from headrace.scheduler.score_ticks import DECLARED

_decode_run = msgspec.json.Decoder(RunRecord).decode


class AttemptFacts(msgspec.Struct, kw_only=True):
    """One try of a run, as its beginning tells."""

    attempt: int
    started_at: str
    host: str
    after: str  # why the one before it failed


class RunFacts(msgspec.Struct, kw_only=True):
    """All that is on record of one run, or of one tick of scheduled scoring; "" and 0 where it has not come so far."""

    run: str
    # then started, then the outcome: promoted, published, rejected, failed, cancelled, not_due; scoring, scored
    state: str = "requested"
    by: str = ""
    on_demand: bool = False
    why: str = ""
    at: str = ""  # event time in a replay, else the clock: nothing newer is trained on
    requested_at: str = ""
    tick: str = ""
    trigger: str = ""
    started_at: str = ""  # the newest attempt
    host: str = ""  # where it trains
    limits: dict[str, float] = {}  # seconds, memory_mb, cpus, nice, attempts
    attempts: list[AttemptFacts] = []
    overruns: str = ""  # the tick that it was not expected to end before
    stage: str = ""
    facts: dict[str, float] = {}  # of the stage
    finished_at: str = ""
    reason: str = ""
    version: int = 0
    rows: int = 0
    holdout_rows: int = 0
    metrics: dict[str, float] = {}
    champion_metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}  # by stage
    curves: dict[str, list[float]] = {}  # by name, one value per epoch
    ranges: tuple[OffsetRange, ...] = ()
    source: str = ""  # of a tick of scheduled scoring, not a training: what is scored
    rejected: int = 0  # its rows that are dead letters
    newer: int = 0  # and ids of which there were only rows with a time after the tick
    findings: tuple[Finding, ...] = ()


class VersionFacts(msgspec.Struct, kw_only=True):
    """One version as the registry and its run tell of it. Version 0 is the baseline: never published."""

    version: int
    aliases: tuple[str, ...] = ()
    state: str = ""  # pinned, archived, or ""
    published_at: str = ""
    by: str = ""
    promoted_at: str = ""  # the newest promotion
    why: str = ""
    run: str = ""
    tick: str = ""  # the scheduled time of its run; of one on demand, what it knew: event time in a replay
    rows: int = 0
    holdout_rows: int = 0
    metrics: dict[str, float] = {}
    champion_metrics: dict[str, float] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Which version is what now."""

    champion: int
    previous: int | None  # what a rollback brings back
    pinned: bool
    aliases: dict[str, int]  # the champion first
    promotions: list[Promoted]  # oldest first


class Book:
    """What registry and runs say of one pipeline, folded record by record: the same for whoever reads them once and for
    whoever follows them. For one thread at a time; what it gives out is not changed later, but for a run's facts."""

    def __init__(self, settings: Settings, names: Names) -> None:
        self.names, self.known = names, Versions()
        self.paused: Paused | None = None  # the newest word on it
        self._verify = verifier(settings, names.pipeline)
        self._runs: dict[str, RunFacts] = {}
        self._versions: list[VersionFacts] | None = None  # until something changes

    def take(self, message: Any) -> bool:
        """Whether it said anything of this pipeline. What followers refuse, they report; here it changes nothing."""
        if message.topic() == self.names.of(RUNS):
            return self._take_run(message)
        said = message.topic() == self.names.of(REGISTRY) and self._take_move(message)
        if said:
            self._versions = None
        return said

    def runs(self) -> list[RunFacts]:
        """Oldest first."""
        return list(self._runs.values())

    def run(self, wanted: str | None = None) -> RunFacts:
        """The run that is named, in full or by its beginning, else the newest one that was due. Raises BadInput."""
        known = self.runs()
        if wanted is None:
            due = [one for one in known if one.state != "not_due"]
            if not due:
                raise BadInput(f"{self.names.pipeline.name}: expected a run, none was due so far. Run: headrace train")
            return due[-1]
        found = [one for one in known if one.run == wanted] or [one for one in known if one.run.startswith(wanted)]
        if len(found) != 1:
            raise BadInput(f"run: expected one of `headrace runs list`, {wanted[:100]!r} names {len(found)}.")
        return found[0]

    def versions(self) -> list[VersionFacts]:
        """Newest first, the baseline last. Metrics are those of its run."""
        if self._versions is None:
            self._versions = self._listed()
        return self._versions

    def standing(self) -> Standing:
        known = self.known
        return Standing(
            champion=known.aliases[CHAMPION],
            previous=known.previous,
            pinned=known.pinned,
            aliases=known.aliases,
            promotions=list(known.promotions),
        )

    def _listed(self) -> list[VersionFacts]:
        known, by_version = self.known, {one.version: one for one in self.runs() if one.version and not one.source}
        promotions = {promotion.version: promotion for promotion in known.promotions}
        names: dict[int, list[str]] = {}
        for alias, number in known.aliases.items():
            names.setdefault(number, []).append(alias)
        facts = []
        for version, published in sorted(known.published.items(), reverse=True):
            promoted, made_by = promotions.get(version), by_version.get(version, RunFacts(run=""))
            facts.append(
                VersionFacts(
                    version=version,
                    aliases=tuple(names.get(version, ())),
                    state=state_of(known, version),
                    published_at=published.at,
                    by=published.by,
                    promoted_at=promoted.at if promoted else "",
                    why=promoted.why if promoted else published.why,
                    run=published.run or made_by.run,
                    tick=published.tick or made_by.at,
                    rows=made_by.rows,
                    holdout_rows=made_by.holdout_rows,
                    metrics=made_by.metrics,
                    champion_metrics=made_by.champion_metrics,
                )
            )
        baseline = VersionFacts(version=0, aliases=tuple(names.get(0, ())), why="computed from the declaration")
        return [*facts, baseline]

    def _take_run(self, message: Any) -> bool:
        try:
            record = _decode_run(message.value() or b"")
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False  # a record of somebody else's says nothing to us
        if record.pipeline != self.names.pipeline.name or isinstance(record, Asked | Replied):
            return False
        if isinstance(record, Paused):
            self.paused = record
        elif not (isinstance(record, Scored) and record.outcome == DECLARED):
            facts = self._runs.setdefault(record.run, RunFacts(run=record.run))
            _take(facts, record, message.timestamp()[1])
            if facts.version and not facts.source:  # how far a training is changes no version: of 10,000 a list costs
                self._versions = None
        return True

    def _take_move(self, message: Any) -> bool:
        try:
            record = registry.decode(message.value())
            if record.pipeline != self.names.pipeline.name:
                return False
            self._verify(record)
            self.known.apply(record)
        except RegistryRefused:
            return False
        return True


def state_of(known: Versions, version: int) -> str:
    if version in known.archived:
        return "archived"
    return "pinned" if known.pinned and known.champion and version == known.champion.version else ""


def _take(
    facts: RunFacts, record: Requested | Started | Progressed | Finished | Scoring | Scored, written_ms: int
) -> None:
    """A request that was delivered twice, or a run tried again, overwrites with the same or with the newer."""
    match record:
        case Requested():
            facts.by, facts.on_demand, facts.why = record.by, record.on_demand, record.why
            facts.at, facts.requested_at = iso(record.at), iso(written_ms)
        case Started():
            facts.state = "started" if not facts.finished_at else facts.state
            facts.started_at, facts.tick, facts.trigger = record.at, record.tick, record.trigger
            facts.ranges, facts.host, facts.limits = record.ranges, record.host, record.limits
            facts.overruns = record.overruns or facts.overruns
            begun = AttemptFacts(attempt=record.attempt, started_at=record.at, host=record.host, after=record.after)
            facts.attempts = [*facts.attempts, begun]
        case Progressed():
            facts.stage, facts.facts = record.stage, record.facts
            facts.overruns = record.overruns or facts.overruns
            facts.reason = record.why if not facts.finished_at else facts.reason
        case Finished():
            facts.state, facts.finished_at, facts.reason = record.outcome, record.at, record.reason
            facts.tick, facts.version = record.tick or facts.tick, record.version
            facts.rows, facts.holdout_rows = record.rows, record.holdout_rows
            facts.metrics, facts.champion_metrics = record.metrics, record.champion_metrics
            facts.seconds, facts.curves, facts.findings = record.seconds, record.curves, record.findings
        case Scoring() if not facts.started_at:
            facts.state, facts.source, facts.tick, facts.trigger = "scoring", record.source, record.tick, record.trigger
            facts.by, facts.version, facts.at, facts.started_at = record.by, record.version, record.tick, record.at
        case Scored():
            facts.state, facts.reason = record.outcome or "scoring", record.reason
            facts.finished_at = record.at if record.outcome else ""
            facts.by, facts.source, facts.tick, facts.at = record.by, record.source, record.tick, record.tick
            facts.version, facts.rows, facts.rejected = record.version, record.rows, record.rejected
            facts.newer, facts.seconds = record.newer, {"score": record.seconds}
        case _:
            pass
