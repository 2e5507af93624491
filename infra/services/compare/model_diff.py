"""two versions → how differently they answer the same served rows: what `model diff` shows, prints and draws."""

from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.infra.names import Names
from headrace.infra.services.compare.diff_rows import (
    FIRST,
    SECOND,
    Both,
    labels_of,
    newest_rows,
    rows_between,
    scores_in,
)
from headrace.infra.services.scores.scoring import Scoring, Version
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.services.versions.resolve import resolve
from headrace.infra.settings import Settings
from headrace.models.aliases import CHAMPION
from headrace.models.difference import Difference, Scored, difference
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.labels import Binary
from headrace.models.pipeline import SERVED_FIELDS
from headrace.models.protocols import Task
from headrace.models.registry import Versions
from headrace.trainer.columns import as_numpy


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A row on which the two differ most."""

    id: str
    source: str  # topic/partition/offset
    event_time: str
    first: float
    second: float
    label: float | None
    served_version: int
    features: dict[str, Any]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    aliases: tuple[str, ...]
    judged_against: int | None = None  # the champion of its run; None where no run made it
    verdict: str = ""  # of the gate, then
    numbers: dict[str, float] = {}  # of that verdict


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Differences are second - first."""

    pipeline: str
    task: Task
    first: Side
    second: Side
    event_times: tuple[str, str]  # of the oldest and the newest row
    metric: str  # of segments
    decide_at: float | None
    difference: Difference
    moved: tuple[Moved, ...]
    lacking: dict[str, int]  # rows left out, by the column that was not logged when they were served
    unanswered: int  # rows left out: a version raised, or answered NaN or infinity
    segment_rows: int  # no segment has fewer


def compare(
    settings: Settings,
    names: Names,
    first: str | None = None,
    second: str | None = None,
    *,
    rows: int = 20_000,
    since: int | None = None,
    until: int | None = None,
    segment_rows: int = 100,
) -> Report:
    """Numbers or aliases. One alone is compared with the champion; none: the champion with the one before it.

    The newest rows, or some of those with since ≤ event time < until. Raises BadInput for versions that are not there
    or no row that both can score, RegistryRefused for artifacts that are not what the registry says.
    """
    known = known_versions(settings, names)
    numbers = _sides(known, first, second)
    with closing(Scoring(settings, names, known)) as scoring:
        versions = scoring.version(numbers[0]), scoring.version(numbers[1])
    both = Both(*versions)
    if since is None and until is None:
        table = newest_rows(settings, names.topics.served, both, rows)
    else:
        table = rows_between(settings, names, both, rows, since=since or 0, until=until)
    if not len(table):
        raise BadInput(_nothing(names, both))
    pipeline, labels = names.pipeline, labels_of(settings, names, table)
    metric, decide_at = pipeline.metric, pipeline.label.decide_at if isinstance(pipeline.label, Binary) else None
    scored = Scored(
        task=pipeline.label.task,
        first=scores_in(table, FIRST),
        second=scores_in(table, SECOND),
        labels=labels,
        categories={name: table[name].to_pylist() for name in _categories(table.schema)},
    )
    found = difference(scored, metric=metric, decide_at=decide_at, segment_rows=segment_rows)
    times = as_numpy(table["event_time"].cast(pa.int64()))
    one, other = (_side(version, known) for version in versions)
    return Report(
        pipeline=pipeline.name,
        task=scored.task,
        first=one,
        second=other,
        event_times=(iso(int(times.min())), iso(int(times.max()))),
        metric=metric,
        decide_at=decide_at,
        difference=found,
        moved=tuple(_moved(names, table, labels, row) for row in found.moved),
        lacking={f"version {version} needs {column}": count for (version, column), count in both.lacking.items()},
        unanswered=both.unanswered,
        segment_rows=segment_rows,
    )


def _sides(known: Versions, first: str | None, second: str | None) -> tuple[int, int]:
    champion = known.aliases[CHAMPION]
    if first is None:
        if champion == 0:
            raise BadInput("expected two versions, the baseline is the only one. Run: headrace train")
        return known.previous or 0, champion
    numbers = (champion, resolve(known, first)) if second is None else (resolve(known, first), resolve(known, second))
    if numbers[0] == numbers[1]:
        raise BadInput(f"expected two versions, {first!r} and {second or CHAMPION!r} are both version {numbers[0]}.")
    return numbers


def _side(version: Version, known: Versions) -> Side:
    manifest, aliases = version.manifest, _aliases(known, version.number)
    if manifest is None:
        return Side(version=version.number, aliases=aliases)
    return Side(
        version=version.number,
        aliases=aliases,
        judged_against=manifest.parent if manifest.dataset_sha256 else None,
        verdict=manifest.verdict,
        numbers=manifest.numbers,
    )


def _categories(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_string(field.type) and field.name not in SERVED_FIELDS]


def _aliases(known: Versions, number: int) -> tuple[str, ...]:
    return tuple(name for name, meant in known.aliases.items() if meant == number)


def _moved(names: Names, table: pa.Table, labels: Any, row: int) -> Moved:
    (values,) = table.slice(row, 1).to_pylist()
    return Moved(
        id=values["id"],
        source=f"{names.events}/{values['partition']}/{values['offset']}",
        event_time=iso(round(values["event_time"].timestamp() * 1000)),
        first=float(np.max(values[FIRST])),
        second=float(np.max(values[SECOND])),
        label=None if np.isnan(labels[row]) else float(labels[row]),
        served_version=values["version"],
        features={name: value for name, value in values.items() if name not in SERVED_FIELDS | {FIRST, SECOND}},
    )


def _nothing(names: Names, both: Both) -> str:
    if both.lacking:
        short = ", ".join(
            f"version {version} needs {column}, which {rows:,} rows lack"
            for (version, column), rows in both.lacking.items()
        )
        return f"expected rows that both versions can score: {short}: it was not logged then."
    if both.unanswered:
        return f"expected rows that both versions can score, got {both.unanswered:,} without finite answers of both."
    return f"expected served rows on {names.topics.served}, got none. Run: headrace worker, or take other times."
