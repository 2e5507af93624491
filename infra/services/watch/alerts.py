"""what is known of a pipeline → what somebody should look at, and what to do: pure, worst first."""

from collections.abc import Iterator
from typing import Literal

import msgspec

Level = Literal["bad", "warn", "info"]
_ORDER = {"bad": 0, "warn": 1, "info": 2}
_STANDS_SECONDS = 30.0  # that events wait and none is predicted, before anybody is alarmed
_WAIT_SECONDS = 10.0  # of a second look: so long a lag may take to be worked off
MUCH_DRIFT, SOME_DRIFT = 0.25, 0.1  # PSI, by convention


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    level: Level
    text: str
    remedy: str = ""
    page: str = ""  # of the console, below the pipeline's: where one looks further


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that alerts are about. None: not known."""

    pipeline: str
    lag: int | None = None  # events that wait
    partitions: int = 1
    stood_seconds: float = 0.0  # since the position moved last, while events waited
    events_per_second: float | None = None
    predictions_per_second: float | None = None
    workers: int | None = None
    schedulers: int | None = None
    retrains: bool = False  # it has triggers
    paused_by: str = ""
    pinned: bool = False
    newest_run: str = ""  # the state of the newest one that was due: failed, rejected, …
    newest_run_reason: str = ""
    overdue_seconds: float = 0.0  # since a scheduled tick that nobody ran
    drift: float | None = None  # the largest PSI among columns that moved for sure
    drifted: tuple[str, ...] = ()
    dead_share: float = 0.0  # of the last minutes' records that were parked
    refused: tuple[int, ...] = ()  # versions that are named, and that a process of this machine refused; 0: a record
    guarded: int = 0  # the version that live labels took back, where nothing was promoted since
    failure: str = ""  # why this cannot be known: the broker is away


def alerts(seen: Condition) -> list[Alert]:
    return sorted(_alerts(seen), key=lambda alert: _ORDER[alert.level])


def _alerts(seen: Condition) -> Iterator[Alert]:
    if seen.failure:
        yield Alert(level="bad", text=seen.failure, remedy="What is shown may be old. Look at the broker.")
    yield from _flow(seen)
    yield from _training(seen)
    yield from _model(seen)


def _flow(seen: Condition) -> Iterator[Alert]:
    waits = (seen.lag or 0) > seen.partitions  # a transaction's mark at a partition's end is not to be predicted
    if seen.workers == 0:
        what = f"No worker runs, and {seen.lag:,} events wait." if waits and seen.lag else "No worker runs."
        yield Alert(level="bad" if waits else "warn", text=what, remedy="Start one: headrace worker FILE")
    elif waits and seen.stood_seconds > _STANDS_SECONDS:
        text = f"{seen.lag:,} events wait, and none was predicted for {seen.stood_seconds:.0f} s."
        yield Alert(level="bad", text=text, remedy="Look at the worker's log; it ends by itself if it hangs.")
    elif waits and seen.lag and (seen.predictions_per_second or 0) * _WAIT_SECONDS < seen.lag:
        arriving, leaving = seen.events_per_second or 0.0, seen.predictions_per_second or 0.0
        if arriving > leaving:
            text = f"{seen.lag:,} events wait, and more come than are predicted."
            yield Alert(level="warn", text=text, remedy="Add workers, up to one per partition.")
    if seen.dead_share > 0.01:
        text = f"{seen.dead_share:.0%} of what came in the last minutes was parked."
        yield Alert(level="bad" if seen.dead_share > 0.1 else "warn", text=text, page="/data?topic=dead-letters")


def _training(seen: Condition) -> Iterator[Alert]:
    if seen.retrains and seen.schedulers == 0:
        yield Alert(level="warn", text="No scheduler runs: nothing is retrained.", remedy="headrace scheduler FILE")
    elif seen.overdue_seconds > 0 and not seen.paused_by:
        yield Alert(
            level="warn", text=f"A scheduled training is {seen.overdue_seconds / 60:.0f} min late.", page="/runs"
        )
    if seen.newest_run == "failed":
        yield Alert(level="bad", text=f"The newest training failed: {seen.newest_run_reason}", page="/runs")
    elif seen.newest_run == "rejected":
        text = f"The newest candidate was rejected: {seen.newest_run_reason}"
        yield Alert(level="info", text=text, page="/runs")
    if seen.paused_by:
        yield Alert(level="info", text=f"The schedule is paused, by {seen.paused_by}.", page="/runs")


def _model(seen: Condition) -> Iterator[Alert]:
    if seen.guarded:
        text = f"Live labels took version {seen.guarded} back, and none was promoted since."
        yield Alert(level="bad", text=text, page="/versions")
    if versions := [version for version in seen.refused if version]:
        which = f"Version {versions[0]} was" if len(versions) == 1 else f"Versions {', '.join(map(str, versions))} were"
        text = f"{which} refused by a process on this machine, which goes on with what it had."
        yield Alert(level="bad", text=text, remedy="Its log says why.", page="/versions")
    if 0 in seen.refused:
        text = "A registry record was refused by a process on this machine in the last 24 hours."
        yield Alert(level="bad", text=text, remedy="Its log says why.", page="/versions")
    if seen.drift is not None and seen.drift >= SOME_DRIFT:
        columns = ", ".join(seen.drifted[:3]) + (f" and {len(seen.drifted) - 3} more" if len(seen.drifted) > 3 else "")
        level: Level = "warn" if seen.drift >= MUCH_DRIFT else "info"
        text = (
            f"What is served has moved from what the champion was trained on: {columns} (PSI up to {seen.drift:.2f})."
        )
        yield Alert(level=level, text=text, page="/data?topic=profile")
    if seen.pinned:
        yield Alert(level="info", text="The champion is pinned: new versions wait.", page="/versions")
