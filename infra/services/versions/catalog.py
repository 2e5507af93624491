"""registry, runs → what there is to know of versions and runs, as records that the command line and others show."""

from collections import OrderedDict
from contextlib import closing

import msgspec

from headrace.infra.artifacts import Artifacts
from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.services.versions.book import Book, RunFacts, VersionFacts, state_of
from headrace.infra.services.versions.resolve import resolve
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models import manifest as manifests
from headrace.models.aliases import CHAMPION
from headrace.models.errors import BadInput
from headrace.models.manifest import Manifest
from headrace.models.records import Promoted
from headrace.models.registry import Versions

_NEWEST = 10  # versions in an error


class VersionDetail(msgspec.Struct, kw_only=True):
    version: int
    aliases: tuple[str, ...]
    state: str  # pinned, archived, or ""
    promotions: tuple[Promoted, ...]
    lineage: tuple[int, ...]  # parent, its parent, … down to the baseline, 0
    manifest: Manifest


def runs(settings: Settings, names: Names) -> list[RunFacts]:
    """Oldest first. Raises BrokerUnavailable."""
    return _read(settings, names, RUNS).runs()


def run(settings: Settings, names: Names, wanted: str | None = None) -> RunFacts:
    """The run that is named, in full or by its beginning, else the newest one that was due. Raises BadInput."""
    return _read(settings, names, RUNS).run(wanted)


def versions(settings: Settings, names: Names) -> list[VersionFacts]:
    """Newest first, the baseline last. Metrics are those of its run."""
    return _read(settings, names, REGISTRY, RUNS).versions()


def version(settings: Settings, names: Names, wanted: int | str | None = None) -> VersionDetail:
    """The version of this number or alias, or the champion, with its manifest.

    Raises BadInput, or RegistryRefused for bytes that differ.
    """
    known = known_versions(settings, names)
    with closing(Artifacts(settings)) as artifacts:
        return detail(known, names, Manifests(known, artifacts), wanted)


class Manifests:
    """Of the published versions, the most recently asked for kept. For one thread at a time."""

    def __init__(self, known: Versions, artifacts: Artifacts, most: int = 1_000) -> None:
        self._known, self._artifacts, self._most = known, artifacts, most
        self._kept: OrderedDict[int, Manifest] = OrderedDict()

    def __call__(self, number: int) -> Manifest:
        """Raises RegistryRefused for bytes that differ, BrokerUnavailable."""
        if number not in self._kept:
            self._kept[number] = manifests.decode(self._artifacts.read(self._known.published[number].manifest))
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def detail(
    known: Versions, names: Names, manifest: Manifests, wanted: int | str | None = None, *, ancestors: int | None = None
) -> VersionDetail:
    """As `version`, of a registry that was read already; `ancestors` at most: each is a manifest to be read."""
    number = resolve(known, CHAMPION if wanted is None else str(wanted))
    if number == 0:
        there = ", ".join(map(str, sorted(known.published)[-_NEWEST:])) or "none is published yet"
        about = "the baseline is computed from the declaration and has no manifest"
        raise BadInput(f"version 0 of {names.pipeline.name}: {about}. Published: {there}.")
    made = manifest(number)
    return VersionDetail(
        version=number,
        aliases=tuple(name for name, meant in known.aliases.items() if meant == number),
        state=state_of(known, number),
        promotions=tuple(promotion for promotion in known.promotions if promotion.version == number),
        lineage=_lineage(known, made.parent, manifest, len(known.published) if ancestors is None else ancestors),
        manifest=made,
    )


def known_versions(settings: Settings, names: Names) -> Versions:
    """The registry as it is now. Raises BrokerUnavailable."""
    return _read(settings, names, REGISTRY).known


def _read(settings: Settings, names: Names, *topics: str) -> Book:
    book, reader = Book(settings, names), TopicReader(settings, [names.of(topic) for topic in topics], once=True)
    try:
        for batch in reader.until_end():
            for message in batch:
                book.take(message)
    finally:
        reader.close()
    return book


def _lineage(known: Versions, parent: int, manifest: Manifests, most: int) -> tuple[int, ...]:
    """A parent is an older version, so this ends."""
    line = [parent]
    while line[-1] in known.published and len(line) < most:
        above = manifest(line[-1]).parent
        if above >= line[-1]:
            break
        line.append(above)
    return tuple(line)
