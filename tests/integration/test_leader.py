"""requests → decide → run → publish: one version per tick, whoever leads and whatever dies (law 8)."""

import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import ConsumerGroupState, Producer
from confluent_kafka.admin import AdminClient
from kit import Facts, linear, manifest, produce, read_all, wait_for

from headrace.infra.kafka import admin_config, producer_config
from headrace.infra.leadership import KafkaRegistry, KafkaRunsLog, KafkaWriter
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.processes.scheduler import LeaderThread
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models.errors import BrokerUnavailable, RegistryRefused, RunFailed
from headrace.models.facts import Refused, RunEnded, RunOverruns, RunTakenUp, RunTriedAgain
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.limits import RunLimits
from headrace.models.manifest import OffsetRange
from headrace.models.pipeline import Pipeline
from headrace.models.records import (
    Asked,
    Finished,
    Progressed,
    Promoted,
    Published,
    Replied,
    Requested,
    RunRecord,
    Started,
)
from headrace.scheduler.attempts import Candidate
from headrace.scheduler.decide import Live
from headrace.scheduler.leader import Leader
from headrace.scheduler.ledger import LeadershipLost
from headrace.scheduler.triggers import Every
from headrace.streams.codec import clock_ms
from headrace.streams.served import encode_served, served_batch, served_schema
from headrace.trainer.process import Trainer

HOUR = 3_600_000
NOON = 1_372_939_200_000  # 2013-07-04T12:00Z
PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    retrain=[Every("1h")],
)
HASTY = replace(PIPELINE, run=RunLimits(attempts=3, backoff="1s"))


class Scripted:
    """A training port: each attempt does the next thing of the script, and then good ones. `alive` outlives leaders."""

    host = "here"

    def __init__(self, *script, alive=None):
        self.script, self.runs, self.may_end = list(script), [], threading.Event()
        self.may_end.set()
        self.alive = {} if alive is None else alive  # by run
        self.fetched, self.stopped = [], []

    def fetch(self, ranges):
        self.fetched.append(ranges)
        if self.script and isinstance(self.script[0], BrokerUnavailable):
            raise self.script.pop(0)
        return ranges or (OffsetRange(topic="delay.served", partition=0, first=0, end=len(self.fetched)),)

    def start(self, run, _at, _versions, _ranges):
        self.runs.append(run)
        what = self.script.pop(0) if self.script else "promote"
        if isinstance(what, Exception) and str(what).startswith("at start"):
            raise what
        self.alive[run.run] = ScriptedAttempt(self, run, what)
        return self.alive[run.run]

    def take_up(self, run, _versions, *, failed):  # noqa: ARG002  the port's
        return self.alive.get(run)

    def stop(self, run):
        self.stopped.append(run)
        self.alive.pop(run, None)

    def stop_others(self, runs):
        for run in [run for run in self.alive if run not in runs]:
            self.stop(run)

    def initial(self, path):
        raise AssertionError(path)


class ScriptedAttempt:
    def __init__(self, training, run, what):
        self.training, self.run, self.what = training, run, what

    def wait(self, _seconds):
        if not self.training.may_end.is_set():
            return None
        self.training.alive.pop(self.run.run, None)
        if isinstance(self.what, Exception):
            raise self.what
        return Candidate(
            promote=self.what == "promote",
            reason=self.what,
            onnx=linear([0.0, 0.0]),
            manifest=lambda version, blob: manifest(
                PIPELINE, version, blob, run=self.run.run, tick=self.run.tick_text, trigger=self.run.trigger
            ),
        )

    def progress(self):
        return "train", {"epoch": 1.0, "loss": 0.5}


class NothingLive:
    def poll(self):
        pass

    def measured(self):
        return {}

    def now(self):
        return Live()

    def reset(self, since):
        pass

    def watch(self, versions, compared):
        pass


