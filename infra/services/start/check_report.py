"""What `headrace check` found: as text for people, as JSON for programs."""

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from headrace.models.findings import Finding
from headrace.trainer.sanity import Overfit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class ColumnReport:
    """Numbers have a range, categories their most frequent values with shares; tensors neither."""

    name: str
    kind: str
    missing: float  # share of rows
    distinct: int = 0
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rejections:
    """Rows of one topic that would end as dead letters for one reason, and the first of them."""

    topic: str
    reason: str
    count: int
    detail: str
    example: str


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    rows: int  # usable labels in the sample
    joined: int  # events that found their label
    matched: float  # share of events that did
    mean: float | None  # over the joined rows: the label rate of a binary task; None for several classes
    shares: dict[str, float]  # of the joined rows, by class, where there are several
    unknown: int  # labels without an event in the sample
    late: int
    early: int
    repeated: int


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What the network is given: float32[n, numbers], int64[n, categories], and the tensors."""

    numbers: int  # missing flags included
    categories: dict[str, int]  # cardinality of each, unknown included
    tensors: dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    pipeline: str
    events: int
    decoded: int
    first_event: str  # event times, RFC 3339 UTC; "" where no event decoded
    last_event: str
    side_rows: dict[str, int]
    columns: tuple[ColumnReport, ...]
    rejected: tuple[Rejections, ...]
    labels: LabelReport | None
    shapes: Shapes | None
    overfit: Overfit | None
    skipped: str  # why no batch was overfitted; "" where one was
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def to_text(self, width: int = 120) -> str:
        from rich.console import Console  # noqa: PLC0415  only who prints needs it

        out = StringIO()
        Console(file=out, width=width, color_system=None).print(self)
        return out.getvalue()

    def __rich__(self) -> "RenderableType":
        from rich.console import Group  # noqa: PLC0415  as above
        from rich.text import Text  # noqa: PLC0415

        span = f" from {self.first_event} to {self.last_event}" if self.decoded else ""
        parts: list[RenderableType] = [Text(f"{self.pipeline}: {self.decoded} of {self.events} events decode{span}")]
        parts += [Text(f"side topic {topic}: {rows} rows") for topic, rows in self.side_rows.items()]
        if self.columns:
            parts.append(self._column_table())
        if self.rejected:
            parts.append(self._rejection_table())
        parts += [Text(line) for line in self._sentences()]
        marks = {"error": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "cyan")}
        parts += [Text(f"{marks[found.severity][0]} {found.text}", marks[found.severity][1]) for found in self.findings]
        if not self.findings:
            parts.append(Text("✓ nothing to complain about", "green"))
        return Group(*parts)

    def _column_table(self) -> "Table":
        from rich.table import Table  # noqa: PLC0415  as above

        table = Table("column", "kind", "missing", "distinct", "min", "mean", "max", "most frequent")
        table.columns[0].overflow = "fold"  # long names differ at their ends
        for column in self.columns:
            numbers = [_figure(value) for value in (column.minimum, column.mean, column.maximum)]
            top = ", ".join(f"{value} {share:.0%}" for value, share in column.top)
            table.add_row(column.name, column.kind, f"{column.missing:.1%}", str(column.distinct), *numbers, top)
        return table

    def _rejection_table(self) -> "Table":
        from rich.markup import escape  # noqa: PLC0415  as above
        from rich.table import Table  # noqa: PLC0415

        table = Table("topic", "dead letters", "reason", "for example")
        for found in self.rejected:
            table.add_row(found.topic, str(found.count), found.reason, escape(f"{found.detail}\n{found.example}"))
        return table

    def _sentences(self) -> list[str]:
        lines = []
        if self.labels:
            kept = f"{self.labels.joined} of {self.decoded} events have their label ({self.labels.matched:.1%})"
            shares = ", ".join(f"{name} {share:.1%}" for name, share in self.labels.shares.items())
            lines.append(f"labels: {self.labels.rows}; {kept}; {shares or f'mean {_figure(self.labels.mean)}'}")
        if self.shapes:
            sizes = ", ".join(f"{name} {size}" for name, size in self.shapes.categories.items())
            tensors = "".join(
                f"; {name} float32[n, {', '.join(map(str, shape))}]" for name, shape in self.shapes.tensors.items()
            )
            given = f"numbers float32[n, {self.shapes.numbers}], categories int64[n, {len(self.shapes.categories)}]"
            lines.append(f"network input: {given} ({sizes or 'none'}){tensors} → [n]")
        if self.overfit:
            made = self.overfit
            losses = f"loss {_figure(made.first_loss)} → {_figure(made.last_loss)}"
            lines.append(f"one batch of {made.rows} rows, {made.epochs} epochs, {made.parameters} parameters: {losses}")
            lines.append(f"ONNX: {made.onnx_bytes} bytes, agrees with torch to within {made.tolerance:g}")
        if self.skipped:
            lines.append(f"no batch was overfitted: {self.skipped}")
        return lines


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
