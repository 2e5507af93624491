"""`<pipeline>.history` → which promotion each events partition was served by last, and who served what when."""

from collections.abc import Collection, Mapping

import msgspec

from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.records import Switched

_SECONDS = 30.0
_decode = msgspec.json.Decoder(Switched).decode


class History:
    """The newest record of each partition. Used by one thread."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._reader = TopicReader(settings, [topic], once=True)
        self._seqs: dict[tuple[str, int], int] = {}

    def last(self, partitions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The seq of the promotion that each of them was served by last, where it was served at all.

        Reads on to the end that the topic has now. Raises BrokerUnavailable.
        """
        for message in self._reader.up_to_now(_SECONDS):
            if (switched := decoded(message.value())) is not None:
                self._seqs[switched.topic, switched.partition] = switched.seq
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
