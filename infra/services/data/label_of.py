"""an event that was served → its label, looked for among those that were written since."""

import msgspec

from headrace.infra.bulk_reader import runs_until_end, uncollected
from headrace.infra.names import Names
from headrace.infra.served_log import offsets_since
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.streams.codec import LabelDecoder, LabelRow, clock_ms

LOOK_AT = 500_000  # labels: about two seconds
_BEFORE_MS = 3_600_000  # clocks differ, and workers may lag: a label may have been written before its event was served


class LabelOf(msgspec.Struct, frozen=True, kw_only=True):
    """By the rule of trainings: event time ≤ the label's time ≤ event time + within, and the first one wins."""

    value: float | None  # as trainings see it; None where there is none
    name: str  # of the class, of a label of several
    at: str  # its time, RFC 3339 UTC; "" where there is none
    seconds: float | None  # after the event
    place: str  # topic/partition/offset, the topic without the prefix; "" where there is none
    looked_at: int  # labels
    whole: bool  # whether that is all that were written since; else it may be among the others
    closes_at: str  # the end of the horizon
    absent: float | None  # what no label is worth once that has passed; None where such rows are dropped


def label_of(
    settings: Settings, names: Names, event: str, event_ms: int, served_ms: int, *, look_at: int = LOOK_AT
) -> LabelOf:
    """`event` is its id, `served_ms` when its served row was written, Unix ms. Raises BrokerUnavailable."""
    declared = names.pipeline.label
    begin = offsets_since(settings, [names.labels], max(0, served_ms - _BEFORE_MS))
    decoder, known = LabelDecoder(declared, names.pipeline.max_future_ms), event.encode()
    plain = declared.topic.format == "json"
    looked_at, whole = 0, True
    first: LabelRow | None = None
    place = ""
    with uncollected():
        for (_, partition), messages in runs_until_end(settings, [names.labels], begin):
            looked_at += len(messages)
            # JSON text has the id as it is, or with escapes: what has neither need not be decoded
            ours = [one for one in messages if not plain or known in (held := one.value() or b"") or b"\\" in held]
            found, rows, _ = decoder.decode([one.value() for one in ours], clock_ms())
            for at, row in zip(found, rows, strict=True):
                if row.id != event or not event_ms <= row.time <= event_ms + declared.within_ms:
                    continue
                if first is None or row.time < first.time:
                    first, place = row, f"{declared.topic.name}/{partition}/{ours[at].offset()}"
            if looked_at >= look_at:
                whole = False
                break
    classes = declared.classes
    return LabelOf(
        value=None if first is None else first.value,
        name=classes[int(first.value)] if first is not None and classes else "",
        at="" if first is None else iso(first.time),
        seconds=None if first is None else (first.time - event_ms) / 1000,
        place=place,
        looked_at=looked_at,
        whole=whole,
        closes_at=iso(event_ms + declared.within_ms),
        absent=declared.absent,
    )
