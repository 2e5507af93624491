"""rows → a table, one JSON value, and a plot."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any, Final, Literal

import psutil
from rich.markup import escape
from rich.table import Table

from headrace.infra.bench.session import Session

_LIBRARIES: Final = ("headrace", "confluent-kafka", "onnxruntime", "numpy", "msgspec")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One target. `measured` is the median of `runs`; None where nothing could be measured: `detail` says why."""

    name: str
    target: float
    runs: Sequence[float]
    unit: str = "x"
    better: Literal["higher", "lower"] = "higher"
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> float | None:
        return median(self.runs) if self.runs else None

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured >= self.target if self.better == "higher" else self.measured <= self.target

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "measured": None if self.measured is None else rounded(self.measured),
            "target": self.target,
            "met": self.met,
            "runs": [rounded(run) for run in self.runs],
            "unit": self.unit,
            "better": self.better,
            "detail": self.detail,
        }


def rounded(number: float) -> float:
    """Four digits: nothing that is measured here has more."""
    return float(f"{number:.4g}")


def as_json(rows: Sequence[Row], session: Session, seconds: float) -> dict[str, Any]:
    loads, drains = session.loads, session.drains
    made = sum(load.events for load in loads)
    return {
        "rows": [row.as_json() for row in rows],
        "reports": session.reports,
        "machine": {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": rounded(psutil.virtual_memory().total / 1e9),
            "system": platform.platform(),
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in _LIBRARIES},
        },
        "harness": {
            # the load is on its topic before anybody is measured; the watching goes on beside the contender
            "load_cpu_seconds_per_million": rounded(sum(load.cpu_seconds for load in loads) / made * 1e6)
            if made
            else None,
            "load_bytes_per_event": rounded(sum(load.bytes for load in loads) / made) if made else None,
            "watching_cores": rounded(median([run.harness_cores for run in drains])) if drains else None,
            "watching_cores_most": rounded(max([run.harness_cores for run in drains])) if drains else None,
            "seconds": rounded(seconds),
        },
    }


def remark(found: Mapping[str, Any]) -> str:
    """What the harness itself took."""
    harness, said = found["harness"], []
    if harness["load_cpu_seconds_per_million"] is not None:
        spent = harness["load_cpu_seconds_per_million"]
        said.append(f"Making the load took {spent} CPU s per million events, before anybody was measured.")
    if harness["watching_cores"] is not None:
        watching, most = harness["watching_cores"], harness["watching_cores_most"]
        said.append(f"Watching took {watching} of {found['machine']['cores']} cores, at most {most}.")
    return " ".join([*said, f"All in {harness['seconds']:.0f} s."])


def table(rows: Sequence[Row]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (
        ("row", "left"),
        ("measured", "right"),
        ("target", "right"),
        ("", "left"),
        ("runs", "left"),
    ):
        made.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        sign = "≥" if row.better == "higher" else "≤"
        shown = "-" if row.measured is None else f"{row.measured:.3g} {row.unit}"
        runs = ", ".join(f"{run:.3g}" for run in row.runs) or str(row.detail.get("skipped", ""))
        verdict = (
            "[green]met[/green]" if row.met else "[dim]skipped[/dim]" if row.measured is None else "[red]missed[/red]"
        )
        made.add_row(row.name, shown, f"{sign} {row.target:g} {row.unit}", verdict, escape(runs))
    return made
