"""Promote, roll back, pin, alias, archive through the one writer; aliases on topics of their own; activations; who
takes a partition over goes on from its history (laws 4, 5)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from kit import Facts, leading, linear, manifest, produce, read_all, wait_for
from test_leader import HOUR, NOON, Scheduler
from test_leader import ask as request
from test_source import worker_of
from test_swap import GOOD, PIPELINE, Publisher, predicted, predictions, send, serving

from headrace.infra.artifacts import write_blob
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.services.changes.moves import activation, ask
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.services.versions.timeline import at_moment, served
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.facts import Proven, Refused, Swapped
from headrace.models.records import Activation, Asked, Promoted, Published, Replied, RunRecord, Switched
from headrace.streams.codec import clock_ms
from headrace.streams.swap import Follower


@pytest.fixture
def publisher(settings):
    apply(settings, PIPELINE, 2)
    return Publisher(settings)


FILE = """
from headrace import Binary, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)
"""


@pytest.fixture
def origin(tmp_path):
    path = tmp_path / "delay.py"
    path.write_text(FILE)
    file = read_pipelines(str(path))
    return Origin(file=file, pipeline=file.pipelines["delay"], by="alice")


def records(settings):
    return [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]


def history(publisher):
    found = read_all(publisher.settings, publisher.names.topics.history)
    return [msgspec.json.decode(message.value(), type=Switched) for message in found]


def test_promote_rollback_pin_unpin_alias_archive_are_one_record_each_with_who_and_why(publisher, origin):
    for _ in range(3):
        publisher.publish()
    with leading(publisher.settings, origin):
        ask(publisher.settings, origin, "rollback", why="false alarms")
        ask(publisher.settings, origin, "promote", version=3, why="mended")
        ask(publisher.settings, origin, "alias", version=1, alias="challenger", why="look at it")
        ask(publisher.settings, origin, "archive", version=2, why="broken feed")
        ask(publisher.settings, origin, "pin", version=1, why="audit")
        with pytest.raises(BadInput, match="pinned"):
            ask(publisher.settings, origin, "promote", version=3)
        ask(publisher.settings, origin, "unpin", why="audit over")
    new = records(publisher.settings)[6:]
    assert [type(record).__name__ for record in new] == [
        "Promoted",
        "Promoted",
        "Aliased",
        "Archived",
        "Promoted",
        "Unpinned",
    ]
    assert [record.seq for record in new] == list(range(7, 13))
    assert {record.by for record in new} == {"alice"}
    assert [record.why for record in new] == [
        "false alarms",
        "mended",
        "look at it",
        "broken feed",
        "audit",
        "audit over",
    ]
    known = known_versions(publisher.settings, publisher.names)
    assert (known.aliases, known.archived) == ({"champion": 1, "challenger": 1}, {2})


def test_with_no_scheduler_the_asker_leads_for_its_one_request(publisher, origin):
    publisher.publish()
    publisher.publish()
    reply = ask(publisher.settings, origin, "rollback", why="alone")
    assert (reply.version, reply.seq) == (1, 5)
    assert known_versions(publisher.settings, publisher.names).aliases == {"champion": 1}


def test_many_askers_at_once_get_a_total_order_and_every_one_its_own_record(publisher, origin):
    publisher.publish()
    with leading(publisher.settings, origin), ThreadPoolExecutor(12) as pool:
        replies = list(
            pool.map(lambda number: ask(publisher.settings, origin, "alias", version=1, alias=f"a{number}"), range(12))
        )
    assert sorted(reply.seq for reply in replies) == list(range(3, 15))
    assert [record.seq for record in records(publisher.settings)] == list(range(1, 15))


def test_an_asker_without_a_version_to_go_back_to_is_told_so(publisher, origin):
    with leading(publisher.settings, origin), pytest.raises(BadInput, match="nothing_before"):
        ask(publisher.settings, origin, "rollback")
    assert records(publisher.settings) == []


def test_a_rollback_is_served_and_history_tells_every_version_of_every_event(publisher):
    with serving(publisher) as facts:
        for version in (1, 2):
            publisher.publish()
            facts.wait(Swapped, lambda fact, version=version: fact.version == version)
            send(publisher, version * 100, version * 100 + 100)
            wait_for("predictions", lambda version=version: predicted(facts) == version * 100)
        publisher.promote(1)
        facts.wait(Swapped, lambda fact: fact.seq == 5)
        send(publisher, 300, 400)
        wait_for("predictions", lambda: predicted(facts) == 300)
        publisher.promote(0)  # and to the baseline
        facts.wait(Swapped, lambda fact: fact.seq == 6)
        send(publisher, 400, 500)
        wait_for("predictions", lambda: predicted(facts) == 400)
    lines = served(publisher.settings, publisher.names)
    answers = predictions(publisher)
    assert {answer["version"] for answer in answers if int(answer["id"][1:]) >= 300} == {1, 0}
    assert {answer["prediction"] for answer in answers if answer["version"] == 0} == {0.25}
    check_history(lines, answers)
    assert at_moment(publisher.settings, publisher.names, "2100-01-01T00:00:00Z").champion == 0


def check_history(lines, answers):
    """Law 3: every prediction's version is the one that history names for its offset."""
    for answer in answers:
        _, partition, offset = answer["source"]
        (line,) = [
            one
            for one in lines
            if one.partition == partition and one.first <= offset and (one.end is None or offset < one.end)
        ]
        assert line.version == answer["version"], (answer, lines)


