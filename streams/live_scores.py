"""joined rows → live metrics of each version, in each segment; and how late labels come."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from headrace.models.calibration import calibration_error
from headrace.models.facts import LabelsSeen, LiveMetric
from headrace.models.labels import Label
from headrace.models.metrics import measure
from headrace.streams.live_join import Joined, LiveJoin

_RECENT_ROWS = 10_000  # joined rows of a version that its metrics look back on
_SEGMENT_ROWS = 100  # a metric of fewer says nothing
_QUANTILES = (0.5, 0.9, 0.99)


class LiveScores:
    """The newest rows of every version that served them, or scored them beside who did."""

    def __init__(self, pipeline: str, label: Label, segments: Sequence[str]) -> None:
        self._pipeline, self._label, self._segments = pipeline, label, segments
        self._rows: dict[int, deque[Joined]] = defaultdict(lambda: deque(maxlen=_RECENT_ROWS))
        self._delays: deque[int] = deque(maxlen=_RECENT_ROWS)  # ms

    def add(self, rows: Sequence[Joined]) -> None:
        for row in rows:
            self._delays.append(row.label_time - row.time)
            self._rows[row.version].append(row)
            for version, _ in row.others:
                if version != row.version:
                    self._rows[version].append(row)

    def keep(self, versions: set[int]) -> None:
        """The others neither serve nor score any more."""
        for version in self._rows.keys() - versions:
            del self._rows[version]

    def facts(self, join: LiveJoin) -> Iterator[LiveMetric | LabelsSeen]:
        for version, rows in self._rows.items():
            yield from self._of(version, list(rows), "")
            for place, column in enumerate(self._segments):
                for value, some in _by_segment(rows, place).items():
                    if len(some) >= _SEGMENT_ROWS:
                        yield from self._of(version, some, f"{column}={value}")
        if self._delays:
            quantiles = np.quantile(np.array(self._delays), _QUANTILES) / 1000
            yield LabelsSeen(
                pipeline=self._pipeline,
                delay_seconds={str(q): float(delay) for q, delay in zip(_QUANTILES, quantiles, strict=True)},
                counts=join.counts,
            )

    def _of(self, version: int, rows: Sequence[Joined], segment: str) -> Iterator[LiveMetric]:
        labels = np.array([row.label for row in rows])
        scores = np.array([row.score_of(version) for row in rows], np.float64)
        found = measure(self._label.task, labels, scores)
        if self._label.task != "regression":
            found["calibration_error"] = calibration_error(labels, scores)
        for metric, value in found.items():
            if np.isfinite(value):
                yield LiveMetric(
                    pipeline=self._pipeline,
                    version=version,
                    metric=metric,
                    value=value,
                    rows=len(rows),
                    segment=segment,
                )


def _by_segment(rows: Sequence[Joined] | deque[Joined], place: int) -> Mapping[str, list[Joined]]:
    found: dict[str, list[Joined]] = defaultdict(list)
    for row in rows:
        found["" if row.segments[place] is None else str(row.segments[place])].append(row)
    return found
