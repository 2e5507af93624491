"""Real workers in slots of their own under load, killed and frozen at random, while versions swap: law 2."""

import os
import random
import re
import signal
import sys
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from itertools import count, pairwise

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kit import linear, manifest, places, read_all, served_places, sources, transaction, wait_for

from headrace.infra.artifacts import write_blob
from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.names import ARTIFACTS, REGISTRY, Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.processes.supervisor import Supervisor
from headrace.infra.processes.together import environment
from headrace.infra.topic_reader import TopicReader
from headrace.infra.topics import apply
from headrace.models import manifest as manifests
from headrace.models.records import Promoted, Published, Switched

WORKERS, KILLS = 3, 6
KILLS_OF_ONE = 3  # more within a minute and its supervisor takes it for a crash loop
EVENTS = 30_000  # at least
FROZEN_SECONDS = 9.0  # longer than a session, shorter than a transaction may be open
FILE = """
from headrace import Binary, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)
"""


class Load:
    """About 2,500 events a second, one in a hundred poison, until `stop`."""

    def __init__(self, settings, topic):
        self.sent, self._topic, self._stop = 0, topic, threading.Event()
        self._producer = Producer(producer_config(settings, linger_ms=0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join()

    def _run(self):
        for number in count():
            if number % 25 == 0:
                assert self._producer.flush(60) == 0
                self.sent = number
                if self._stop.wait(0.01):
                    return
            value = msgspec.json.encode({"id": f"e{number}", "at": "2013-07-04T11:00:00Z", "distance": number})
            self._producer.produce(self._topic, b"poison" if number % 100 == 7 else value, f"k{number % 97}".encode())


class Observer:
    """A subscriber who reads committed records while all this goes on."""

    def __init__(self, settings, topics):
        self.seen = defaultdict(list)  # topic → where each record was
        self._reader, self._stop = TopicReader(settings, topics), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __len__(self):
        return sum(map(len, self.seen.values()))

    def stop(self):
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _run(self):
        while not self._stop.is_set():
            for message in self._reader.poll(0.1):
                self.seen[message.topic()].append((message.partition(), message.offset()))


def publish(settings, names, version):
    common = {"pipeline": names.pipeline.name, "version": version, "at": "", "by": "test"}
    with transaction(settings, "publisher") as producer:
        graph = write_blob(producer, names.of(ARTIFACTS), linear([0.0], bias=version))
        made = manifests.encode(manifest(names.pipeline, version, graph))
        pointer = write_blob(producer, names.of(ARTIFACTS), made)
        published = Published(**common, seq=2 * version - 1, manifest=pointer)
        for record in (published, Promoted(**common, seq=2 * version, why="test")):
            producer.produce(names.of(REGISTRY), msgspec.json.encode(record))


def test_workers_that_are_killed_and_frozen_at_random_lose_double_and_reorder_nothing(settings, tmp_path):
    seed = int(os.environ.get("HEADRACE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    sys.stdout.write(f"HEADRACE_TEST_SEED={seed}\n")
    chance, pause = random.Random(seed), threading.Event()
    (tmp_path / "delay.py").write_text(FILE)
    names = Names(settings.prefix, read_pipeline(str(tmp_path / "delay.py")))
    apply(settings, names.pipeline, WORKERS)
    topics = names.topics

    observer = Observer(settings, [topics.predictions, topics.dead_letters])
    workers = Supervisor(settings.home / "logs", environment(settings, WORKERS))
    options = ["worker", str(tmp_path / "delay.py"), "--delivery", "exactly_once", "--slot"]
    children = [workers.start(f"worker-{slot}", [*options, str(slot)]) for slot in range(1, WORKERS + 1)]
    load = Load(settings, names.events)
    try:
        wait_for("a partition each", lambda: all(len(owned(child)) == 1 for child in children))
        frozen, *others = chance.sample(children, WORKERS)
        freeze_in_a_transaction(settings, names, frozen)
        said_before = len(frozen.log.read_bytes())
        thawed = threading.Timer(FROZEN_SECONDS, os.kill, [frozen.process.pid, signal.SIGCONT])
        thawed.start()
        killed = Counter()
        for kill in range(1, KILLS + 1):
            so_far = len(observer)
            wait_for("somebody to predict", lambda so_far=so_far: len(observer) > so_far)
            pause.wait(chance.uniform(0.5, 2.0))
            alive = children if thawed.finished.is_set() else others
            victim = chance.choice([child for child in alive if killed[child.name] < KILLS_OF_ONE])
            os.kill(victim.process.pid, signal.SIGKILL)
            killed[victim.name] += 1
            publish(settings, names, kill)
        thawed.join()
        wait_for("enough events", lambda: load.sent >= EVENTS)
        load.stop()
        wait_for("every event to come out", lambda: len(observer) >= load.sent)
        workers.check()
    finally:
        load.stop()
        workers.stop()
        observer.stop()

    events = read_all(settings, names.events)
    answers, letters = read_all(settings, topics.predictions), read_all(settings, topics.dead_letters)
    poison = [m for m in events if m.value() == b"poison"]
    assert Counter(sources(letters)) == places(poison)
    assert Counter(sources(answers)) == places(events) - places(poison)
    assert served_places(settings, names) == places(events) - places(poison)
    for found in (answers, letters):  # what a subscriber saw meanwhile is what is there now
        assert sorted(observer.seen[found[0].topic()]) == [(m.partition(), m.offset()) for m in found]
    in_order(answers)
    agree(answers, [msgspec.json.decode(m.value(), type=Switched) for m in read_all(settings, topics.history)])
    zombie = frozen.log.read_bytes()[said_before:].decode()
    assert "Aborted" in zombie or "exactly once" in zombie  # the broker or the worker itself took it back


def owned(child):
    """The partitions of a worker that is on its first life, by its log."""
    found = set()
    for fact, numbers in re.findall(r' (Assigned|Revoked) .*"partitions":\[([\d,]*)\]', child.log.read_text()):
        partitions = {int(number) for number in numbers.split(",") if number}
        found = found | partitions if fact == "Assigned" else found - partitions
    return found


def freeze_in_a_transaction(settings, names, child):
    """Stops the process while records of its partition are written, and their positions are not yet sent."""
    (partition,) = owned(child)
    place, pause = TopicPartition(names.topics.predictions, partition), threading.Event()
    levels = ("read_committed", "read_uncommitted")
    askers = [Consumer(consumer_config(settings, "delay.infer", isolation_level=level)) for level in levels]
    while True:
        os.kill(child.process.pid, signal.SIGSTOP)
        pause.wait(0.3)  # a commit that was under way is through by then
        committed, written = (asker.get_watermark_offsets(place, timeout=60)[1] for asker in askers)
        with suppress(KafkaException):  # a position that is sent and not committed is not told: then it times out
            askers[0].committed([TopicPartition(names.events, partition)], timeout=1)
            if committed < written:
                return
        os.kill(child.process.pid, signal.SIGCONT)
        pause.wait(0.3)


def in_order(answers):
    """Of each key, in the order of its events."""
    by_key = defaultdict(list)
    for message, (_, partition, offset) in zip(answers, sources(answers), strict=True):
        by_key[message.key()].append((partition, offset))
    assert len(by_key) == 97
    assert all(first < second for placed in by_key.values() for first, second in pairwise(placed))


def versions(answers):
    for message in answers:
        answer = msgspec.json.decode(message.value())
        yield answer["source"], answer["version"]


def agree(answers, switches):
    """The newest switch of a partition that begins at or before an event names the version that answered it."""
    of_partition = defaultdict(list)
    for switch in switches:
        of_partition[switch.partition].append(switch)
    for (_, partition, offset), version in versions(answers):
        before = [switch.version for switch in of_partition[partition] if switch.first_offset <= offset]
        assert before[-1] == version, (partition, offset)
