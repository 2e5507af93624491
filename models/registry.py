"""The registry as a fold over its records: which versions exist, and which one serves."""

from dataclasses import dataclass, field

import msgspec

from headrace.models.errors import RegistryRefused
from headrace.models.records import Promoted, Published, RegistryRecord


@dataclass
class Versions:
    """One pipeline's. `apply` takes records in order; one that is not the next changes nothing (laws 3 and 5)."""

    seq: int = 0
    published: dict[int, Published] = field(default_factory=dict)
    promotions: list[Promoted] = field(default_factory=list)

    @property
    def champion(self) -> Promoted | None:
        """Who serves; None for the baseline, version 0."""
        return self.promotions[-1] if self.promotions else None

    @property
    def newest(self) -> int:
        return max(self.published, default=0)

    def apply(self, record: RegistryRecord) -> None:
        if record.seq <= self.seq:
            raise RegistryRefused("old", f"seq {record.seq} after {self.seq}: an older record never wins over a newer")
        if record.seq != self.seq + 1:
            raise RegistryRefused("gap", f"expected seq {self.seq + 1}, got {record.seq}: records are missing")
        if isinstance(record, Published):
            if record.version <= self.newest:
                raise RegistryRefused("reused", f"version {record.version} after {self.newest}: never reused")
            self.published[record.version] = record
        else:
            if record.version not in self.published:
                raise RegistryRefused("unknown_version", f"version {record.version} was never published")
            self.promotions.append(record)
        self.seq = record.seq


_decoder = msgspec.json.Decoder(RegistryRecord)


def decode(value: bytes | None) -> RegistryRecord:
    """Raises RegistryRefused for bytes that are no registry record."""
    try:
        record: RegistryRecord = _decoder.decode(value or b"")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RegistryRefused("not_ours", f"expected a registry record, {error}") from error
    return record


def fold(records: list[RegistryRecord], pipeline: str) -> Versions:
    """What these records come to for a pipeline; refused ones are passed over (a follower reports them)."""
    versions = Versions()
    for record in records:
        if record.pipeline == pipeline:
            try:
                versions.apply(record)
            except RegistryRefused:
                continue
    return versions
