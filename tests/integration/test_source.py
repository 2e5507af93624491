"""events → predictions on a real broker: law 1, through rebalances, slow agents and crashes."""

import asyncio
import itertools
import os
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import MappingProxyType

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kit import Ends, Facts, committed, produce, read_all, sources, transaction, wait_for

from headrace.infra.kafka import admin_config, consumer_config, producer_config
from headrace.infra.names import Names
from headrace.infra.processes.worker import Worker
from headrace.infra.topics import apply
from headrace.models.errors import BrokerUnavailable, Stalled
from headrace.models.facts import Assigned, Predicted, Revoked
from headrace.models.features import Category, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.streams.chunk import Outcome
from headrace.streams.group_offsets import GroupOffsets
from headrace.streams.out import Out
from headrace.streams.sink import AcknowledgedSink
from headrace.streams.source import Limits, Source
from headrace.streams.watchdog import Watchdog

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Category("carrier", nullable=True)],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)


def event(number, key=None, **more):
    value = {"id": f"e{number}", "at": "2013-07-04T11:00:00Z", "distance": number} | more
    return {"value": msgspec.json.encode(value), "key": key or f"k{number % 7}".encode()}


@contextmanager
def worker_of(settings, pipeline, facts, **options):
    """The whole worker, in a thread of this process."""
    worker, failed = Worker(settings, pipeline, facts, **options), []

    def run():
        try:
            asyncio.run(worker.run())
        except BaseException as error:  # noqa: BLE001  it is raised in the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        wait_for("the worker to be up", lambda: worker._loop is not None or failed)
        with suppress(RuntimeError):  # it ended by itself
            worker.stop()
        thread.join(60)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


class Member:
    """A source of one group whose agent is `handle`: echoes by default."""

    def __init__(self, settings, events, out, *, handle=None, start="earliest", kafka=MappingProxyType({}), **limits):
        self.facts, self.pool = Facts(), ThreadPoolExecutor(1)
        self.taken = 0  # chunks
        self.out, self.handle = out, handle or self.echo
        topic = Topic(events, time="at", start=start)
        config = {"enable_partition_eof": True, "heartbeat_interval_ms": 200, "max_poll_interval_ms": 300_000}
        self.consumer = Consumer(consumer_config(settings, "members", **config | kafka))
        self.source = Source(
            "members",
            consumer=self.consumer,
            sink=AcknowledgedSink(lambda report: Producer(producer_config(settings, on_delivery=report))),
            topics=[topic],
            positions=GroupOffsets([topic]),
            parts=lambda messages: [(None, messages, ())],
            hand_over=self.hand_over,
            observer=self.facts,
            limits=Limits(**limits),
        )

    def echo(self, chunk):
        return Outcome(records=[Out(self.out, m.key(), m.value(), [], m.partition()) for m in chunk.messages])

    def hand_over(self, chunk):
        self.taken += 1
        self.pool.submit(self.resolve, chunk)

    def resolve(self, chunk):
        try:
            chunk.outcome.set_result(self.handle(chunk))
        except BaseException as error:  # noqa: BLE001  as the real agent does
            chunk.outcome.set_exception(error)

    def __enter__(self):
        self.source.start()
        return self

    def __exit__(self, *_):
        self.source.stop()
        self.pool.shutdown()
        if self.source.ended.exception(60) is not None:
            with suppress(Exception):  # the revocation finds the same chunk
                self.consumer.close()


def owns(member):
    return {partition for _, partition in member.source.owned}


# ── what a subscriber may rely on ─────────────────────────────────────────────────────────────────────────────────────


def test_every_event_becomes_a_prediction_with_its_partition_key_and_headers(settings):
    apply(settings, PIPELINE, 3)
    names, facts = Names(settings.prefix, PIPELINE), Facts()
    headers = [("traceparent", b"00-af-01"), ("raw", b"\xff"), ("none", None), ("raw", b"twice")]
    produce(settings, names.events, [event(n) | {"headers": headers} for n in range(2_500)])
    with worker_of(settings, PIPELINE, facts):
        wait_for("all predictions", lambda: sum(fact.rows for fact in facts.of(Predicted)) == 2_500)
    given, answers = read_all(settings, names.events), read_all(settings, names.topics.predictions)
    assert [(m.topic(), m.partition(), m.offset()) for m in given] == sources(
        answers
    )  # none lost, none twice, in order
    for asked, answer in zip(given, answers, strict=True):
        assert (answer.partition(), answer.key()) == (asked.partition(), asked.key())
        assert answer.headers() == [*headers, ("headrace-version", b"0")]
    first, id_ = answers[0], msgspec.json.decode(given[0].value())["id"]
    assert msgspec.json.decode(first.value()) == {
        "id": id_,
        "prediction": 0.25,
        "decision": False,
        "pipeline": "delay",
        "version": 0,
        "event_time": "2013-07-04T11:00:00Z",
        "source": [names.events, first.partition(), given[0].offset()],
    }
    ends = {number: sum(m.partition() == number for m in given) for number in range(3)}
    assert committed(settings, "delay.infer", names.events, 3) == ends
    assert read_all(settings, names.topics.dead_letters) == []


