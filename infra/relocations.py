"""`Relocated` records of the registry → where `headrace model gc` has copied what lay at the old start of the log."""

from headrace.infra.names import REGISTRY
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, TopicReader
from headrace.models import registry
from headrace.models.errors import RegistryRefused
from headrace.models.manifest import Blob
from headrace.models.records import Relocated

_TRIES = 8


class Relocations:
    """Asked only for what is no longer where its record says, so it reads when it is asked, and no client is kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.prefixed(REGISTRY)
        self._places: dict[str, list[Blob]] = {}  # by sha256, oldest first
        self._positions: dict[Partition, int] = {}

    def of(self, blob: Blob) -> list[Blob]:
        """Copies of it, the newest first, as far as was read. The records are not signed, so that there may be false
        ones among them: whoever reads tries the next."""
        places = reversed(self._places.get(blob.sha256, []))
        return [place for place in places if not place.url and place.size == blob.size][:_TRIES]

    def find(self, blob: Blob) -> list[Blob]:
        """The same, after reading on to the registry's end. Raises BrokerUnavailable."""
        reader = TopicReader(self._settings, [self._topic], self._positions, once=True)
        try:
            for batch in reader.until_end():
                for message in batch:
                    self.take(message.value() or b"")
            self._positions = dict(reader.positions)
        finally:
            reader.close()
        return self.of(blob)

    def take(self, value: bytes) -> None:
        if b'"relocated"' not in value:  # nearly all: a pipeline's own records are not decoded here
            return
        try:
            record = registry.decode(value)
        except RegistryRefused:
            return  # followers report it
        if isinstance(record, Relocated):
            for blob in record.blobs:
                self._places.setdefault(blob.sha256, []).append(blob)
