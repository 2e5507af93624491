"""what is on record of a run → the words and figures that commands and pages show of it. Pure; times are arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from headrace.infra.services.versions.book import RunFacts
from headrace.models.metrics import HIGHER_IS_BETTER, METRICS
from headrace.trainer.eta import COUNTS, ETA

_LINE_POINTS = 12  # of a curve, in a line of text
_VALIDATION = "validation_"
_INSTANT = 1e-9  # seconds: what has just begun has a share, too


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Of a run that goes on."""

    share: float | None  # 0 to 1; None where nobody knows how much there is
    eta_seconds: float | None
    late: bool  # it takes longer than the runs before it, and nobody knows how much
    counted: str  # "epoch 3 of 10", or ""
    facts: Mapping[str, float]  # the others: loss, rows, …


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One metric, and the champion's on the same held-out rows."""

    metric: str
    value: float
    champion: float | None
    difference: float | None
    verdict: str  # better, worse, or "" where they are equal or nobody knows which way is better


def rows_of(run: RunFacts) -> str:
    if run.source:
        return f"{run.rows:,} predicted, {run.rejected:,} dead letters, {run.newer:,} newer than the tick"
    return f"{run.rows:,} trained on, {run.holdout_rows:,} held out" if run.rows else ""


def curve_in_a_line(values: Sequence[float]) -> str:
    """The beginning, the end, and as much between as a line has room for."""
    return " ".join(f"{value:.4g}" for _, value in thinned(values, _LINE_POINTS))


def thinned(values: Sequence[float], most: int) -> list[tuple[int, float]]:
    """(epoch from 1, value) of about `most` of them, the first and the last among them."""
    step = max(1, -(-len(values) // most))
    picked = list(range(0, len(values), step))
    if picked and picked[-1] != len(values) - 1:
        picked.append(len(values) - 1)
    return [(number + 1, values[number]) for number in picked]


def curves_together(curves: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Names of curves that have one unit, so that one chart shows them: a loss and its validation_loss."""
    groups: dict[str, list[str]] = {}
    for name, values in curves.items():
        if values:
            groups.setdefault(name.removeprefix(_VALIDATION), []).append(name)
    return list(groups.values())


def progress_of(run: RunFacts, now: datetime) -> Progress:
    """By what the training counts; else by the time that it has taken, beside what runs before it took."""
    facts = {name: value for name, value in run.facts.items() if name != ETA}
    eta, counted, share = run.facts.get(ETA), "", None
    for name, names in COUNTS:
        done, all_ = run.facts.get(name, 0), run.facts.get(names, 0)
        if 0 < done <= all_:
            counted, share = f"{name} {done:g} of {all_:g}", done / all_
            del facts[name], facts[names]
            break
    late = not counted and eta is not None and eta <= 0
    if late:
        eta = None
    taken = seconds_between(run.started_at, now.isoformat())
    if share is None and eta is not None and taken is not None:
        share = min(1.0, max(0.0, taken) / max(_INSTANT, taken + eta))
    return Progress(share=share, eta_seconds=eta, late=late, counted=counted, facts=facts)


def took(run: RunFacts) -> float | None:
    """Seconds, of one that has ended."""
    if run.source:
        return run.seconds.get("score")
    return seconds_between(run.started_at, run.finished_at)


def compared(run: RunFacts) -> list[Compared]:
    return beside(run.metrics, run.champion_metrics)


def beside(metrics: Mapping[str, float], champions: Mapping[str, float], *, first: str = "") -> list[Compared]:
    """`first`: the metric that comes first, where it is there."""
    found = []
    for metric in sorted(metrics, key=lambda name: name != first):  # else in their order
        value, champion = metrics[metric], champions.get(metric)
        difference = None if champion is None else value - champion
        verdict = ""
        if difference and metric in METRICS:
            verdict = "better" if (difference > 0) == (metric in HIGHER_IS_BETTER) else "worse"
        found.append(Compared(metric=metric, value=value, champion=champion, difference=difference, verdict=verdict))
    return found


def seconds_between(first: str, last: str) -> float | None:
    """RFC 3339 both; None where one of them says nothing."""
    try:
        return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    except (ValueError, TypeError):
        return None
