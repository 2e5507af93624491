"""`<pipeline>.history` → which promotion each events partition was served by last, and who served what when."""

from collections.abc import Collection, Mapping
from time import monotonic

import msgspec

from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.errors import BrokerUnavailable
from headrace.models.records import Switched

_SECONDS = 30.0
_decode = msgspec.json.Decoder(Switched).decode


class History:
    """The newest record of each partition. Used by one thread."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic, self._reader = topic, TopicReader(settings, [topic], once=True)
        self._seqs: dict[tuple[str, int], int] = {}

    def last(self, partitions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The seq of the promotion that each of them was served by last, where it was served at all.

        Reads on to the end that the topic has now. Raises BrokerUnavailable.
        """
        deadline = monotonic() + _SECONDS
        ends = self._reader.ends()
        while any(self._reader.positions[place] < end for place, end in ends.items()):
            for message in self._reader.poll(0.1):
                if (switched := decoded(message.value())) is not None:
                    self._seqs[switched.topic, switched.partition] = switched.seq
            if monotonic() > deadline:
                raise BrokerUnavailable(f"{self._topic}: not read to its end within {_SECONDS:.0f} s")
        return {partition: self._seqs[partition] for partition in partitions if partition in self._seqs}

    def close(self) -> None:
        self._reader.close()


def switches(settings: Settings, topic: str) -> list[Switched]:
    """All of them, in their order. Raises BrokerUnavailable."""
    reader = TopicReader(settings, [topic], once=True)
    try:
        found = [decoded(message.value()) for batch in reader.until_end() for message in batch]
    finally:
        reader.close()
    return [switched for switched in found if switched is not None]


def decoded(value: bytes | None) -> Switched | None:
    """None for what is no history record: somebody else's says nothing to us."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
