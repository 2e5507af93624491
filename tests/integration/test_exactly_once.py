"""events → transactions on a real broker: law 2, through rebalances, aborts, expelled members, fencing and swaps."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest
import test_swap
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from kit import Facts, committed, linear, places, produce, read_all, served_places, sources, wait_for
from test_source import PIPELINE, Member, event, owns, per_key
from test_swap import Publisher

from headrace.infra.kafka import consumer_config, producer_config, transactional_config
from headrace.infra.names import Names
from headrace.infra.processes.worker import Worker
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.models.errors import BrokerUnavailable
from headrace.models.facts import Aborted, Acknowledged, Assigned, Predicted, Swapped
from headrace.models.records import Switched
from headrace.streams.chunk import Settled
from headrace.streams.transactions import Transactions

ONCE = replace(PIPELINE, delivery="exactly_once")
QUICK = {"heartbeat.interval.ms": "200"}  # a member hears of a rebalance with its heartbeat
SHORT = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "200"}  # the group expels who stands still for 2 s


class Once(Member):
    """A source of one group in transactions of its slot."""

    def __init__(self, settings, events, out, slot="1", *, kafka=MappingProxyType({}), **options):
        super().__init__(settings, events, out, kafka=kafka, **options)
        both = Transactions(
            lambda report: Producer(transactional_config(settings, f"members-{slot}", on_delivery=report)),
            self.source._positions,
            self.facts,
        )
        self.source._sink = self.source._positions = both


class Behind:
    """A consumer that has not heard of its group's newest generation, for as long as `is_behind`: the group refuses its
    commits, and it goes on owning its partitions."""

    def __init__(self, consumer):
        self._consumer, self.is_behind = consumer, threading.Event()

    def __getattr__(self, name):
        return getattr(self._consumer, name)

    def consumer_group_metadata(self):
        said = self._consumer.consumer_group_metadata()  # 7 bytes of magic, the generation, group and member
        return said[:7] + bytes(4) + said[11:] if self.is_behind.is_set() else said


class BehindWorker(Worker):
    def _consumer(self, role, topics):
        self.behind = Behind(super()._consumer(role, topics))
        return self.behind


@contextmanager
def working(worker):
    """In a thread."""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(asyncio.run, worker.run())
        try:
            yield
        finally:
            wait_for("the worker to be up", lambda: worker._loop is not None or ended.done())
            with suppress(RuntimeError):  # it ended by itself
                worker.stop()
        ended.result(60)


# ── what a subscriber finds ───────────────────────────────────────────────────────────────────────────────────────────


def acknowledged(facts):
    """Events whose transaction was committed."""
    return sum(fact.rows for fact in facts.of(Acknowledged))


def uncommitted(settings, topic):
    """How many records there are, whatever becomes of their transactions."""
    config = consumer_config(settings, "kit", enable_partition_eof=True, isolation_level="read_uncommitted")
    reader, found = Consumer(config), 0
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in (0, 1)])
    ends = 0
    while ends < 2:
        for message in reader.consume(10_000, timeout=0.1):
            found, ends = (found + 1, ends) if message.error() is None else (found, ends + 1)
    reader.close()
    return found


def history(settings, names):
    """In the order in which it was written."""
    return [msgspec.json.decode(m.value(), type=Switched) for m in read_all(settings, names.topics.history)]


def agree(settings, names):
    """Every prediction's version is that of the newest switch of its partition that begins at or before its event."""
    switches = history(settings, names)
    for message in read_all(settings, names.topics.predictions):
        answer = msgspec.json.decode(message.value())
        _, partition, offset = answer["source"]
        before = [s.version for s in switches if s.partition == partition and s.first_offset <= offset]
        assert before[-1] == answer["version"], answer
    return {(switch.partition, switch.version) for switch in switches}