def test_an_alias_is_served_on_topics_of_its_own_beside_the_champion(publisher, origin):
    publisher.publish(linear([0.0, 0.0], bias=1.0))
    publisher.publish(linear([0.0, 0.0], bias=-1.0))
    apply(publisher.settings, PIPELINE, alias="challenger")
    send(publisher, 0, 100)
    other = Names(publisher.settings.prefix, PIPELINE, "challenger")
    facts, own = Facts(), Facts()
    with (
        leading(publisher.settings, origin),
        worker_of(publisher.settings, PIPELINE, facts),
        worker_of(publisher.settings, PIPELINE, own, alias="challenger"),
    ):
        ask(publisher.settings, origin, "alias", version=1, alias="challenger")
        own.wait(Swapped, lambda fact: fact.version == 1)
        send(publisher, 100, 200)
        wait_for("both", lambda: predicted(facts) == predicted(own) == 200)
    by_champion = {answer["id"]: answer["version"] for answer in predictions(publisher)}
    by_alias = {}
    for message in read_all(publisher.settings, other.topics.predictions):
        answer = msgspec.json.decode(message.value())
        by_alias[answer["id"]] = answer["version"]
    assert len(by_champion) == len(by_alias) == 200
    assert set(by_champion.values()) == {2}
    assert {by_alias[f"e{number}"] for number in range(100, 200)} == {1}
    assert other.topics.predictions == publisher.names.topics.predictions + ".challenger"


def test_an_activation_switches_every_partition_at_its_offset_and_not_before(publisher):
    publisher.publish()
    with serving(publisher) as facts:
        facts.wait(Swapped)
        when = activation(publisher.settings, publisher.names, "0=60,1=120")
        publish_with(publisher, activate_at=when)
        facts.wait(Proven, lambda fact: fact.version == 2)
        send(publisher, 0, 400)  # 200 in each partition
        wait_for("predictions", lambda: predicted(facts) == 400)
        send(publisher, 400, 402)
        facts.wait(Swapped, lambda fact: fact.version == 2)
    answers = predictions(publisher)
    for answer in answers:
        _, partition, offset = answer["source"]
        assert answer["version"] == (2 if offset >= {0: 60, 1: 120}[partition] else 1), answer
    assert {(one.partition, one.first_offset, one.late) for one in history(publisher) if one.version == 2} == {
        (0, 60, 0),
        (1, 120, 0),
    }
    check_history(served(publisher.settings, publisher.names), answers)


