"""a letter and its topic's configuration → why the topic would not take its record back."""

from collections.abc import Iterable

import pyarrow as pa

from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letters import Letter
from headrace.infra.settings import Settings
from headrace.infra.topics import config_of
from headrace.models.records import REDRIVEN_HEADER

# Bytes, of the record format v2: a batch's head; a record's own fields and its lengths, each as long as it can be.
_BATCH, _RECORD, _HEADER = 61, 32, 10
_COMPRESSION = 1.02  # the client's LZ4 and ours may differ by so much
NO_KEY = "its topic is compacted, and it has no key"
TOO_LARGE = "too large for its topic, with one header more: raise the topic's max.message.bytes by 1,000, and try again"


class Limits:
    """Of these topics, as they are now. Raises BrokerUnavailable."""

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        configs = {topic: config_of(settings, topic) for topic in topics}
        self._bytes = {topic: int(config["max.message.bytes"]) for topic, config in configs.items()}
        self._compacted = {topic for topic, config in configs.items() if "compact" in config["cleanup.policy"]}

    @property
    def smallest(self) -> int:
        """Bytes of a batch that all of the topics take."""
        return min(self._bytes.values())

    def refusal(self, topic: str, letter: Letter) -> str:
        """ "" where it is taken."""
        if topic in self._compacted and letter.key is None:
            return NO_KEY
        limit = self._bytes[topic]
        return TOO_LARGE if _size(letter, limit) > limit else ""


def topics_read(names: Names) -> set[str]:
    """Full names of those from which letters may come and go back to."""
    pipeline = names.pipeline
    return {names.of(one.name) for one in (pipeline.events, pipeline.label.topic, *pipeline.side_topics)}


def redriven_headers(letter: Letter) -> list[tuple[str, bytes | None]]:
    return [*letter.headers, (REDRIVEN_HEADER, letter.place.encode())]


def _size(letter: Letter, limit: int) -> int:
    """At most; compressed where that is asked for, which only a large one is."""
    parts = [letter.key or b"", letter.value or b""]
    for name, value in redriven_headers(letter):
        parts += [name.encode(), value or b"", bytes(_HEADER)]
    record = b"".join([*parts, bytes(_RECORD)])
    if _BATCH + len(record) <= limit:
        return _BATCH + len(record)
    return _BATCH + min(len(record), int(len(pa.compress(record, codec="lz4", asbytes=True)) * _COMPRESSION))
