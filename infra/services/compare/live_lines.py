"""newest served rows + labels → each serving version's live metric over event time, in some twenty spans."""

from datetime import datetime

import msgspec
import pyarrow as pa

from headrace.infra.names import Names
from headrace.infra.served_log import newest_first
from headrace.infra.services.compare.live_table import LiveRow, live_table
from headrace.infra.settings import Settings
from headrace.models.durations import to_ms
from headrace.trainer.columns import as_numpy

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
_SPANS = (*(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 6 * _HOUR), *(_DAY, 7 * _DAY, 28 * _DAY, 91 * _DAY, 364 * _DAY))
_MOST_SPANS = 26


class LiveLines(msgspec.Struct, frozen=True, kw_only=True):
    metric: str
    every_ms: int  # a span
    rows: tuple[LiveRow, ...]  # oldest first


def live_lines(settings: Settings, names: Names, *, most_rows: int = 100_000) -> LiveLines:
    """Of about so many newest rows. Raises BrokerUnavailable."""
    first, last = _newest(settings, names, most_rows)
    if first is None or last is None:
        return LiveLines(metric=names.pipeline.metric, every_ms=_DAY, rows=())
    every = next((span for span in _SPANS if (last - first) / span <= _MOST_SPANS), _SPANS[-1])
    found = live_table(settings, names, since=first, every_ms=every, rounds=50)
    ordered = sorted(found, key=lambda row: (to_ms(datetime.fromisoformat(row.begin)), row.version))
    return LiveLines(metric=names.pipeline.metric, every_ms=every, rows=tuple(ordered))


def _newest(settings: Settings, names: Names, most_rows: int) -> tuple[int | None, int | None]:
    """The event times between which the newest rows lie."""
    first = last = None
    seen = 0
    for batches in newest_first(settings, names.topics.served):
        for batch in batches:
            times = as_numpy(batch.rows.column("event_time").cast(pa.int64()))
            if len(times):
                low, high = int(times.min()), int(times.max())
                first = low if first is None else min(first, low)
                last = high if last is None else max(last, high)
            seen += batch.rows.num_rows
        if seen >= most_rows:
            break
    return first, last