# ── members come and go ───────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_comes_exactly_once_while_workers_join_and_leave_under_load(settings):
    apply(settings, ONCE, 3)
    names, everybody = Names(settings.prefix, ONCE), []
    stop, sent, number = threading.Event(), [0], count()

    def load():
        producer = Producer(producer_config(settings, linger_ms=0))
        while not stop.wait(0.01):  # a few thousand events a second
            for _ in range(30):
                producer.produce(names.events, **event(next(number)))
            assert producer.flush(60) == 0
            sent[0] += 30

    def joined(stack):
        everybody.append(Facts())
        quick = settings.model_copy(update={"kafka": settings.kafka | QUICK})
        stack.enter_context(working(Worker(quick, ONCE, everybody[-1], slot=str(len(everybody)))))
        everybody[-1].wait(Predicted)

    def goes_on():
        """Everybody's partitions move: what was there is committed."""
        goal = sent[0]
        wait_for(f"{goal} events", lambda: sum(map(acknowledged, everybody)) >= goal)

    loading = threading.Thread(target=load)
    with ExitStack() as first:
        loading.start()
        first.callback(loading.join)
        first.callback(stop.set)
        joined(first)
        with ExitStack() as second:
            joined(second)
            with ExitStack() as third:
                joined(third)
                goes_on()
            goes_on()
        goes_on()
        stop.set()
        loading.join()
        goes_on()
    events, answers = read_all(settings, names.events), read_all(settings, names.topics.predictions)
    assert Counter(sources(answers)) == places(events)
    assert sources(answers) == sorted(sources(answers))  # and in order
    assert served_places(settings, names) == places(events)
    assert agree(settings, names) == {(0, 0), (1, 0), (2, 0)}
    assert committed(settings, "delay.infer", names.events, 3) == Counter(m.partition() for m in events)


# ── what the broker refuses ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_that_the_broker_refuses_ends_the_worker_and_nothing_is_committed(settings, topic):
    events, out = topic("events", 1), topic("out", 1, max_message_bytes="2000")
    produce(settings, events, [{"value": b"x" * 100}, {"value": os.urandom(5_000)}])
    with Once(settings, events, out) as member, pytest.raises(BrokerUnavailable, match=r"(?i)message size too large"):
        member.source.ended.result(60)
    assert read_all(settings, out) == []
    assert committed(settings, "members", events, 1) == {0: 0}


def test_a_first_position_that_the_group_did_not_take_goes_with_the_first_transaction(settings, topic):
    events, out = topic("events", 1), topic("out", 1)
    member = Once(settings, events, out)
    positions = member.source._positions
    member.consumer.subscribe([events], on_assign=positions.begin)
    wait_for("the partition", lambda: member.consumer.poll(0) or member.consumer.assignment())
    positions._offsets.waiting[events, 0] = 0  # as `begin` leaves it where the group's coordinator moves just then
    chunk = Settled(ends={(events, 0): 50}, messages=50, oldest_ms=0, rows=None)
    assert positions.commit(member.consumer, [chunk], {(events, 0): 50}) == {}
    for _ in range(2):
        assert committed(settings, "members", events, 1) == {0: 50}
        positions.commit(member.consumer, [], {(events, 0): 50})
    assert not positions.pending
    member.consumer.close()


# ── members that the group expelled ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def child(settings, folder, *arguments):
    """A member in a process of its own, which can be stopped with all its threads; gives the process and its facts."""
    given = {"bootstrap_servers": settings.bootstrap_servers, "prefix": settings.prefix, "kafka": settings.kafka}
    said = folder / "child.log"
    with said.open("wb") as log:
        command = [sys.executable, __file__, msgspec.json.encode(given).decode(), *arguments]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, env=environment, stdout=log)

    def facts():
        return said.read_text().split()

    try:
        yield process, facts
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)


def main(given, events, out, gate=""):
    """The child: says its facts' names; its agent waits for the file `gate`, its transaction stays open."""

    def handle(chunk):
        while gate and not Path(gate).exists():
            threading.Event().wait(0.01)
        return member.echo(chunk)

    settings, stop = Settings(**msgspec.json.decode(given)), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    open_ = {"commit_seconds": 3_600, "commit_idle_seconds": 3_600}
    kafka = {name.replace(".", "_"): value for name, value in SHORT.items()}
    with Once(settings, events, out, "child", handle=handle, kafka=kafka, **open_) as member:
        heard = 0
        while not (stop.wait(0.01) or member.source.ended.done()):
            for fact in member.facts.all[heard:]:
                sys.stdout.write(f"{type(fact).__name__}\n")
                sys.stdout.flush()
                heard += 1


def test_what_a_member_that_stood_still_had_open_is_never_seen(settings, topic, tmp_path):
    events, out = topic("events", 2), topic("out", 2)
    produce(settings, events, [event(n) | {"partition": n % 2} for n in range(100)])
    with child(settings, tmp_path, events, out) as (zombie, facts):
        wait_for("its records", lambda: zombie.poll() is None and uncommitted(settings, out) == 100)
        zombie.send_signal(signal.SIGSTOP)
        assert read_all(settings, out) == []
        with Once(settings, events, out, "2"):
            wait_for("the heir to predict", lambda: sum(committed(settings, "members", events, 2).values()) == 100)
            zombie.send_signal(signal.SIGCONT)
            wait_for("the zombie to take its own back", lambda: "Aborted" in facts())
            produce(settings, events, [event(n) | {"partition": n % 2} for n in range(100, 120)])
            zombie.terminate()  # what it was given since, it commits; the rest is the heir's
            zombie.wait(60)
            wait_for("what came later", lambda: sum(committed(settings, "members", events, 2).values()) == 120)
    answers = read_all(settings, out)
    assert sorted(n for numbers in per_key(answers).values() for n in numbers) == list(range(120))