def publish_with(publisher, **said):
    """A version whose promotion carries more than a version."""
    publisher.version += 1
    publisher.producer.begin_transaction()
    blob = write_blob(publisher.producer, publisher.names.of(ARTIFACTS), GOOD)
    encoded = manifests.encode(manifest(publisher.pipeline, publisher.version, blob))
    pointer = write_blob(publisher.producer, publisher.names.of(ARTIFACTS), encoded)
    publisher._write(Published(**publisher._record(), manifest=pointer), Promoted(**publisher._record(), **said))


def test_who_was_not_ready_at_the_activation_goes_on_and_says_how_late(publisher):
    publisher.publish()
    with serving(publisher) as facts:
        facts.wait(Swapped)
        send(publisher, 0, 100)
        wait_for("predictions", lambda: predicted(facts) == 100)
        publish_with(publisher, activate_at=activation(publisher.settings, publisher.names, "0=10,1=20"))
        facts.wait(Swapped, lambda fact: fact.version == 2)
        send(publisher, 100, 200)
        wait_for("predictions", lambda: predicted(facts) == 200)
    assert {(one.partition, one.first_offset, one.late) for one in history(publisher) if one.version == 2} == {
        (0, 50, 40),
        (1, 50, 30),
    }


def test_offsets_of_another_topic_of_the_same_name_activate_at_once_and_it_is_a_fact(publisher):
    with serving(publisher) as facts:
        publish_with(publisher, activate_at=Activation(topic_id="another", offsets={0: 1 << 40, 1: 1 << 40}))
        facts.wait(Swapped, lambda fact: fact.version == 1)
    assert [fact.reason for fact in facts.of(Refused)] == ["other_topic"]


def test_activations_that_make_no_sense_are_one_sentence(publisher):
    for text in ("", "soon", "0", "0=x", "7=1", "+", "0=1;1=2"):
        with pytest.raises(BadInput, match="--activate-at"):
            activation(publisher.settings, publisher.names, text)
    assert activation(publisher.settings, publisher.names, "+5").offsets == {0: 5, 1: 5}


def test_a_worker_that_takes_a_partition_over_never_serves_an_older_promotion(publisher, monkeypatch):
    """The second worker is held up before it reads the newest promotion; the first one has served it already."""
    publisher.publish()
    first, second, held = Facts(), Facts(), threading.Event()
    original = Follower._prepare

    def slow(self, promoted):
        if self._observer is second and promoted.seq == 4:
            held.wait(20)
        return original(self, promoted)

    monkeypatch.setattr(Follower, "_prepare", slow)
    with worker_of(publisher.settings, PIPELINE, second):
        second.wait(Swapped)
        with worker_of(publisher.settings, PIPELINE, first):
            publisher.publish()
            first.wait(Swapped, lambda fact: fact.version == 2)
            wait_for("the first to serve a partition by it", lambda: any(one.seq == 4 for one in history(publisher)))
            send(publisher, 0, 100)
            wait_for("the first's predictions", lambda: predicted(first) > 0)
        send(publisher, 100, 200)  # all partitions are the second's now
        held.set()
        wait_for("predictions", lambda: predicted(first) + predicted(second) >= 200)
    taken_over = next(one for one in history(publisher) if one.seq == 4).partition
    by_offset = {tuple(answer["source"]): answer["version"] for answer in predictions(publisher)}
    switched = min(one.first_offset for one in history(publisher) if one.seq == 4 and one.partition == taken_over)
    assert {v for (_, place, at), v in by_offset.items() if place == taken_over and at >= switched} == {2}