def test_a_worker_without_its_topics_says_what_to_run(settings):
    with pytest.raises(BrokerUnavailable, match="headrace apply"), worker_of(settings, PIPELINE, Facts()):
        pass


# ── committed after acknowledged ──────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_that_raises_ends_the_source_and_its_events_come_again(settings, topic):
    events, out = topic("events", 1), topic("out", 1)
    produce(settings, events, [event(n) for n in range(10)])

    def broken(_chunk):
        raise ZeroDivisionError

    with Member(settings, events, out, handle=broken) as member, pytest.raises(ZeroDivisionError):
        member.source.ended.result(60)
    assert committed(settings, "members", events, 1) == {0: 0}  # where it began, and not further
    assert read_all(settings, out) == []
    with Member(settings, events, out):
        wait_for("the events again", lambda: Ends(settings, out)() == 10)
    assert committed(settings, "members", events, 1) == {0: 10}


def test_records_that_the_broker_refuses_are_not_committed(settings, topic):
    events, out = topic("events", 1), topic("out", 1, max_message_bytes="2000")
    produce(settings, events, [{"value": b"x" * 100}, {"value": os.urandom(5_000)}])
    with Member(settings, events, out) as member, pytest.raises(BrokerUnavailable, match="not delivered"):
        member.source.ended.result(60)
    assert committed(settings, "members", events, 1) == {0: 0}


@pytest.mark.parametrize(("start", "position"), [("earliest", 0), ("latest", 3)])
def test_a_first_start_is_committed_at_once(settings, topic, start, position):
    events, out = topic("events", 1), topic("out", 1)
    produce(settings, events, [event(n) for n in range(3)])
    stuck = threading.Event()
    with ExitStack() as stack:
        handle = lambda _chunk: stuck.wait(60) and Outcome(records=[])  # noqa: E731
        member = stack.enter_context(Member(settings, events, out, start=start, handle=handle))
        stack.callback(stuck.set)
        member.facts.wait(Assigned)
        assert committed(settings, "members", events, 1) == {0: position}


def test_a_position_that_retention_ate_is_an_error_that_names_it(settings, topic):
    events, out = topic("events", 1), topic("out", 1)
    produce(settings, events, [event(n) for n in range(10)])
    group = Consumer(consumer_config(settings, "members"))
    group.commit(offsets=[TopicPartition(events, 0, 2)], asynchronous=False)
    group.close()
    client = AdminClient(admin_config(settings))
    for answer in client.delete_records([TopicPartition(events, 0, 6)]).values():
        answer.result(60)
    with Member(settings, events, out) as member, pytest.raises(BrokerUnavailable, match=rf"{events}/0: .*is gone"):
        member.source.ended.result(60)
    assert committed(settings, "members", events, 1) == {0: 2}
    assert read_all(settings, out) == []


# ── members come and go ───────────────────────────────────────────────────────────────────────────────────────────────


def per_key(messages):
    found = defaultdict(list)
    for message in messages:
        found[message.key()].append(msgspec.json.decode(message.value())["distance"])
    return found


def test_members_join_and_leave_under_load_and_nothing_is_lost_reordered_or_stalled(settings, topic):
    events, out = topic("events", 3), topic("out", 3)
    stop, sent, count = threading.Event(), [], Ends(settings, out)

    def load():
        producer = Producer(producer_config(settings, linger_ms=0))
        while not stop.wait(0.01):  # a few thousand events a second
            batch = [event(n) for n in range(len(sent), len(sent) + 30)]
            for record in batch:
                producer.produce(events, **record)
            assert producer.flush(60) == 0
            sent.extend(batch)

    def goes_on():
        """Everybody's partitions move: what was there is out."""
        goal = len(sent)
        wait_for(f"{goal} events to be out", lambda: count() >= goal)

    loading = threading.Thread(target=load)
    with ExitStack() as stack:
        first = stack.enter_context(Member(settings, events, out))
        loading.start()
        stack.callback(loading.join)
        stack.callback(stop.set)
        wait_for("the first to own all", lambda: owns(first) == {0, 1, 2})
        with Member(settings, events, out) as second:
            wait_for("the second to own some", lambda: owns(second))
            with Member(settings, events, out) as third:
                wait_for("one each", lambda: [len(owns(m)) for m in (first, second, third)] == [1, 1, 1])
                goes_on()
                # a fourth gets nothing: an assignment that is empty is one, too
                with Member(settings, events, out) as fourth:
                    wait_for("the fourth to be a member", lambda: fourth.facts.of(Assigned))
                    goes_on()
            goes_on()
        wait_for("the first to own all again", lambda: owns(first) == {0, 1, 2})
        goes_on()
        stop.set()
        loading.join()
        goes_on()
    answers = [list(dict.fromkeys(numbers)) for numbers in per_key(read_all(settings, out)).values()]  # at least once
    assert sum(map(len, answers)) == len(sent)
    assert all(numbers == sorted(numbers) for numbers in answers)


