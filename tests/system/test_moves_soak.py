"""Promotions and rollbacks under load, with workers killed and replaced between them; how soon all workers serve a new
version; how soon a worker is there that finds a long registry.

In `make test` a few rounds of it. `make soak` sets HEADRACE_SOAK=25 (times as many) and shows the figures.
"""

import os
import random
import signal
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from statistics import median
from time import monotonic

import msgspec
import numpy as np
import psutil
import pytest
from confluent_kafka import Producer
from kit import leading, linear, manifest, places, produce, read_all, sources, transaction, wait_for
from test_exactly_once_kills import FILE, Load, Observer, agree, owned, publish

from headrace.infra.artifacts import write_blob
from headrace.infra.bench.graphs import Chain
from headrace.infra.kafka import producer_config
from headrace.infra.names import ARTIFACTS, REGISTRY, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.processes.supervisor import Supervisor
from headrace.infra.processes.together import environment
from headrace.infra.services.changes.moves import ask
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import manifest as manifests
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.records import Promoted, Published, Switched
from headrace.streams.codec import clock_ms

ROUNDS = int(os.environ.get("HEADRACE_SOAK", "1"))
MOVES, WORKERS, VERSIONS = 20 * ROUNDS, 4, 4
KILL_EVERY = 10  # moves
REST_SECONDS = 20.0  # more often, and its supervisor would take a worker for a crash loop
TIMED = 4 * ROUNDS  # publications whose way to all workers is measured
RECORDS = 10_000
FLAT_MB = 60  # what a worker may grow by, over any number of moves

pytestmark = [pytest.mark.system, pytest.mark.timeout(300 * ROUNDS)]


def say(what, **figures):
    sys.stdout.write(f"{what}: {msgspec.json.encode(figures).decode()}\n")


@pytest.fixture
def origin(settings, tmp_path):
    path = tmp_path / "delay.py"
    path.write_text(FILE)
    file = read_pipelines(str(path))
    apply(settings, file.pipelines["delay"], WORKERS)
    return Origin(file=file, pipeline=file.pipelines["delay"], by="soak")


@contextmanager
def workers_of(settings, origin, count, *options):
    supervisor = Supervisor(settings.home / "logs", environment(settings, count))
    arguments = ["worker", str(origin.file.path), *options, "--slot"]
    children = [supervisor.start(f"worker-{slot}", [*arguments, str(slot)]) for slot in range(1, count + 1)]
    try:
        yield children
        supervisor.check()
    finally:
        supervisor.stop()


