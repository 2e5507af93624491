"""registry, runs → what there is to know of versions and runs, as records that the command line and others show."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec

from headrace.infra.artifacts import Artifacts
from headrace.infra.keys import verifier
from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.services.resolve import resolve
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.aliases import CHAMPION
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.findings import Finding
from headrace.models.manifest import Manifest, OffsetRange
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
    rows: int = 0
    holdout_rows: int = 0
    metrics: dict[str, float] = {}
    champion_metrics: dict[str, float] = {}


class VersionDetail(msgspec.Struct, kw_only=True):
    version: int
    aliases: tuple[str, ...]
    state: str  # pinned, archived, or ""
    promotions: tuple[Promoted, ...]
    lineage: tuple[int, ...]  # parent, its parent, … down to the baseline, 0
    manifest: Manifest


def runs(settings: Settings, names: Names) -> list[RunFacts]:
    """Oldest first. Raises BrokerUnavailable."""
    return _runs(_records(settings, names.of(RUNS)), names)


def _runs(messages: Sequence[Any], names: Names) -> list[RunFacts]:
    found: dict[str, RunFacts] = {}
    for message in messages:
        if message.topic() != names.of(RUNS):
            continue
        try:
            record = _decode_run(message.value() or b"")
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue  # a record of somebody else's says nothing to us
        if record.pipeline == names.pipeline.name and not isinstance(record, Asked | Replied | Paused):
            if isinstance(record, Scored) and record.outcome == DECLARED:
                continue
            _take(found.setdefault(record.run, RunFacts(run=record.run)), record, message.timestamp()[1])
    return list(found.values())


def run(settings: Settings, names: Names, wanted: str | None = None) -> RunFacts:
    """The run that is named, in full or by its beginning, else the newest one that was due."""
    known = runs(settings, names)
    if wanted is None:
        due = [one for one in known if one.state != "not_due"]
        if not due:
            raise BadInput(f"{names.pipeline.name}: expected a run, none was due so far. Run: headrace train")
        return due[-1]
    found = [one for one in known if one.run == wanted] or [one for one in known if one.run.startswith(wanted)]
    if len(found) != 1:
        raise BadInput(f"run: expected one of `headrace runs list`, {wanted!r} names {len(found)}.")
    return found[0]


def versions(settings: Settings, names: Names) -> list[VersionFacts]:
    """Newest first, the baseline last. Metrics are those of its run."""
    messages = _records(settings, names.of(REGISTRY), names.of(RUNS))
    known = _folded(settings, messages, names)
    by_version = {one.version: one for one in _runs(messages, names) if one.version and not one.source}
    promotions = {promotion.version: promotion for promotion in known.promotions}
    facts = []
    for version, published in sorted(known.published.items(), reverse=True):
        promoted, made_by = promotions.get(version), by_version.get(version, RunFacts(run=""))
        facts.append(
            VersionFacts(
                version=version,
                aliases=_aliases(known, version),
                state=_state(known, version),
                published_at=published.at,
                by=published.by,
                promoted_at=promoted.at if promoted else "",
                why=promoted.why if promoted else published.why,
                run=published.run or made_by.run,
                rows=made_by.rows,
                holdout_rows=made_by.holdout_rows,
                metrics=made_by.metrics,
                champion_metrics=made_by.champion_metrics,
            )
        )
    baseline = VersionFacts(version=0, aliases=_aliases(known, 0), why="computed from the declaration")
    return [*facts, baseline]


def version(settings: Settings, names: Names, wanted: int | str | None = None) -> VersionDetail:
    """The version of this number or alias, or the champion, with its manifest.

    Raises BadInput, or RegistryRefused for bytes that differ.
    """
    known = known_versions(settings, names)
    number = resolve(known, CHAMPION if wanted is None else str(wanted))
    if number == 0:
        there = ", ".join(map(str, sorted(known.published))) or "none is published yet"
        about = "the baseline is computed from the declaration and has no manifest"
        raise BadInput(f"version 0 of {names.pipeline.name}: {about}. Published: {there}.")
    with closing(Artifacts(settings)) as artifacts:
        manifest = manifests.decode(artifacts.read(known.published[number].manifest))
        lineage = _lineage(known, manifest.parent, artifacts)
    return VersionDetail(
        version=number,
        aliases=_aliases(known, number),
        state=_state(known, number),
        promotions=tuple(promotion for promotion in known.promotions if promotion.version == number),
        lineage=lineage,
        manifest=manifest,
    )


def known_versions(settings: Settings, names: Names) -> Versions:
    """The registry as it is now. Raises BrokerUnavailable."""
    return _folded(settings, _records(settings, names.of(REGISTRY)), names)


def _aliases(known: Versions, version: int) -> tuple[str, ...]:
    return tuple(name for name, meant in known.aliases.items() if meant == version)


def _state(known: Versions, version: int) -> str:
    if version in known.archived:
        return "archived"
    return "pinned" if known.pinned and version == known.aliases[CHAMPION] else ""


def _lineage(known: Versions, parent: int, artifacts: Artifacts) -> tuple[int, ...]:
    """A parent is an older version, so this ends."""
    line = [parent]
    while line[-1] in known.published and len(line) < len(known.published):
        above = manifests.decode(artifacts.read(known.published[line[-1]].manifest)).parent
        if above >= line[-1]:
            break
        line.append(above)
    return tuple(line)


def _folded(settings: Settings, messages: Sequence[Any], names: Names) -> Versions:
    """What followers make of the registry; what they refuse, they report."""
    known, verify = Versions(), verifier(settings, names.pipeline)
    for message in messages:
        if message.topic() != names.of(REGISTRY):
            continue
        try:
            record = registry.decode(message.value())
            if record.pipeline == names.pipeline.name:
                verify(record)
                known.apply(record)
        except RegistryRefused:
            continue
    return known


def _records(settings: Settings, *topics: str) -> list[Any]:
    reader = TopicReader(settings, topics, once=True)
    try:
        return [message for batch in reader.until_end() for message in batch]
    finally:
        reader.close()


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
