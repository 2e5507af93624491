"""registry, runs, history, followed → every pipeline's book as it is now, and a word whenever one changes."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import msgspec
from confluent_kafka import KafkaException

from headrace.infra.artifacts import Artifacts
from headrace.infra.history import decoded
from headrace.infra.kafka import admin
from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.services.dead_letters.letters import place_of
from headrace.infra.services.versions.book import Book
from headrace.infra.services.versions.catalog import Manifests
from headrace.infra.services.versions.timeline import Served, folded
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import Partition, TopicReader
from headrace.infra.topics import topic_id
from headrace.models.errors import BrokerUnavailable
from headrace.models.records import Switched

_POLL_SECONDS = 0.5
_AGAIN_SECONDS = 5.0  # after the broker was away
_CALL_SECONDS = 10.0
_SAME_SECONDS = 5.0  # between two looks whether the registry is still the topic that was read
_TOPICS_SECONDS = 30.0  # between two looks for topics that were not there
_log = logging.getLogger("headrace.console")
VERSIONS, RUNS_CHANGED, HISTORY = "versions", "runs", "history"
Changed = Callable[[str, str], None]
"""Called by the follower's thread with a pipeline's name, and with what changed: `versions`, `runs` or `history`."""


class _Of(msgspec.Struct, frozen=True):
    """Whose record it is, before anybody decodes it."""

    pipeline: str = ""


_of = msgspec.json.Decoder(_Of).decode


class Followed:
    """One pipeline's book and history. What it gives out belongs to the caller; `book` asks for the lock."""

    def __init__(self, settings: Settings, names: Names, artifacts: Artifacts, reading: threading.Lock) -> None:
        self._names, self._lock, self._reading = names, threading.Lock(), reading
        self.failure = ""  # what keeps its history from being read, whatever becomes of the others
        self._book = Book(settings, names)
        self._switches: list[Switched] = []
        self._served: tuple[int, list[Served]] = (0, [])  # of so many switches
        self._kept = Manifests(self._book.known, artifacts)

    @property
    def name(self) -> str:
        return self._names.pipeline.name

    @contextmanager
    def book(self) -> Iterator[Book]:
        """Nothing is taken meanwhile: be quick."""
        with self._lock:
            yield self._book

    @contextmanager
    def manifests(self) -> Iterator[Manifests]:
        """For one thread at a time: reading one asks the broker."""
        with self._reading:
            yield self._kept

    def served(self) -> list[Served]:
        """Who served which offsets, by partition and offset. Not to be changed."""
        with self._lock:
            if self._served[0] == len(self._switches):
                return self._served[1]
            switches = list(self._switches)
        self._served = len(switches), folded(switches)
        return self._served[1]

    def take(self, message: Any) -> str:
        """What changed by it, or ""."""
        with self._lock:
            if message.topic() == self._names.topics.history:
                switched = decoded(message.value())
                if switched is not None:
                    self._switches.append(switched)
                return HISTORY if switched is not None else ""
            if not self._book.take(message):
                return ""
        return RUNS_CHANGED if message.topic() == self._names.of(RUNS) else VERSIONS


class LiveCatalog:
    """All pipelines of one process, by one thread and one reader. `ready` once it was at the end of every topic.

    A registry that was deleted and made anew is another one, whose versions have the old ones' numbers: then nothing
    more is followed, and `outdated` says what to do.
    """

    def __init__(self, settings: Settings, pipelines: Sequence[Names], changed: Changed) -> None:
        self._settings, self._names, self._changed = settings, list(pipelines), changed
        self.ready = threading.Event()
        self.failure = ""  # what keeps it from reading now
        self.outdated = ""  # why this process cannot go on with what it knows, in a sentence
        self._registry = ""  # the topic's id
        self._look_again = float("-inf")  # monotonic seconds
        self._artifacts, reading = Artifacts(settings), threading.Lock()
        self._followed = {one.pipeline.name: Followed(settings, one, self._artifacts, reading) for one in self._names}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="console-catalog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def of(self, pipeline: str) -> Followed:
        return self._followed[pipeline]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        self._artifacts.close()

    def _follow(self) -> None:
        reader: TopicReader | None = None
        at: dict[Partition, int] = {}
        look_again = float("inf")
        try:
            while not self._stopping.is_set():
                if reader is not None and monotonic() > look_again:
                    reader.close()
                    reader = None
                try:
                    if not self._is_same_registry():
                        break
                    if reader is None:  # one that failed is made anew where it was, and takes nothing twice
                        reader = TopicReader(self._settings, self._topics(), at)
                        lacks = any(one.failure for one in self._followed.values())
                        look_again = monotonic() + _TOPICS_SECONDS if lacks else float("inf")
                    messages = reader.poll(_POLL_SECONDS)
                    self._take(messages)
                    at |= {(one.topic(), one.partition()): one.offset() + 1 for one in messages}
                    if reader.caught_up and not self.ready.is_set():
                        self.ready.set()
                    self.failure = ""
                except (BrokerUnavailable, KafkaException) as error:
                    self.failure = str(error)
                    _log.warning("the console does not follow the registry: %s", error)
                    if reader is not None:
                        reader.close()
                        reader = None
                    self._stopping.wait(_AGAIN_SECONDS)
        finally:
            if reader is not None:
                reader.close()

    def _is_same_registry(self) -> bool:
        """Looks now and then. Raises BrokerUnavailable."""
        if monotonic() < self._look_again:
            return True
        topic = self._names[0].of(REGISTRY)
        found = topic_id(self._settings, topic)
        self._look_again = monotonic() + _SAME_SECONDS
        if self._registry and found != self._registry:
            self.outdated = self.failure = (
                f"Topic {topic} was deleted and made anew: what this process knows of versions is of the old one."
                " Restart it."
            )
            _log.error("%s", self.outdated)
        self._registry = found
        return not self.outdated

    def _topics(self) -> list[str]:
        """Those that are there: a pipeline that was not applied keeps no other one from its pages. Raises
        KafkaException."""
        first, there = self._names[0], admin(self._settings).list_topics(timeout=_CALL_SECONDS).topics
        for one in self._names:
            lacks = one.topics.history not in there
            said = f"topic {one.topics.history!r} is not there: run `headrace apply` for {one.pipeline.name}"
            self._followed[one.pipeline.name].failure = said if lacks else ""
        histories = [one.topics.history for one in self._names if one.topics.history in there]
        return [first.of(REGISTRY), first.of(RUNS), *histories]

    def _take(self, messages: Sequence[Any]) -> None:
        changes: set[tuple[str, str]] = set()
        for message in messages:
            try:
                followed = self._followed.get(_of(message.value() or b"").pipeline)
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue  # a record of somebody else's says nothing to us
            if followed is None:
                continue
            try:
                what = followed.take(message)
            except Exception:  # noqa: BLE001  one record that nobody thought of must not end all pages' news
                _log.exception("the console passes over %s", place_of(message))
                continue
            if what:
                changes.add((followed.name, what))
        for name, what in sorted(changes):
            self._changed(name, what)
