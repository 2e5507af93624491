"""the registry's records → what the leader knows of its pipeline's versions, up to what it wrote itself."""

from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from headrace.models import registry
from headrace.models.errors import RegistryRefused
from headrace.models.facts import Observer, Refused
from headrace.models.manifest import Blob, Manifest
from headrace.models.records import RegistryRecord
from headrace.models.signing import Verify

_MARKED_SECONDS = 30.0  # from a commit until readers see it: milliseconds, on a broker that is well


class LeadershipLost(Exception):
    """Another member of the group leads now; what was begun here is dropped."""


class Registry(Protocol):
    """The registry, from its beginning."""

    def catch_up(self) -> Sequence[bytes | None]:
        """Values that are new since the last call, up to the end that the topic has now."""

    def manifest(self, blob: Blob) -> Manifest: ...


class Ledger:
    """One pipeline's versions as of the last `follow`. Used by one thread."""

    def __init__(self, pipeline: str, log: Registry, observer: Observer, verify: Verify) -> None:
        self.versions = registry.Versions()
        self._pipeline, self._log, self._observer, self._verify = pipeline, log, observer, verify
        self._followed = False
        self._written = 0  # the newest seq that was committed here

    @property
    def begun(self) -> bool:
        """Whether a version was ever published, as far as is known here."""
        return bool(self.versions.newest or self._written)

    @property
    def up_to_date(self) -> bool:
        """Whether it was followed to the end, and to what was written here since."""
        return self._followed and self.versions.seq >= self._written

    def wrote(self, seq: int) -> None:
        """It is committed; readers see it only when the broker has marked it."""
        self._written = seq

    def follow(self) -> list[RegistryRecord]:
        """What is new, to the registry's end and to what was written here."""
        deadline = monotonic() + _MARKED_SECONDS
        records = self._applied()
        while self.versions.seq < self._written:
            if monotonic() > deadline:
                raise LeadershipLost(f"{self._pipeline}: seq {self._written} was committed and cannot be read")
            records += self._applied()
        self._followed = True
        return records

    def manifest(self, blob: Blob) -> Manifest:
        """Raises RegistryRefused, BrokerUnavailable."""
        return self._log.manifest(blob)

    def _applied(self) -> list[RegistryRecord]:
        records = []
        for value in self._log.catch_up():
            try:
                record = registry.decode(value)
                if record.pipeline == self._pipeline:
                    self._verify(record)
                    self.versions.apply(record)
                    records.append(record)
            except RegistryRefused as error:
                self._observer(Refused(pipeline=self._pipeline, reason=error.reason, detail=error.detail))
        return records