def test_moves_under_load_with_kills_and_rebalances_lose_nothing_and_history_names_every_version(settings, origin):
    seed = int(os.environ.get("HEADRACE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    sys.stdout.write(f"HEADRACE_TEST_SEED={seed}\n")
    chance, names = random.Random(seed), Names(settings.prefix, origin.pipeline)
    for version in range(1, VERSIONS + 1):
        publish(settings, names, version)
    observer = Observer(settings, [names.topics.predictions, names.topics.dead_letters])
    load, done, resident, ended = None, Counter(), [], defaultdict(float)
    try:
        with leading(settings, origin), workers_of(settings, origin, WORKERS, "--delivery", "exactly_once") as children:
            wait_for("a partition each", lambda: all(len(owned(child)) == 1 for child in children))
            steady = psutil.Process(children[0].process.pid)
            load = Load(settings, names.events)
            for number in range(MOVES):
                done[move(settings, origin, names, chance)] += 1
                so_far = len(observer)
                wait_for("somebody to predict", lambda so_far=so_far: len(observer) > so_far)
                rested = [child for child in children[1:] if monotonic() - ended[child.name] > REST_SECONDS]
                if number % KILL_EVERY == KILL_EVERY // 2 and rested:
                    victim = chance.choice(rested)
                    victim.process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
                    ended[victim.name] = monotonic()
                    done["workers ended"] += 1
                resident.append(steady.memory_info().rss >> 20)
            load.stop()
            wait_for("every event to come out", lambda: len(observer) >= load.sent)
    finally:
        if load is not None:
            load.stop()
        observer.stop()
    events, answers = read_all(settings, names.events), read_all(settings, names.topics.predictions)
    letters = read_all(settings, names.topics.dead_letters)
    poison = [message for message in events if message.value() == b"poison"]
    assert Counter(sources(letters)) == places(poison)
    assert Counter(sources(answers)) == places(events) - places(poison)
    agree(answers, history(settings, names))
    early, late = median(resident[: MOVES // 4]), median(resident[-MOVES // 4 :])
    assert late - early < FLAT_MB
    say("soak", moves=dict(done), events=len(events), mb_early=early, mb_late=late)


def move(settings, origin, names, chance):
    """One that means something now: what is refused is refused by its reason."""
    known = known_versions(settings, names)
    wanted = chance.choice(
        ["unpin"] if known.pinned and chance.random() < 0.7 else ["promote", "promote", "rollback", "pin"]
    )
    version = {"promote": chance.randint(1, VERSIONS), "pin": chance.randint(1, VERSIONS)}.get(wanted)
    try:
        ask(settings, origin, wanted, version=version, why="soak")
    except BadInput as refused:
        if not any(reason in str(refused) for reason in ("pinned", "champion", "nothing_before")):
            raise
        return f"{wanted} refused"
    return wanted


def history(settings, names):
    return [msgspec.json.decode(message.value(), type=Switched) for message in read_all(settings, names.topics.history)]


def test_a_new_version_is_live_on_every_worker(settings, origin):
    """From the promotion's append to the append of each partition's first history record by it."""
    names = Names(settings.prefix, origin.pipeline)
    with workers_of(settings, origin, WORKERS) as children:
        wait_for("a partition each", lambda: all(len(owned(child)) == 1 for child in children))
        load = Load(settings, names.events)
        try:
            for version in range(1, TIMED + 1):
                publish_large(settings, names, version)
                wait_for(
                    "all to serve it", lambda version=version: live(settings, names).get(2 * version, 0) == WORKERS
                )
        finally:
            load.stop()
    promoted = {
        record["seq"]: message.timestamp()[1]
        for message in read_all(settings, names.of(REGISTRY))
        if (record := msgspec.json.decode(message.value()))["kind"] == "promoted"
    }
    last = defaultdict(int)
    for message in read_all(settings, names.topics.history):
        switch = msgspec.json.decode(message.value(), type=Switched)
        last[switch.seq] = max(last[switch.seq], message.timestamp()[1])
    delays = [last[seq] - at for seq, at in promoted.items()]
    assert len(delays) == TIMED
    p50, p99 = np.percentile(delays, [50, 99], method="higher").tolist()
    say("publish to live on all of 4 workers", ms_p50=p50, ms_p99=p99, worst=max(delays), publications=TIMED)


def live(settings, names):
    """How many partitions each promotion served so far."""
    return Counter(switch.seq for switch in history(settings, names))


def publish_large(settings, names, version):
    """About 1 MB of weights."""
    chain = Chain("numbers", [1], version)
    chain.dense(1, 500)
    chain.relu()
    chain.dense(500, 500)
    chain.relu()
    chain.dense(500, 1)
    common = {"pipeline": names.pipeline.name, "version": version, "at": iso(clock_ms()), "by": "test"}
    with transaction(settings, "publisher") as producer:
        graph = write_blob(producer, names.of(ARTIFACTS), chain.finished())
        made = manifests.encode(manifest(names.pipeline, version, graph))
        pointer = write_blob(producer, names.of(ARTIFACTS), made)
        for record in (
            Published(**common, seq=2 * version - 1, manifest=pointer),
            Promoted(**common, seq=2 * version, why="test"),
        ):
            producer.produce(names.of(REGISTRY), msgspec.json.encode(record))


def test_a_cold_worker_reads_a_registry_of_ten_thousand_records(settings, origin):
    names = Names(settings.prefix, origin.pipeline)
    with transaction(settings, "publisher") as producer:
        graph = write_blob(producer, names.of(ARTIFACTS), linear([0.0]))
        pointer = write_blob(producer, names.of(ARTIFACTS), manifests.encode(manifest(names.pipeline, 1, graph)))
    common = {"pipeline": names.pipeline.name, "at": iso(clock_ms()), "by": "test"}
    records = [Published(**common, seq=1, version=1, manifest=pointer)]
    records += [Promoted(**common, seq=seq, version=1 if seq % 2 else 0) for seq in range(2, RECORDS + 2)]
    writer = Producer(producer_config(settings))
    for record in records:
        writer.produce(names.of(REGISTRY), msgspec.json.encode(record))
    assert writer.flush(60) == 0
    produce(settings, names.events, [{"value": b'{"id":"a","at":"2013-07-04T11:00:00Z","distance":1}'}])
    begun = monotonic()
    with workers_of(settings, origin, 1):
        (answer,) = wait_for("a prediction", lambda: read_all(settings, names.topics.predictions))
        seconds = monotonic() - begun
    assert msgspec.json.decode(answer.value())["version"] == 1  # by the last record
    say("a cold worker's first prediction", seconds=round(seconds, 2), records=len(records))
