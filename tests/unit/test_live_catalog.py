"""Registry, runs and histories, followed: what one record, or one failure, may not do to the others."""

from types import SimpleNamespace

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.infra.names import RUNS, Names
from headrace.infra.services.watch import live_catalog
from headrace.infra.services.watch.live_catalog import LiveCatalog
from headrace.infra.settings import Settings
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.records import Finished, Requested

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)
NAMES = Names("", PIPELINE)


def message(offset, value):
    return SimpleNamespace(
        topic=lambda: NAMES.of(RUNS),
        partition=lambda: 0,
        offset=lambda: offset,
        value=lambda: value,
        timestamp=lambda: (1, 0),
    )


def request(offset):
    return message(offset, msgspec.json.encode(Requested(run=f"r{offset}", pipeline="delay", at=0, by="anna")))


def finished(offset, version):
    said = {"at": "", "outcome": "promoted" if version else "rejected", "reason": ""}
    return message(offset, msgspec.json.encode(Finished(run=f"r{offset}", pipeline="delay", version=version, **said)))


class Reader:
    """Polls give what was prepared, an error among it is raised; then nothing more, and the catalog stops."""

    def __init__(self, made, polls, begin, done):
        self.caught_up, self._polls, self._done = True, polls, done
        made.append(dict(begin))

    def poll(self, _timeout):
        if not self._polls:
            self._done()
            return []
        found = self._polls.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self):
        pass


class Broker:
    def __init__(self, there):
        self._there = there

    def list_topics(self, timeout):  # noqa: ARG002
        return SimpleNamespace(topics=dict.fromkeys(self._there))


@pytest.fixture
def followed(monkeypatch, tmp_path):
    """What was polled → the catalog after it, and where its readers began."""

    def follow(*polls, there=(NAMES.topics.history,), registries=("a",)):
        made, prepared, changes, ids = [], list(polls), [], list(registries)
        catalog = LiveCatalog(Settings(home=tmp_path), [NAMES], lambda *change: changes.append(change))
        stop = catalog._stopping.set
        monkeypatch.setattr(live_catalog, "_AGAIN_SECONDS", 0.0)
        monkeypatch.setattr(live_catalog, "TopicReader", lambda _s, _t, begin: Reader(made, prepared, begin, stop))
        monkeypatch.setattr(live_catalog, "_SAME_SECONDS", 0.0)
        monkeypatch.setattr(live_catalog, "topic_id", lambda _s, _t: ids.pop(0) if ids[1:] else ids[0])
        monkeypatch.setattr(live_catalog, "admin", lambda _: Broker(there))
        catalog.start()
        catalog._thread.join(10)
        catalog.stop()
        return catalog, made, changes

    return follow


def runs(catalog):
    with catalog.of("delay").book() as book:
        return [one.run for one in book.runs()]


def test_a_record_that_nobody_thought_of_is_passed_over_and_the_next_one_is_taken(followed, monkeypatch):
    take = live_catalog.Book.take

    def taken(self, one):
        if one.offset() == 1:
            raise ZeroDivisionError
        return take(self, one)

    monkeypatch.setattr(live_catalog.Book, "take", taken)
    catalog, _, changes = followed([request(0), request(1)], [request(2)])
    assert runs(catalog) == ["r0", "r2"]
    assert changes == [("delay", "runs")] * 2


def test_a_reader_that_failed_is_made_anew_behind_what_was_taken(followed):
    failed = KafkaException(KafkaError(KafkaError._AUTO_OFFSET_RESET))
    catalog, made, _ = followed([request(0), request(1)], failed, [request(2)])
    assert made == [{}, {(NAMES.of(RUNS), 0): 2}]
    assert runs(catalog) == ["r0", "r1", "r2"]
    assert catalog.failure == ""


def test_a_pipeline_whose_topics_are_not_there_says_so_and_keeps_nobody_from_the_registry(followed):
    catalog, _, _ = followed([request(0)], there=())
    assert runs(catalog) == ["r0"]
    assert catalog.ready.is_set()
    assert "headrace apply" in catalog.of("delay").failure
    assert catalog.failure == ""


def test_nothing_more_is_taken_from_a_registry_that_was_made_anew(followed):
    catalog, _, _ = followed([request(0)], [request(1)], [request(2)], registries=("a", "a", "b"))
    assert runs(catalog) == ["r0", "r1"]
    assert catalog.outdated == catalog.failure
    assert "was deleted and made anew" in catalog.failure


def test_the_list_of_versions_is_made_anew_only_when_a_run_made_one():
    book = live_catalog.Book(Settings(), NAMES)
    listed = book.versions()
    assert book.take(request(0))
    assert book.take(finished(1, 0))
    assert book.versions() is listed
    assert book.take(finished(2, 7))
    assert book.versions() is not listed