def test_a_member_whose_agent_is_slow_is_paused_keeps_its_place_and_goes_on(settings, topic):
    """Its agent takes longer than a poll interval, so the group would have expelled it."""
    events, out = topic("events", 2), topic("out", 2)
    produce(settings, events, [event(n) | {"partition": n % 2} for n in range(20)])
    taken, limits = [], {"kafka": {"max_poll_interval_ms": 6_500}, "max_poll_seconds": 6.5}

    def slow_at_first(chunk):
        if not taken:
            threading.Event().wait(8)  # the agent's work: longer than the 6.5 s below
            taken.append(member.taken)
        return member.echo(chunk)

    with Member(settings, events, out, handle=slow_at_first, chunk_rows=5, **limits) as member:
        wait_for("everything out", lambda: Ends(settings, out)() == 20)
        produce(settings, events, [event(n) | {"partition": n % 2} for n in range(20, 40)])
        wait_for("what came later, too", lambda: Ends(settings, out)() == 40)
        assert member.facts.of(Revoked) == []
    assert taken == [2]  # no third chunk meanwhile
    assert sorted(itertools.chain(*per_key(read_all(settings, out)).values())) == list(range(40))


def test_a_partition_that_stays_is_read_again_when_a_drain_runs_out_of_time(settings, topic, monkeypatch):
    monkeypatch.setattr("headrace.streams.source._DRAIN_SECONDS", 0.1)
    events, out = topic("events", 2), topic("out", 2)
    may_go, begun = threading.Event(), threading.Event()

    def slow(chunk):
        begun.set()
        may_go.wait(60)
        return Outcome(records=[Out(out, m.key(), m.value(), [], m.partition()) for m in chunk.messages])

    with Member(settings, events, out, handle=slow, max_poll_seconds=0.3) as first:
        wait_for("the first to own all", lambda: owns(first) == {0, 1})
        produce(settings, events, [event(n) | {"partition": n % 2} for n in range(10)])
        assert begun.wait(60)
        with Member(settings, events, out) as second:
            wait_for("one to be handed over", lambda: owns(second))
            may_go.set()
            ids = wait_for("all events", lambda: len(found := _ids(settings, out)) == 10 and found)
            produce(settings, events, [event(n) | {"partition": n % 2} for n in range(10, 20)])
            ids = wait_for("all later events", lambda: len(found := _ids(settings, out)) == 20 and found)
    assert ids == {f"e{n}" for n in range(20)}


def _ids(settings, out):
    return {msgspec.json.decode(message.value())["id"] for message in read_all(settings, out)}


def test_no_more_than_two_chunks_are_ever_with_the_agent(settings, topic):
    events, out = topic("events", 1), topic("out", 1)
    produce(settings, events, [event(n) for n in range(3_000)])
    most, open_chunks = [0], [0]

    def counted(chunk):
        most[0] = max(most[0], member.taken - open_chunks[0])
        open_chunks[0] += 1
        return member.echo(chunk)

    with Member(settings, events, out, handle=counted, chunk_rows=10) as member:
        wait_for("everything out", lambda: Ends(settings, out)() == 3_000)
    assert 1 <= most[0] <= 2


# ── alive means progress ──────────────────────────────────────────────────────────────────────────────────────────────


def lag_of(settings, member):
    asker = Consumer(consumer_config(settings, "asker"))
    found = {
        place: asker.get_watermark_offsets(TopicPartition(*place), timeout=60)[1] - at
        for place, at in member.source.owned.items()
    }
    asker.close()
    return found


def test_an_idle_worker_behind_a_transaction_s_marker_is_not_taken_for_a_stalled_one(settings, topic):
    events, out, gave_up = topic("events", 1), topic("out", 1), []
    with transaction(settings) as producer:
        for number in range(5):
            producer.produce(events, **event(number))
    with Member(settings, events, out) as member:
        wait_for("the events", lambda: Ends(settings, out)() == 5)
        wait_for("no lag", lambda: lag_of(settings, member) == {(events, 0): 0})
        watchdog = Watchdog(
            lambda: lag_of(settings, member), lambda: member.source.moved_at, gave_up.append, member.facts
        )
        watchdog.look(member.source.moved_at + 10_000)
    assert gave_up == []


def test_a_last_chunk_that_its_agent_never_gives_back_is_a_stall(settings, topic):
    events, out, gave_up = topic("events", 1), topic("out", 1), []
    may_go, begun = threading.Event(), threading.Event()

    def stuck(chunk):
        begun.set()
        may_go.wait(60)
        return Outcome(records=[])

    produce(settings, events, [event(1)])
    with Member(settings, events, out, handle=stuck) as member:
        assert begun.wait(60)
        watchdog = Watchdog(
            lambda: lag_of(settings, member), lambda: member.source.moved_at, gave_up.append, member.facts
        )
        watchdog.look(member.source.moved_at + 10_000)
        may_go.set()
    assert [type(error) for error in gave_up] == [Stalled]
    assert "1 records wait" in str(gave_up[0])
