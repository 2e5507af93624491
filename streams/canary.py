"""a message's key → whether the challenger serves it: a stable share of all keys."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from headrace.streams.model import LiveModel
from headrace.streams.out import Message, each

_WHOLE = 1 << 32  # the range of crc32


@dataclass(frozen=True, kw_only=True)
class Canary:
    """`share` of the keys. Each pipeline has keys of its own; those of a smaller share are among those of a larger."""

    model: LiveModel
    share: float  # of all message keys, 0 to 1
    pipeline: str
    gave_up: Event = field(default_factory=Event)  # it gave no answer in time once: it is not asked any more

    def split(self, messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
        """For the champion and for the challenger, each in their order. A message without a key is the champion's."""
        seed, limit = zlib.crc32(self.pipeline.encode()), self.share * _WHOLE
        mine: list[Message] = []
        others: list[Message] = []
        for message, key in zip(messages, each("key", messages), strict=True):
            (mine if key is not None and zlib.crc32(key, seed) < limit else others).append(message)
        return others, mine


class Serving(NamedTuple):
    """Who serves a chunk, fixed when it is taken."""

    champion: LiveModel
    canary: Canary | None = None

    def parts(self, messages: Sequence[Message]) -> list[tuple[LiveModel, Sequence[Message]]]:
        """Each with its own of the chunk's messages."""
        if self.canary is None or self.canary.gave_up.is_set():
            return [(self.champion, messages)]
        others, mine = self.canary.split(messages)
        return [part for part in ((self.champion, others), (self.canary.model, mine)) if part[1]]