def test_a_member_that_is_expelled_while_it_hands_over_commits_nothing(settings, topic, tmp_path):
    events, out, gate = topic("events", 2), topic("out", 2), tmp_path / "gate"
    produce(settings, events, [event(n) | {"partition": n % 2} for n in range(100)])
    with child(settings, tmp_path, events, out, str(gate)) as (zombie, facts):
        wait_for("the zombie to own all", lambda: "Assigned" in facts())
        with Once(settings, events, out, "2", kafka={"heartbeat_interval_ms": 200}) as heir:
            heir.facts.wait(Assigned)  # nothing yet: the other one drains, and its agent hangs
            zombie.send_signal(signal.SIGSTOP)
            wait_for("the heir to predict", lambda: sum(committed(settings, "members", events, 2).values()) == 100)
            gate.touch()
            zombie.send_signal(signal.SIGCONT)
            wait_for("the zombie's commit to be refused", lambda: "Aborted" in facts())
    answers = read_all(settings, out)
    assert sorted(n for numbers in per_key(answers).values() for n in numbers) == list(range(100))


def test_of_two_in_one_slot_the_older_ends_and_says_what_to_do(settings, topic):
    events, out = topic("events", 2), topic("out", 2)
    with ExitStack() as stack:
        older = stack.enter_context(Once(settings, events, out, "1"))
        wait_for("the older to own all", lambda: owns(older) == {0, 1})
        produce(settings, events, [event(n) for n in range(100)])
        wait_for("its predictions", lambda: len(read_all(settings, out)) == 100)
        younger = Once(settings, events, out, "1", kafka={"heartbeat_interval_ms": 200})
        produce(settings, events, [event(n) for n in range(100, 200)])
        with pytest.raises(BrokerUnavailable, match="--slot"):
            older.source.ended.result(60)
        stack.close()
        with younger:
            wait_for("the younger to go on", lambda: len(read_all(settings, out)) >= 200)
    assert sorted(n for numbers in per_key(read_all(settings, out)).values() for n in numbers) == list(range(200))


# ── swaps and poison, taken back ──────────────────────────────────────────────────────────────────────────────────────


def test_switches_and_dead_letters_of_a_transaction_that_was_taken_back_are_said_again(settings):
    pipeline = replace(test_swap.PIPELINE, delivery="exactly_once")
    apply(settings, pipeline, 2)
    publisher, names, sent, facts = Publisher(settings, pipeline), Names(settings.prefix, pipeline), count(), Facts()

    def send():
        values = [
            {"value": msgspec.json.encode({"id": f"e{n}", "at": "2013-07-04T11:00:00Z", "distance": n, "wind": 1})}
            for n in [next(sent) for _ in range(20)]
        ]
        records = [value if number % 5 else {"value": b"poison"} for number, value in enumerate(values)]
        produce(settings, names.events, [record | {"partition": n % 2} for n, record in enumerate(records)])

    worker = BehindWorker(settings, pipeline, facts, slot="1")
    with working(worker):
        send()
        wait_for("the first to be committed", lambda: acknowledged(facts) == 20)
        worker.behind.is_behind.set()
        publisher.publish(linear([0.0, 0.0], bias=1.0))
        facts.wait(Swapped, lambda fact: fact.version == 1)
        facts.wait(Aborted)  # with a switch and nothing else: who is behind does not say what serves
        send()
        aborted = len(facts.of(Aborted))
        wait_for("predictions to be taken back, twice", lambda: len(facts.of(Aborted)) >= aborted + 2)
        worker.behind.is_behind.clear()
        wait_for("what was taken back", lambda: acknowledged(facts) == 40)
        send()
        wait_for("the rest", lambda: acknowledged(facts) == 60)
    events = read_all(settings, names.events)
    poison = [m for m in events if m.value() == b"poison"]
    assert Counter(sources(read_all(settings, names.topics.dead_letters))) == places(poison)
    assert Counter(sources(read_all(settings, names.topics.predictions))) == places(events) - places(poison)
    assert served_places(settings, names) == places(events) - places(poison)
    assert agree(settings, names) == {(0, 0), (1, 0), (0, 1), (1, 1)}


if __name__ == "__main__":
    main(*sys.argv[1:])