class Scheduler:
    """A leader without threads: it does what it does in `step`."""

    def __init__(self, settings, training=None, started=NOON - HOUR // 2, pipeline=PIPELINE, live=None):
        self.names, self.facts, self.training = Names(settings.prefix, pipeline), Facts(), training or Scripted()
        self.log = KafkaRunsLog(settings, self.names)
        self.registry = KafkaRegistry(settings)
        self.writer = KafkaWriter(settings, self.names, self.log)
        self.leader = Leader(
            pipeline,
            name=f"leader-{id(self)}",
            log=self.log,
            registry_log=self.registry,
            writer=self.writer,
            training=self.training,
            live=live or NothingLive(),
            observer=self.facts,
            started=started,
        )

    def close(self):
        self.leader.close()
        self.log.consumer.close()
        self.registry.close()
        self.writer.close()

    def until(self, what, fact):
        def step():
            self.leader.step()
            return fact()

        return wait_for(what, step)

    def answer(self, run):
        return self.until(f"an answer to {run}", lambda: self.leader.answered(run))


@pytest.fixture
def schedulers(settings):
    """Makes schedulers, and closes them."""
    apply(settings, PIPELINE)
    made = []

    def make(training=None, **options):
        made.append(Scheduler(options.pop("settings", settings), training, **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


def ask(settings, run, at=NOON, *, on_demand=False):
    names = Names(settings.prefix, PIPELINE)
    request = Requested(run=run, pipeline=PIPELINE.name, at=at, by="test", on_demand=on_demand)
    produce(settings, names.of(RUNS), [{"value": msgspec.json.encode(request)}])


def registry(settings):
    return [
        msgspec.json.decode(message.value(), type=Published | Promoted)
        for message in read_all(settings, settings.prefixed(REGISTRY))
    ]


def run_records(settings):
    found = []
    for message in read_all(settings, settings.prefixed(RUNS)):
        with suppress(msgspec.DecodeError, ValueError, RecursionError):
            found.append(msgspec.json.decode(message.value(), type=RunRecord))
    return found


def finished(settings):
    """The outcomes on the topic."""
    return [record for record in run_records(settings) if isinstance(record, Finished)]


def check_one_fork_free_line(settings, versions):
    records = registry(settings)
    assert [record.seq for record in records] == list(range(1, 2 * versions + 1))
    assert [record.version for record in records if isinstance(record, Published)] == list(range(1, versions + 1))


def test_a_tick_makes_one_version_and_who_asks_again_is_told_so(settings, schedulers):
    scheduler = schedulers()
    for run, at in [("a", NOON), ("b", NOON + 1), ("c", NOON + HOUR - 1), ("d", NOON + HOUR), ("e", NOON)]:
        ask(settings, run, at)
    outcomes = [scheduler.answer(run) for run in "abcde"]
    assert [answer.outcome for answer in outcomes] == ["promoted", "not_due", "not_due", "promoted", "not_due"]
    assert [answer.version for answer in outcomes] == [1, 0, 0, 2, 0]
    assert "2013-07-04T13:00:00Z" in outcomes[1].reason  # when it is due next
    check_one_fork_free_line(settings, 2)


def test_the_same_request_twice_has_one_answer(settings, schedulers):
    scheduler = schedulers()
    ask(settings, "a")
    ask(settings, "a")
    first = scheduler.answer("a")
    ask(settings, "a")
    ask(settings, "b", on_demand=True)
    scheduler.answer("b")
    assert [record for record in finished(settings) if record.run == "a"] == [first]
    assert [run.run for run in scheduler.training.runs] == ["a", "b"]


def test_requests_that_wait_together_get_versions_of_their_own(settings, schedulers):
    for run in "abc":
        ask(settings, run, on_demand=True)
    scheduler = schedulers()
    assert [scheduler.answer(run).version for run in "abc"] == [1, 2, 3]
    check_one_fork_free_line(settings, 3)


@pytest.mark.parametrize(
    "accident",
    [
        RunFailed("loss_not_finite", "epoch 3"),
        RunFailed("timeout", "3600 s"),
        RegistryRefused("at start", "the champion's graph has a wrong hash"),
    ],
    ids=str,
)
def test_a_run_that_fails_is_on_record_publishes_nothing_and_the_scheduler_lives(settings, schedulers, accident):
    scheduler = schedulers(Scripted(accident))
    ask(settings, "a")
    ask(settings, "b", NOON + HOUR)
    failed, good = scheduler.answer("a"), scheduler.answer("b")
    assert (failed.outcome, failed.tick, good.outcome) == ("failed", "2013-07-04T12:00:00Z", "promoted")
    assert str(accident) in failed.reason
    check_one_fork_free_line(settings, 1)
    assert [fact.outcome for fact in scheduler.facts.of(RunEnded)] == ["failed", "promoted"]


def test_what_the_gate_rejects_is_on_record_and_not_published(settings, schedulers):
    scheduler = schedulers(Scripted("worse than before"))
    ask(settings, "a")
    answer = scheduler.answer("a")
    assert (answer.outcome, answer.reason, answer.version) == ("rejected", "worse than before", 0)
    assert registry(settings) == []
    assert read_all(settings, settings.prefixed(ARTIFACTS)) == []


def test_records_that_nobody_can_read_do_not_end_the_leader(settings, schedulers):
    names = Names(settings.prefix, PIPELINE)
    endless = Requested(run="x", pipeline=PIPELINE.name, at=1 << 62, by="test")
    undated = Finished(run="y", pipeline=PIPELINE.name, at="", outcome="promoted", reason="", tick="noon")
    nested = b'{"kind":"requested","x":' + b"[" * 100_000
    values = [b"garbage", b"", None, b"\xff", nested, b'{"kind":"requested","pipeline":"\xff"}']
    values += [msgspec.json.encode(endless), msgspec.json.encode(undated)]
    produce(settings, names.of(RUNS), [{"value": value} for value in values])
    produce(settings, names.of(REGISTRY), [{"value": value} for value in values])
    ask(settings, "a")
    scheduler = schedulers()
    assert scheduler.answer("a").outcome == "promoted"
    assert scheduler.answer("x").reason.startswith("bad_time")
    assert {fact.reason for fact in scheduler.facts.of(Refused)} == {"bad_record", "not_ours"}


def test_the_next_leader_answers_from_the_log_and_goes_on(settings, schedulers):
    first = schedulers()
    ask(settings, "a")
    first.answer("a")
    first.log.consumer.close()  # leaves its group
    second = schedulers()
    ask(settings, "a")
    ask(settings, "b")
    ask(settings, "c", NOON + HOUR)
    assert [second.answer(run).outcome for run in "abc"] == ["promoted", "not_due", "promoted"]
    assert [run.run for run in second.training.runs] == ["c"]
    check_one_fork_free_line(settings, 2)


def both_are_members(settings, *schedulers):
    """A group of two that is at rest: a rebalance goes on only while both are heard of."""
    for scheduler in schedulers:
        scheduler.leader.step()
    client, group = AdminClient(admin_config(settings)), schedulers[0].names.leader_group
    found = client.describe_consumer_groups([group])[group].result(30)
    return len(found.members) == len(schedulers) and found.state == ConsumerGroupState.STABLE


def test_of_two_schedulers_one_leads_until_it_leaves(settings, schedulers):
    first = schedulers()
    first.until("the first to lead", lambda: first.log.leads)
    second = schedulers()
    wait_for("both to be members", lambda: both_are_members(settings, first, second))
    ask(settings, "a")
    first.answer("a")
    second.leader.step()
    assert not second.log.leads
    assert second.leader.answered("a") is None  # a standby does nothing, and is told when it leads
    first.log.consumer.close()
    ask(settings, "b", NOON + HOUR)
    assert second.answer("b").version == 2
    assert second.leader.answered("a").version == 1
    check_one_fork_free_line(settings, 2)


@pytest.fixture
def hasty(settings):
    """A member that does not poll for 6 s is no member any more."""
    return settings.model_copy(update={"kafka": {"max.poll.interval.ms": "6000"}})


@pytest.mark.parametrize("second_wrote", [False, True], ids=["before the second wrote", "after the second wrote"])
def test_a_leader_that_was_away_is_refused_by_the_broker_and_leaves_no_trace(settings, hasty, schedulers, second_wrote):
    zombie = schedulers(settings=hasty)
    ask(settings, "a")
    zombie.answer("a")
    second = schedulers(settings=hasty)  # and the first is not heard of
    second.until("the second to lead", lambda: second.log.leads)
    if second_wrote:
        ask(settings, "b", NOON + HOUR)
        second.answer("b")
    late = Finished(run="late", pipeline=PIPELINE.name, at="", outcome="promoted", reason="by a zombie")
    assert zombie.log.leads  # it believes
    with pytest.raises(LeadershipLost):
        zombie.writer.record(late)
    assert "late" not in [record.run for record in finished(settings)]
    ask(settings, "c", NOON + 2 * HOUR)
    assert second.answer("c").outcome == "promoted"
    check_one_fork_free_line(settings, 3 if second_wrote else 2)


def started(settings):
    return [record for record in run_records(settings) if isinstance(record, Started)]


def outlived(settings, hasty, schedulers):
    """A first leader that lost its group while its training went on."""
    first = schedulers(settings=hasty)
    first.training.may_end.clear()
    ask(settings, "a")
    first.until("the training to begin", lambda: first.training.runs)
    first.log.resign()
    with pytest.raises(LeadershipLost):
        first.leader.step()
    first.close()
    return first.training


def test_a_training_that_outlives_its_leader_is_taken_up_by_the_next_one(settings, hasty, schedulers):
    training = outlived(settings, hasty, schedulers)
    training.may_end.set()
    second = schedulers(Scripted(alive=training.alive))
    answer = second.answer("a")
    assert (answer.outcome, answer.tick) == ("promoted", "2013-07-04T12:00:00Z")
    assert second.training.runs == training.stopped == []
    assert len(started(settings)) == 1
    assert [fact.run for fact in second.facts.of(RunTakenUp)] == ["a"]
    check_one_fork_free_line(settings, 1)


def test_one_that_is_gone_with_its_leader_runs_again_under_its_tick_from_its_ranges(settings, hasty, schedulers):
    outlived(settings, hasty, schedulers)
    second = schedulers()
    answer = second.answer("a")
    assert (answer.outcome, answer.tick) == ("promoted", "2013-07-04T12:00:00Z")
    first_one, second_one = started(settings)
    assert (first_one.attempt, second_one.attempt) == (1, 2)
    assert "its leader ended" in second_one.after
    assert second.training.fetched == [first_one.ranges]
    assert second_one.ranges == first_one.ranges
    check_one_fork_free_line(settings, 1)


def test_a_process_of_a_run_that_has_its_outcome_is_ended_by_whoever_leads_next(settings, schedulers):
    first = schedulers()
    ask(settings, "a")
    first.answer("a")
    first.close()
    left = Scripted()
    left.alive["a"] = ScriptedAttempt(left, None, "promote")  # another machine's leader was quicker
    second = schedulers(left)
    ask(settings, "b", NOON + HOUR)
    second.answer("b")
    assert left.stopped == ["a"]


@pytest.mark.parametrize(
    "accident",
    [
        BrokerUnavailable("no answer"),
        OSError(28, "No space left on device"),
        RunFailed("killed", "by SIGKILL"),
        RunFailed("gone", "without a word"),
    ],
    ids=str,
)
def test_what_the_machine_is_to_blame_for_is_tried_again_and_on_record(settings, schedulers, accident):
    scheduler = schedulers(Scripted(accident, accident), pipeline=HASTY)
    ask(settings, "a")
    assert scheduler.answer("a").outcome == "promoted"
    waits = [record for record in run_records(settings) if isinstance(record, Progressed) and record.stage == "retry"]
    assert [(wait.facts["attempt"], wait.facts["seconds"], wait.why) for wait in waits] == [
        (2, 1.0, str(accident)),
        (3, 2.0, str(accident)),
    ]
    last = started(settings)[-1]
    assert (last.attempt, last.after) == (3, str(accident))
    assert [fact.attempt for fact in scheduler.facts.of(RunTriedAgain)] == [2, 3]
    check_one_fork_free_line(settings, 1)


def test_it_is_tried_so_many_times_and_no_more(settings, schedulers):
    scheduler = schedulers(Scripted(*[RunFailed("killed", "by SIGKILL")] * 3), pipeline=HASTY)
    ask(settings, "a")
    answer = scheduler.answer("a")
    assert (answer.outcome, answer.reason) == ("failed", "killed: by SIGKILL; attempt 3 of 3")
    assert answer.tick == "2013-07-04T12:00:00Z"
    assert len(scheduler.training.runs) == 3


def test_a_bad_model_is_not_tried_again(settings, schedulers):
    scheduler = schedulers(Scripted(RunFailed("loss_not_finite", "step 3")))
    ask(settings, "a")
    assert scheduler.answer("a").reason == "loss_not_finite: step 3"
    assert len(scheduler.training.runs) == 1


def test_a_run_that_outlasts_its_next_tick_says_so_once_as_a_fact_and_in_its_records(settings, schedulers):
    scheduler = schedulers(pipeline=replace(PIPELINE, retrain=[Every("1s")]))
    scheduler.training.may_end.clear()
    ask(settings, "a", clock_ms(), on_demand=True)
    (late,) = scheduler.until("the fact", lambda: scheduler.facts.of(RunOverruns))
    assert "that tick runs late, once" in late.detail
    said = scheduler.until(
        "two records of it",
        lambda: [one for one in run_records(settings) if isinstance(one, Progressed) and one.overruns][1:],
    )
    assert said[0].facts["loss"] == 0.5
    scheduler.training.may_end.set()
    assert scheduler.answer("a").outcome == "promoted"
    assert scheduler.facts.of(RunOverruns) == [late]


def cancel(settings, target, run="c"):
    asked = Asked(
        run=run, pipeline=PIPELINE.name, move="cancel", by="alice", why="no", until=clock_ms() + 60_000, target=target
    )
    produce(settings, settings.prefixed(RUNS), [{"value": msgspec.json.encode(asked)}])


def reply_to(settings, run):
    return next((one for one in run_records(settings) if isinstance(one, Replied) and one.run == run), None)


def test_a_run_that_goes_on_is_cancelled_and_the_next_one_begins(settings, schedulers):
    scheduler = schedulers()
    scheduler.training.may_end.clear()
    ask(settings, "a")
    ask(settings, "b", NOON + HOUR)
    scheduler.until("the training to begin", lambda: scheduler.training.runs)
    cancel(settings, "a")
    cancelled = scheduler.answer("a")
    assert (cancelled.outcome, cancelled.reason) == ("cancelled", "by alice: no")
    assert cancelled.tick == "2013-07-04T12:00:00Z"
    assert scheduler.training.stopped == ["a"]
    scheduler.training.may_end.set()
    assert scheduler.answer("b").outcome == "promoted"
    assert reply_to(settings, "c").done
    cancel(settings, "a", "again")
    cancel(settings, "nobody", "nobody's")
    scheduler.until("both", lambda: all(reply_to(settings, run) for run in ("again", "nobody's")))
    told = [reply_to(settings, run).reason.split(":")[0] for run in ("again", "nobody's")]
    assert told == ["ended", "unknown_run"]
    check_one_fork_free_line(settings, 1)


def test_a_run_that_waits_is_cancelled_before_it_begins(settings, schedulers):
    scheduler = schedulers()
    scheduler.training.may_end.clear()
    ask(settings, "a")
    ask(settings, "b", on_demand=True)
    scheduler.until("the training to begin", lambda: scheduler.training.runs)
    cancel(settings, "b")
    assert scheduler.answer("b").outcome == "cancelled"
    scheduler.training.may_end.set()
    assert scheduler.answer("a").outcome == "promoted"
    assert [run.run for run in scheduler.training.runs] == ["a"]


def _values(settings, topic):
    return [message.value() for message in read_all(settings, settings.prefixed(topic))]


def test_a_crash_between_artifacts_and_commit_leaves_nothing_to_see(settings, schedulers):
    first = schedulers()
    first.until("the first to lead", lambda: first.log.leads)

    def crash(_blob):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.writer.publish(b"graph" * 300_000, crash, lambda _: [])
    assert read_all(settings, settings.prefixed(ARTIFACTS)) == []
    assert registry(settings) == []
    first.log.consumer.close()
    second = schedulers()
    ask(settings, "a")
    assert second.answer("a").version == 1
    check_one_fork_free_line(settings, 1)


# ── with real trainings ───────────────────────────────────────────────────────────────────────────────────────────────

FILE = """
import os
from pathlib import Path
from headrace import Binary, Gate, Last, Number, Pipeline, Topic, Torch

MOOD = Path(__file__).with_name("mood")


class Moody:
    def train(self, dataset, context):
        mood = MOOD.read_text()
        if mood == "crash":
            os._exit(3)
        return Torch(f"moody_net:{mood}", epochs=3, batch_size=64).train(dataset, context)


delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    learner=Moody(),
    train_on=Last("52w", holdout="1d", min_rows=50),
    gate=Gate("roc_auc", max_loss=0.005),
)
"""
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.last, self.factor = torch.nn.Linear(2, 1), factor

    def forward(self, numbers, categories=None):
        return self.last(numbers).squeeze(1) * self.factor


def good(inputs):
    return Net(1.0)


def useless(inputs):
    return Net(0.0)


def nan(inputs):
    return Net(float("nan"))
"""


@contextmanager
def leading(settings, folder, facts):
    (folder / "moody.py").write_text(FILE)
    (folder / "moody_net.py").write_text(NET)
    file = read_pipelines(str(folder / "moody.py"))
    with ExitStack() as stack:
        trainer = stack.enter_context(Trainer())
        thread = LeaderThread(settings, Origin(file=file, pipeline=file.pipelines["delay"]), trainer, facts)
        thread.start()
        stack.callback(thread.stop)
        yield thread


def serve_and_label(settings, rows):
    """Rows an hour apart from noon on, as workers log them, and what came of them."""
    names, random = Names(settings.prefix, PIPELINE), np.random.default_rng(3)
    ids, times = [f"e{n}" for n in range(rows)], NOON + np.arange(rows) * HOUR
    distance = random.normal(0, 1, rows)
    batch = served_batch(
        served_schema(PIPELINE.columns),
        ids=ids,
        times=times.astype(np.int64),
        partition=0,
        offsets=range(rows),
        version=0,
        scores=np.full(rows, 0.5),
        columns={"distance": distance, "wind": random.normal(0, 1, rows)},
    )
    assert isinstance(batch, pa.RecordBatch)
    produce(settings, names.topics.served, [{"value": value} for value, _, _ in encode_served(batch)])
    labels = [
        {"value": msgspec.json.encode({"id": i, "at": int(time) + HOUR // 2, "late": bool(late)})}
        for i, time, late in zip(ids, times, distance + random.normal(0, 0.3, rows) > 0, strict=True)
    ]
    produce(settings, names.labels, labels)


def test_real_trainings_fail_are_rejected_and_promoted_and_the_scheduler_outlives_them(settings, tmp_path):
    apply(settings, PIPELINE)
    serve_and_label(settings, 400)
    facts, end = Facts(), NOON + 401 * HOUR
    with leading(settings, tmp_path, facts) as thread:
        outcomes = {}
        for run, (mood, at) in enumerate(
            [("good", NOON + 20 * HOUR), ("crash", end), ("nan", end), ("good", end), ("useless", end), ("good", end)]
        ):
            (tmp_path / "mood").write_text(mood)
            ask(settings, f"r{run}", at, on_demand=True)
            ended = facts.wait(RunEnded, lambda fact, run=run: fact.run == f"r{run}")
            outcomes[run, mood] = ended
            assert thread.failure is None
    told = [(mood, fact.outcome, fact.reason.split(":")[0]) for (_, mood), fact in outcomes.items()]
    assert [outcome for _, outcome, _ in told] == ["failed"] * 3 + ["promoted", "rejected", "promoted"], told
    assert told[0][2] == "too_few_rows"
    check_one_fork_free_line(settings, 2)


def test_a_leader_that_was_fenced_leads_again_with_a_new_producer(settings, tmp_path):
    apply(settings, PIPELINE)
    facts = Facts()
    with leading(settings, tmp_path, facts) as thread:
        ask(settings, "a")
        facts.wait(RunEnded, lambda fact: fact.run == "a")
        name = Names(settings.prefix, PIPELINE).leader_transaction
        Producer(producer_config(settings, transactional_id=name)).init_transactions(60)
        ask(settings, "b")
        facts.wait(RunEnded, lambda fact: fact.run == "b")
        assert thread.failure is None
    assert [(record.run, record.outcome) for record in finished(settings)] == [("a", "not_due"), ("b", "not_due")]
