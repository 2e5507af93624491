"""two scrapes of a live process → where the time between them went: a row per stage, and what took most of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.infra.services.watch.scrape import Scrape, Times
from headrace.models.errors import HeadraceError
from headrace.models.facts import FEATURE_STORE, FUNCTION

_WAIT = "wait"  # for the chunk before it: the other stages' time once more, no work of its own
_WHOLE = "features"
_OF_AGENT = (_WAIT, "decode", _WHOLE, "infer", "encode")
_OF_SOURCE = ("produce", "acknowledge", "commit")
_ORDER = (*_OF_AGENT, *_OF_SOURCE)


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: str  # infer or features
    thread: str  # as the process names it; threads work beside each other
    stage: str
    within: str | None  # the stage that it is a part of
    share: float | None  # of the seconds looked at; None for `wait`
    seconds: float
    calls: int
    mean: float  # seconds per call, as the percentiles
    p50: float
    p99: float
    us_per_event: float | None  # microseconds of this stage per event, or side row; None where there were none


@dataclass(frozen=True, kw_only=True)
class Profile:
    seconds: float  # between the two scrapes
    events: int
    events_per_second: float
    side_rows: int
    busy: Mapping[str, float]  # share of the seconds by thread
    largest: Stage | None  # a stage that has parts counts with what is not in them
    stages: Sequence[Stage]


def profile(before: Scrape, after: Scrape) -> Profile:
    """Raises HeadraceError where the process was started again in between: its counts began anew."""
    elapsed = after.at - before.at
    rows = {agent: count - before.rows[agent] for agent, count in after.rows.items()}
    times = {key: later.since(before.stages.get(key)) for key, later in after.stages.items()}
    if min(rows.values()) < 0 or any(spent.calls < 0 for spent in times.values()):
        raise HeadraceError("the process was started again while it was looked at. Look once more.")
    stages = [_stage(*key, spent, elapsed, rows.get(key[0], 0.0)) for key, spent in times.items() if spent.calls]
    stages.sort(key=_place)
    return Profile(
        seconds=elapsed,
        events=int(rows["infer"]),
        events_per_second=rows["infer"] / elapsed,
        side_rows=int(rows["features"]),
        busy=_busy(stages),
        largest=max((one for one in stages if one.stage != _WAIT), key=lambda one: _own(one, stages), default=None),
        stages=stages,
    )


def _stage(agent: str, stage: str, spent: Times, elapsed: float, rows: float) -> Stage:
    return Stage(
        agent=agent,
        thread=f"source-{agent}" if stage in _OF_SOURCE else agent,
        stage=stage,
        within=_WHOLE if stage == FEATURE_STORE or stage.startswith(FUNCTION) else None,
        share=None if stage == _WAIT else spent.seconds / elapsed,
        seconds=spent.seconds,
        calls=spent.calls,
        mean=spent.seconds / spent.calls,
        p50=spent.percentile(0.5),
        p99=spent.percentile(0.99),
        us_per_event=spent.seconds / rows * 1e6 if rows else None,
    )


def _place(stage: Stage) -> tuple[bool, int, bool, float]:
    """`infer` first, in the order of the flow; parts behind their whole, the largest first."""
    whole = stage.within or stage.stage
    flow = _ORDER.index(whole) if whole in _ORDER else len(_ORDER)
    return stage.agent != "infer", flow, stage.within is not None, -stage.seconds


def _own(stage: Stage, stages: Sequence[Stage]) -> float:
    """Its seconds, less those of its parts."""
    parts = [one.seconds for one in stages if one.agent == stage.agent and one.within == stage.stage]
    return stage.seconds - sum(parts)


def _busy(stages: Sequence[Stage]) -> dict[str, float]:
    busy: dict[str, float] = {}
    for one in stages:
        if one.within is None and one.share is not None:
            busy[one.thread] = busy.get(one.thread, 0.0) + one.share
    return busy
