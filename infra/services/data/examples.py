"""the newest predictions → a few that can be explained."""

from contextlib import suppress

import msgspec

from headrace.infra.names import Names
from headrace.infra.services.data.sample import newest
from headrace.infra.settings import Settings


class Example(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    source: str  # topic/partition/offset of the event, the topic without the prefix
    event_time: str
    version: int
    prediction: float


class _Predicted(msgspec.Struct):
    """What is shown of a prediction."""

    id: str
    prediction: float
    version: int
    event_time: str
    source: tuple[str, int, int]
    tick: str = ""


_decode = msgspec.json.Decoder(_Predicted).decode


def examples(settings: Settings, names: Names, count: int) -> list[Example]:
    """A like share of each partition, by event time, newest first. Raises BrokerUnavailable."""
    found = []
    for value in newest(settings, names.topics.predictions, count):
        with suppress(msgspec.DecodeError, ValueError, RecursionError):  # not written by headrace
            one = _decode(value)
            topic, partition, offset = one.source
            if topic != names.events or one.tick:
                continue
            place = f"{names.pipeline.events.name}/{partition}/{offset}"
            found.append(
                Example(
                    id=one.id, source=place, event_time=one.event_time, version=one.version, prediction=one.prediction
                )
            )
    return sorted(found, key=lambda one: one.event_time, reverse=True)