def test_a_pinned_champion_outlives_a_training(publisher, origin):
    publisher.publish()
    ask(publisher.settings, origin, "pin", why="audit")
    scheduler = Scheduler(publisher.settings)
    try:
        request(publisher.settings, "a", on_demand=True)
        answer = scheduler.answer("a")
    finally:
        scheduler.close()
    assert (answer.outcome, answer.version) == ("published", 2)
    assert "version 1 is pinned" in answer.reason
    known = known_versions(publisher.settings, publisher.names)
    assert (known.aliases["champion"], known.newest) == (1, 2)


class Dying:
    """The real producer up to a call; from then on it answers nothing, as in a process that is gone."""

    STEPS = ("begin_transaction", "produce", "produce", "send_offsets_to_transaction", "commit_transaction", "")

    def __init__(self, producer, step):
        self.producer, self.step, self.calls, self.gone = producer, step, 0, False

    def __getattr__(self, name):
        def call(*given):
            if self.gone or self.calls == self.step:
                self.gone = True
                raise KeyboardInterrupt
            assert name == self.STEPS[self.calls]
            self.calls += 1
            done = getattr(self.producer, name)(*given)
            if self.calls == len(self.STEPS) - 1 == self.step:
                self.gone = True  # after the commit, before anybody knows of it
                raise KeyboardInterrupt
            return done

        return call


@pytest.mark.parametrize("step", range(len(Dying.STEPS)))
def test_a_leader_that_dies_at_any_step_leaves_a_whole_move_or_none_and_the_next_one_does_it_once(publisher, step):
    publisher.publish()
    publisher.publish()
    settings = publisher.settings
    first = Scheduler(settings)
    request(settings, "a", on_demand=True)
    first.answer("a")  # version 3
    asked = Asked(run="m", pipeline="delay", move="promote", by="alice", why="w", until=clock_ms() + 60_000, version=1)
    first.writer._producer = Dying(first.writer._producer, step)
    produce(settings, publisher.names.of(RUNS), [{"value": msgspec.json.encode(asked)}])
    with pytest.raises(KeyboardInterrupt):
        first.until("its death", lambda: False)
    first.log.consumer.close()
    second = Scheduler(settings)
    try:
        second.until("the second to lead", lambda: second.log.leads)
        wait_for("a reply", lambda: second.leader.step() or replies(settings))
        request(settings, "b", on_demand=True)
        assert second.answer("b").version == 4
    finally:
        second.close()
        first.registry.close()
    (reply,) = replies(settings)
    assert (reply.done, reply.version, reply.seq) == (True, 1, 7)
    assert [record.seq for record in records(settings)] == list(range(1, 10))
    assert [type(record).__name__ for record in records(settings)[6:]] == ["Promoted", "Published", "Promoted"]


def replies(settings):
    found = [msgspec.json.decode(m.value(), type=RunRecord) for m in read_all(settings, settings.prefixed(RUNS))]
    return [record for record in found if isinstance(record, Replied)]


def test_a_paused_schedule_makes_no_run_on_any_scheduler_and_its_ticks_are_one_run_afterwards(publisher, origin):
    settings = publisher.settings
    ask(settings, origin, "pause", why="labels are late")
    first = Scheduler(settings)
    try:
        request(settings, "a", NOON)
        request(settings, "b", NOON + HOUR)
        waiting = [first.answer("a"), first.answer("b")]
        request(settings, "c", on_demand=True)
        assert first.answer("c").outcome == "promoted"
    finally:
        first.close()
    assert [answer.outcome for answer in waiting] == ["not_due", "not_due"]
    assert "paused since" in waiting[0].reason
    assert "by alice: labels are late" in waiting[0].reason
    ask(settings, origin, "resume")
    second = Scheduler(settings)
    try:
        request(settings, "d", NOON + 2 * HOUR)
        request(settings, "e", NOON + 2 * HOUR)
        answers = [second.answer("d"), second.answer("e")]
    finally:
        second.close()
    assert [(answer.outcome, answer.tick) for answer in answers] == [
        ("promoted", iso(NOON + 2 * HOUR)),
        ("not_due", ""),
    ]
