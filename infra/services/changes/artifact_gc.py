"""registry → the artifacts that are still needed → those before a cut are copied to the end → the log begins there.

The topic is shared by all pipelines, and nobody's leader is asked. It is safe at any moment, with crashes, and with
leaders that publish meanwhile, because each step leaves every needed artifact readable (docs/decisions/0016):

(1) the end of the log is looked up before the registry, and the cut lies before it, and before all that is younger than
    `keep_ms`: what is being published, or imported and not yet in the registry, lies behind the cut;
(2) copies and the `Relocated` record that says where they are go into one transaction, of a producer that fences an
    older gc: a reader that misses an artifact finds the newest copy;
(3) only when every needed artifact has a place behind the cut, the log's start is moved there.
"""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from time import time_ns
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer, TopicPartition

from headrace.infra.artifacts import Artifacts, write_blob, write_seconds
from headrace.infra.kafka import admin, producer_config
from headrace.infra.names import ARTIFACTS, REGISTRY
from headrace.infra.needed_artifacts import Entry, Needed, needed_artifacts, read_log
from headrace.infra.settings import Settings
from headrace.models.durations import iso
from headrace.models.errors import BrokerUnavailable, RegistryRefused
from headrace.models.manifest import Blob
from headrace.models.records import Relocated

KEEP_MS = 3_600_000  # an import waits for its leader for a minute; clocks differ by less than the rest
_TOGETHER = 16  # artifacts in one record, which stays below 4 KB
_TOGETHER_BYTES = 64 * 1024 * 1024  # and in one transaction, which readers of the topic wait for
_CALL_SECONDS = 30.0
_PRICE = 2  # a byte that is copied has to free another one beside its old self

Said = Callable[[str], None]
"""planned, copied (not committed), recorded, deleting, deleted: in this order, the second and third once per batch."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes are those of the records' values; the broker frees whole segments, and the newest never."""

    begin: int  # the log's first offset
    cut: int  # and its first one afterwards; the same where there is nothing to gain
    bytes_before: int
    bytes_after: int
    copied_bytes: int
    copied: int  # artifacts
    needed: int  # artifacts, in all
    archived: int  # versions whose graphs are not needed


def collect(
    settings: Settings,
    *,
    pipeline: str | None = None,
    keep_ms: int = KEEP_MS,
    dry_run: bool = False,
    said: Said = lambda _: None,
) -> Plan:
    """`pipeline`: only its archived versions lose their graphs. Raises BrokerUnavailable (run it again), BadInput."""
    log = read_log(settings)
    needed, archived = needed_artifacts(settings, log, pipeline)
    oldest_young = time_ns() // 1_000_000 - keep_ms
    latest = min((entry.offset for entry in log.entries if entry.at > oldest_young), default=log.end)
    cut = best_cut(log.begin, latest, log.entries, needed)
    moving = [one for one in needed if one.reachable < cut]
    total, copied = sum(entry.size for entry in log.entries), sum(one.blob.size for one in moving)
    freed = sum(entry.size for entry in log.entries if entry.offset < cut)
    plan = Plan(
        begin=log.begin,
        cut=cut,
        bytes_before=total,
        bytes_after=total - freed + copied,
        copied_bytes=copied,
        copied=len(moving),
        needed=len(needed),
        archived=archived,
    )
    said("planned")
    if not dry_run and cut > log.begin:
        copies, tried = set[Blob](), set[str]()
        while moving:  # once; again for what was published meanwhile and refers to something old
            copies |= _copy(settings, [one.blob for one in moving], said)
            tried |= {one.blob.sha256 for one in moving}  # what nobody can read has no copy, and keeps nothing here
            needed, _ = needed_artifacts(settings, log, pipeline, copies)
            moving = [one for one in needed if one.reachable < cut and one.blob.sha256 not in tried]
        said("deleting")
        _begin_at(settings, cut)
        said("deleted")
    return plan


def best_cut(begin: int, latest: int, entries: Sequence[Entry], needed: Sequence[Needed]) -> int:
    """The offset up to `latest` that frees most beyond the price of its copies; `begin` where none does."""
    places = sorted(needed, key=lambda one: one.reachable)
    best, best_gain, freed, paid, passed = begin, 0, 0, 0, 0
    behind = [*[entry.offset for entry in entries[1:]], latest]
    for entry, cut in zip(entries, behind, strict=False):  # without an entry there is nothing behind it
        if cut > latest or entry.offset >= latest:
            break
        freed += entry.size
        while passed < len(places) and places[passed].reachable < cut:
            paid, passed = paid + places[passed].blob.size, passed + 1
        if freed - _PRICE * paid > best_gain:
            best, best_gain = cut, freed - _PRICE * paid
    return best


def _copy(settings: Settings, blobs: Sequence[Blob], said: Said) -> set[Blob]:
    """Copies and their record become visible together, batch by batch: a crash leaves whole ones, which the next gc
    finds. An older gc that is still alive is fenced here, so that it cannot name a place that is gone by then.

    Returns the copies; of what nobody can read there is none.
    """
    producer, topic = _producer(settings, max(blob.size for blob in blobs)), settings.prefixed(ARTIFACTS)
    made: set[Blob] = set()
    try:
        producer.init_transactions(_CALL_SECONDS)
        with closing(Artifacts(settings)) as artifacts:
            for batch in _batches(blobs):
                producer.begin_transaction()
                copies = []
                for blob in batch:
                    with suppress(RegistryRefused):
                        copies.append(write_blob(producer, topic, artifacts.read(blob)))
                now = iso(time_ns() // 1_000_000)
                record = Relocated(pipeline="", seq=0, at=now, by="headrace model gc", blobs=tuple(copies))
                producer.produce(settings.prefixed(REGISTRY), msgspec.json.encode(record), b"")
                producer.flush(_CALL_SECONDS)
                said("copied")
                producer.commit_transaction(_CALL_SECONDS)
                made.update(copies)
                said("recorded")
    except KafkaException as error:  # a newer gc, among others
        raise BrokerUnavailable(f"gc ends here, and nothing is lost: {error.args[0].str()}. Run it again.") from error
    return made


def _producer(settings: Settings, largest: int) -> Any:
    milliseconds = round(1000 * (write_seconds(max(largest, _TOGETHER_BYTES)) + _CALL_SECONDS))
    return Producer(
        producer_config(
            settings,
            transactional_id=settings.prefixed("headrace.gc"),
            transaction_timeout_ms=milliseconds,
            delivery_report_only_error=False,
            linger_ms=0,
            retry_backoff_ms=5,
            retry_backoff_max_ms=50,
        )
    )


def _batches(blobs: Sequence[Blob]) -> list[list[Blob]]:
    batches: list[list[Blob]] = [[]]
    for blob in blobs:
        size = sum(one.size for one in batches[-1])
        if batches[-1] and (len(batches[-1]) == _TOGETHER or size + blob.size > _TOGETHER_BYTES):
            batches.append([])
        batches[-1].append(blob)
    return batches


def _begin_at(settings: Settings, cut: int) -> None:
    place = TopicPartition(settings.prefixed(ARTIFACTS), 0, cut)
    client: Any = admin(settings)
    try:
        client.delete_records([place], request_timeout=_CALL_SECONDS)[place].result(_CALL_SECONDS)
    except KafkaException as error:
        raise BrokerUnavailable(f"the log's start was not moved: {error.args[0].str()}. Run it again.") from error
