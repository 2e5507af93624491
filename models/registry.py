"""The registry as a fold over its records: which versions exist, and which one serves."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.models.aliases import ALIAS, CHALLENGER, CHAMPION
from headrace.models.errors import RegistryRefused
from headrace.models.records import Aliased, Archived, Promoted, Published, RegistryRecord, Unpinned


@dataclass
class Versions:
    """One pipeline's. `apply` takes records in order; one that is not the next changes nothing (laws 3 and 5)."""

    seq: int = 0
    published: dict[int, Published] = field(default_factory=dict)
    promotions: list[Promoted] = field(default_factory=list)
    aliased: dict[str, list[Aliased]] = field(default_factory=dict)  # every own alias's moves
    archived: set[int] = field(default_factory=set)
    pinned: bool = False

    @property
    def champion(self) -> Promoted | None:
        """Who serves; None for the baseline, version 0."""
        return self.promotions[-1] if self.promotions else None

    @property
    def newest(self) -> int:
        return max(self.published, default=0)

    @property
    def aliases(self) -> dict[str, int]:
        """What each alias means now, the champion first."""
        followed = list(self.aliased.items())  # at once: another thread may apply a record
        own = {name: moves[-1].version for name, moves in followed}
        champion = {CHAMPION: self.champion.version if self.champion else 0}
        return champion | {name: version for name, version in own.items() if version is not None}

    @property
    def previous(self) -> int | None:
        """The version that a rollback brings back: what served before the champion, and is not archived. None that
        was rolled back itself: two rollbacks go back two versions. None where nothing served before, not even 0."""
        line = [0]
        for promoted in self.promotions:
            if promoted.move == "rollback":
                while line and line.pop() != promoted.version:
                    pass
            if not line or line[-1] != promoted.version:
                line.append(promoted.version)
        usable = (version for version in reversed(line[:-1]) if version not in self.archived and version != line[-1])
        return next(usable, None)

    def moves(self, alias: str) -> Sequence[Promoted | Aliased]:
        """What the alias meant, oldest first."""
        return self.promotions if alias == CHAMPION else self.aliased.get(alias, [])

    def apply(self, record: RegistryRecord) -> None:
        """Raises RegistryRefused for what is not the next record, or means nothing after those before it."""
        if record.seq <= self.seq:
            raise RegistryRefused("old", f"seq {record.seq} after {self.seq}: an older record never wins over a newer")
        if record.seq != self.seq + 1:
            raise RegistryRefused("gap", f"expected seq {self.seq + 1}, got {record.seq}: records are missing")
        self.check(record)
        self.seq = record.seq
        match record:
            case Published():
                self.published[record.version] = record
            case Promoted():
                self.promotions.append(record)
                self.pinned = record.move == "pin"
            case Unpinned():
                self.pinned = False
            case Aliased():
                self.aliased.setdefault(record.alias, []).append(record)
            case Archived():
                self.archived.add(record.version)

    def check(self, record: RegistryRecord) -> None:
        """Whether the record means anything now, whatever its seq. Raises RegistryRefused."""
        match record:
            case Published():
                if record.version <= self.newest:
                    raise RegistryRefused("reused", f"version {record.version} after {self.newest}: never reused")
            case Promoted():
                self._expect_usable(record.version)
                if self.pinned and record.move != "pin":
                    raise RegistryRefused("pinned", f"version {self.aliases[CHAMPION]} is pinned: unpin it first")
            case Unpinned():
                if not self.pinned:
                    raise RegistryRefused("not_pinned", "no version is pinned")
            case Aliased():
                self._check_alias(record)
            case Archived():
                self._check_archived(record.version)

    def _check_archived(self, version: int) -> None:
        if version == 0:
            raise RegistryRefused("baseline", "version 0 is computed from the declaration: nothing to archive")
        self._expect_usable(version)
        if used := [name for name, meant in self.aliases.items() if meant == version]:
            raise RegistryRefused("in_use", f"version {version} is {', '.join(used)}: move that first")

    def _check_alias(self, record: Aliased) -> None:
        if record.alias == CHAMPION or not ALIAS.fullmatch(record.alias):
            named = "a name of a-z, 0-9 and dashes that is not champion (that is what promote moves)"
            raise RegistryRefused("bad_alias", f"expected {named}, got {record.alias!r}")
        if record.share and (record.alias != CHALLENGER or record.version is None or not 0 < record.share < 1):
            expected = "a share of keys between 0 and 1 for a version that is the challenger"
            raise RegistryRefused("bad_share", f"expected {expected}, got {record.share:g} for {record.alias}")
        if record.version is not None:
            self._expect_usable(record.version)
        elif record.alias not in self.aliases:
            raise RegistryRefused("unknown_alias", f"no version is {record.alias!r}")

    def _expect_usable(self, version: int) -> None:
        """The baseline, 0, was never published and is always there."""
        if version not in self.published and version != 0:
            raise RegistryRefused("unknown_version", f"version {version} was never published")
        if version in self.archived:
            raise RegistryRefused("archived", f"version {version} is archived")


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
