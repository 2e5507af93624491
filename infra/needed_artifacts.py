"""registry + artifacts log → what some version needs, and from where on each of it can be found."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing

import msgspec

from headrace.infra.artifacts import Artifacts, chunk_key
from headrace.infra.bulk_reader import runs_until_end
from headrace.infra.names import ARTIFACTS, REGISTRY
from headrace.infra.relocations import Relocations
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.manifest import Blob
from headrace.models.records import Published, RegistryRecord
from headrace.models.registry import fold


class Entry(msgspec.Struct, frozen=True):
    """A record of the log."""

    offset: int
    size: int
    at: int  # Unix ms


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The artifacts topic, as far as it was committed when it was read."""

    begin: int
    end: int
    entries: list[Entry]
    keys: Mapping[int, bytes]  # by offset


class Needed(msgspec.Struct, frozen=True):
    """An artifact that some version needs, and the first place that all who need it can find."""

    blob: Blob
    reachable: int  # offset: from a cut behind it, somebody does not find it without a copy


def read_log(settings: Settings) -> Log:
    """Values are read and dropped: only so their sizes are known."""
    topic = settings.prefixed(ARTIFACTS)
    with closing(TopicReader(settings, [topic])) as reader:
        end = reader.ends()[topic, 0]
    entries, keys = [], {}
    for _, messages in runs_until_end(settings, [topic], {}):
        for message in messages:
            if message.offset() < end:
                entries.append(Entry(message.offset(), len(message.value() or b""), message.timestamp()[1]))
                keys[message.offset()] = message.key() or b""
    return Log(begin=entries[0].offset if entries else end, end=end, entries=entries, keys=keys)


def needed_artifacts(
    settings: Settings, log: Log, pipeline: str | None, ours: Collection[Blob] = ()
) -> tuple[list[Needed], int]:
    """What every `Published` record needs, also one that a follower would refuse: better too much than too little. And
    how many versions are archived: of `pipeline`, or of all.

    `ours`: copies that the caller has just written. Of others those alone are believed whose chunks are in the log: a
    `Relocated` record is not signed. What lies only before the log's beginning is gone already.
    """
    records, moved = _registry(settings)
    known = {name: fold(records, name) for name in {record.pipeline for record in records}}
    archived = {
        (name, number) for name, versions in known.items() for number in versions.archived if pipeline in (None, name)
    }
    places: dict[str, list[Blob]] = defaultdict(list)
    with closing(Artifacts(settings)) as artifacts:
        for record in records:
            if isinstance(record, Published):
                taken = known[record.pipeline].published.get(record.version) == record
                is_archived = (record.pipeline, record.version) in archived
                for blob in _of(record, artifacts, must_be_known=taken and not is_archived, archived=is_archived):
                    places[blob.sha256].append(blob)
    needed = []
    for blobs in places.values():
        copies = [copy for copy in moved.of(blobs[0]) if copy in ours or _is_there(log, copy)]
        copied_to = max((copy.offset for copy in copies), default=-1)
        if max(copied_to, *[blob.offset for blob in blobs]) >= log.begin:
            newest = max([*copies, *blobs], key=lambda blob: blob.offset)
            needed.append(Needed(newest, min(max(blob.offset, copied_to) for blob in blobs)))
    return needed, len(archived)


def _is_there(log: Log, copy: Blob) -> bool:
    """Its chunks may lie among others: the first and as many as it has, in their order."""
    number, at = 0, copy.offset
    if log.keys.get(at) != chunk_key(copy.sha256, 0):
        return False
    while number < copy.chunks and at < log.end:
        number, at = number + (log.keys.get(at) == chunk_key(copy.sha256, number)), at + 1
    return number == copy.chunks


def _of(record: Published, artifacts: Artifacts, *, must_be_known: bool, archived: bool) -> list[Blob]:
    """On the topic: manifest, sources, and the graph of a version that may still serve."""
    try:
        data = artifacts.read(record.manifest)
    except RegistryRefused as error:
        if error.reason == "foreign_url":
            raise  # another process has the store that this one lacks
        return []  # nobody can read it, or ever could: followers have refused this record
    try:
        manifest = manifests.decode(data)
    except RegistryRefused as error:
        if not must_be_known:
            return [record.manifest]
        raise BadInput(
            f"the manifest of {record.pipeline} version {record.version} says nothing to this headrace, so its graph "
            f"could be lost: {error.detail}. Update headrace, or archive that version."
        ) from error
    graphs = [] if archived else [manifest.onnx]
    return [blob for blob in (record.manifest, manifest.sources, *graphs) if blob is not None and not blob.url]


def _registry(settings: Settings) -> tuple[list[RegistryRecord], Relocations]:
    moved, records = Relocations(settings), []
    with closing(TopicReader(settings, [settings.prefixed(REGISTRY)], once=True)) as reader:
        for batch in reader.until_end():
            for message in batch:
                moved.take(message.value() or b"")
                try:
                    records.append(registry.decode(message.value()))
                except RegistryRefused:
                    continue  # followers report it
    return records, moved
