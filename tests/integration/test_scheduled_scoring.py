"""tick → the latest row per id → predictions: each id once per tick, whoever dies and whatever the rows are (law 8)."""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from math import exp
from random import Random
from struct import Struct

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kit import Facts, linear, produce, read_all, wait_for
from test_swap import PIPELINE as PLAIN
from test_swap import Publisher

from headrace.infra import scheduled_scoring
from headrace.infra.feature_store import RedisFeatureStore
from headrace.infra.leadership import KafkaRunsLog
from headrace.infra.names import RUNS, Names
from headrace.infra.scheduled_scoring import Scoreboard, ScoreWriter
from headrace.infra.served_log import predicted_with
from headrace.infra.services.versions.catalog import run
from headrace.infra.topics import apply
from headrace.models.durations import iso
from headrace.models.facts import DeadLettered, TickScored
from headrace.models.features import Aggregate, Number, Topic
from headrace.models.records import (
    REASON_HEADER,
    TICK_HEADER,
    VERSION_HEADER,
    Paused,
    Prediction,
    Scored,
    TickPrediction,
)
from headrace.models.scoring import Score
from headrace.scheduler.ledger import LeadershipLost
from headrace.scheduler.scorer import Scorer
from headrace.scheduler.triggers import Every
from headrace.streams.rings import rings_of

HOUR = 3_600_000
NOON = 1_372_939_200_000  # 2013-07-04T12:00Z
CUSTOMERS = Topic("customers", id="id", time="at", partitions=2)
PIPELINE = replace(PLAIN, score=[Score(CUSTOMERS, at=Every("1h"))])
EARLIER = iso(NOON - HOUR)


class Scheduler:
    """A scorer without its thread and with a clock of its own: it does what it does in `step`."""

    def __init__(self, settings, pipeline=PIPELINE, at=NOON - HOUR // 2):
        self.names, self.facts, self.at = Names(settings.prefix, pipeline), Facts(), at
        self.log = KafkaRunsLog(settings, self.names, "scorer")
        self.writer = ScoreWriter(settings, self.names, self.log)
        self.board = Scoreboard(settings, self.names, self.facts)
        self.scorer = Scorer(
            pipeline,
            name=f"scorer-{id(self)}",
            log=self.log,
            writer=self.writer,
            board=self.board,
            observer=self.facts,
            clock_ms=lambda: self.at,
            try_seconds=0.0,
        )

    def close(self):
        self.log.consumer.close()
        self.writer.close()
        self.board.close()

    def until(self, what, fact):
        def step():
            self.scorer.step()
            return fact()

        return wait_for(what, step)

    def tick(self, at, source="customers"):
        """Its outcome, by a clock that shows `at`."""
        known = len(self.facts.of(TickScored))
        self.until("the source to be on record", lambda: self.scorer._ticks.known(source))
        self.at = at
        return self.until("a tick to end", lambda: self.facts.of(TickScored)[known:])[0]


@pytest.fixture
def schedulers(settings):
    """Makes schedulers, and closes them. The pipeline has one version, the sigmoid of the first feature."""
    made = []

    def make(pipeline=PIPELINE, weights=(1.0, 0.0), **options):
        if not made:
            apply(settings, pipeline, 2)
            Publisher(settings, pipeline).publish(linear(weights))
        made.append(Scheduler(settings, pipeline, **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


def row(number, **said):
    return {"id": f"c{number}", "at": EARLIER, "distance": float(number), "wind": 0.0} | said


def update(settings, *rows, topic="customers"):
    """Each a row, or (key, bytes or None)."""
    records = [
        {"key": one["id"], "value": msgspec.json.encode(one)}
        if isinstance(one, dict)
        else {"key": one[0], "value": one[1]}
        for one in rows
    ]
    produce(settings, settings.prefixed(topic), records)


def predictions(settings):
    return [
        msgspec.json.decode(message.value()) for message in read_all(settings, settings.prefixed("delay.predictions"))
    ]


def each_once(settings, tick):
    """Ids of a tick, each predicted once."""
    found = Counter(one["id"] for one in predictions(settings) if one["tick"] == iso(tick))
    assert set(found.values()) <= {1}, found.most_common(3)
    return set(found)


def outcomes(settings):
    found = [msgspec.json.decode(message.value()) for message in read_all(settings, settings.prefixed(RUNS))]
    return [msgspec.convert(one, Scored) for one in found if one["kind"] == "scored"]


def letters(settings):
    return [
        (
            message.key(),
            dict(message.headers())[REASON_HEADER].decode().split(":")[0],
            dict(message.headers())[TICK_HEADER],
        )
        for message in read_all(settings, settings.prefixed("delay.dead-letters"))
    ]


def test_a_tick_scores_the_latest_row_of_each_id_once_and_says_so(settings, schedulers):
    scheduler = schedulers()
    update(settings, *[row(number) for number in range(50)], row(7, distance=70.0), row(8, distance=80.0))
    done = scheduler.tick(NOON + 1)
    assert (done.outcome, done.rows, done.rejected, done.newer, done.version) == ("scored", 50, 0, 0, 1)
    assert each_once(settings, NOON) == {f"c{number}" for number in range(50)}
    (seven,) = [one for one in predictions(settings) if one["id"] == "c7"]
    place = next(
        [message.topic(), message.partition(), message.offset()]
        for message in read_all(settings, settings.prefixed("customers"))
        if msgspec.json.decode(message.value()) == row(7, distance=70.0)
    )
    assert seven == {
        "id": "c7",
        "prediction": pytest.approx(1.0),
        "decision": True,
        "pipeline": "delay",
        "version": 1,
        "event_time": EARLIER,
        "source": place,
        "tick": iso(NOON),
    }
    (message,) = [one for one in read_all(settings, settings.prefixed("delay.predictions")) if one.key() == b"c7"]
    assert dict(message.headers()) == {VERSION_HEADER: b"1", TICK_HEADER: iso(NOON).encode()}
    found = run(settings, scheduler.names)
    assert (found.state, found.source, found.rows, found.tick) == ("scored", "customers", 50, iso(NOON))
    update(settings, row(3, distance=-9.0))
    assert scheduler.tick(NOON + HOUR).rows == 50
    assert each_once(settings, NOON + HOUR) == each_once(settings, NOON)


def test_deleted_ids_are_not_scored_and_bad_rows_are_dead_letters(settings, schedulers):
    scheduler = schedulers()
    update(settings, *[row(number) for number in range(6)])
    update(
        settings, ("c0", None), ("c1", b"rubbish"), ("c2", b""), row(3, distance="far"), ("gone", None), ("c4", None)
    )
    update(settings, row(4))
    done = scheduler.tick(NOON)
    assert (done.rows, done.rejected) == (2, 3)
    assert each_once(settings, NOON) == {"c4", "c5"}
    assert sorted(letters(settings)) == [
        (b"c1", "not_json", iso(NOON).encode()),
        (b"c2", "empty", iso(NOON).encode()),
        (b"c3", "wrong_shape", iso(NOON).encode()),
    ]
    assert {reason for fact in scheduler.facts.of(DeadLettered) for reason in fact.reasons} == {
        "not_json",
        "empty",
        "wrong_shape",
    }


def test_nothing_is_newer_than_the_tick(settings, schedulers):
    scheduler = schedulers()
    update(settings, row(0, distance=1.0), row(1))
    update(settings, row(0, distance=9.0, at=iso(NOON + 1)), row(2, at=iso(NOON + 1)), row(3, at=iso(NOON)))
    done = scheduler.tick(NOON + HOUR // 2)
    assert (done.rows, done.newer) == (3, 1)
    assert each_once(settings, NOON) == {"c0", "c1", "c3"}
    (zero,) = [one for one in predictions(settings) if one["id"] == "c0"]
    assert zero["prediction"] == pytest.approx(0.7310586)


def test_an_empty_source_is_a_tick_without_rows(settings, schedulers):
    done = schedulers().tick(NOON)
    assert (done.outcome, done.rows, done.rejected) == ("scored", 0, 0)
    assert predictions(settings) == []


def test_ticks_missed_while_nobody_ran_are_one_the_newest_and_its_record_says_so(settings, schedulers):
    first = schedulers()
    update(settings, row(0))
    first.tick(NOON)
    first.close()
    later = schedulers(at=NOON + 3 * HOUR + 5)
    later.until("the newest tick", lambda: later.facts.of(TickScored))
    assert [one["tick"] for one in predictions(settings)] == [iso(NOON), iso(NOON + 3 * HOUR)]
    assert "2 missed" in run(settings, later.names).trigger or "coalesced" in run(settings, later.names).trigger


def test_ticks_before_the_source_was_first_seen_do_not_count(settings, schedulers):
    scheduler = schedulers(at=NOON + 5)
    update(settings, row(0))
    scheduler.until("the source to be on record", lambda: scheduler.scorer._ticks.known("customers"))
    scheduler.scorer.step()
    assert predictions(settings) == []
    scheduler.at = NOON + HOUR
    scheduler.until("the next tick", lambda: scheduler.facts.of(TickScored))
    assert each_once(settings, NOON + HOUR) == {"c0"}


def test_a_paused_schedule_holds_ticks_and_the_newest_comes_after_it(settings, schedulers):
    scheduler = schedulers()
    update(settings, row(0))
    scheduler.until("the source to be on record", lambda: scheduler.scorer._ticks.known("customers"))

    def pause(*, paused):
        said = Paused(run="x", pipeline="delay", paused=paused, at=iso(NOON), by="test", why="")
        produce(settings, scheduler.names.of(RUNS), [{"value": msgspec.json.encode(said)}])
        scheduler.until("it to be heard", lambda: scheduler.scorer._ticks._paused == paused)

    pause(paused=True)
    scheduler.at = NOON + 2 * HOUR
    scheduler.scorer.step()
    assert predictions(settings) == []
    pause(paused=False)
    scheduler.until("a tick", lambda: scheduler.facts.of(TickScored))
    assert [one["tick"] for one in predictions(settings)] == [iso(NOON + 2 * HOUR)]


class Killed(BaseException):
    """As SIGKILL does: nothing more is written."""


class Dying:
    """A producer that dies at the n-th call of a step."""

    def __init__(self, producer, step, at):
        self._producer, self._step, self._left = producer, step, at

    def __getattr__(self, name):
        if name == self._step:
            self._left -= 1
            if self._left == 0:
                raise Killed(name)
        if name == "abort_transaction":  # the dead abort nothing
            return lambda *_: None
        return getattr(self._producer, name)


STEPS = ("begin_transaction", "produce", "send_offsets_to_transaction", "commit_transaction")


@pytest.mark.parametrize(("number", "after_commit"), [(1, False), (2, False), (3, False), (3, True), (4, False)])
def test_a_tick_goes_on_where_it_stopped_whenever_its_scorer_died(
    settings, schedulers, monkeypatch, number, after_commit
):
    """Parts of some 20 rows: the transactions are the tick's begin and three parts, the last one with the outcome."""
    monkeypatch.setattr(scheduled_scoring, "PART_ROWS", 20)
    monkeypatch.setattr(scheduled_scoring, "CHUNK_ROWS", 10)
    first = schedulers()
    update(settings, *[row(number) for number in range(60)])
    first.until("the source to be on record", lambda: first.scorer._ticks.known("customers"))
    writes, write = 0, first.writer.transaction

    def transaction(do):
        nonlocal writes
        writes += 1
        if writes == number and not after_commit:
            first.writer._producer = Dying(first.writer._producer, "commit_transaction", 1)
        write(do)
        if writes == number:
            raise Killed

    first.writer.transaction = transaction
    first.at = NOON
    with pytest.raises(Killed):
        first.until("its death", lambda: None)
    begun = [one for one in predictions(settings) if one["tick"] == iso(NOON)]
    first.log.consumer.close()
    second = schedulers(at=NOON + 5)
    second.until("the tick to end", lambda: [one for one in outcomes(settings) if one.outcome == "scored"])
    second.scorer.step()
    assert each_once(settings, NOON) == {f"c{number}" for number in range(60)}
    assert [one for one in predictions(settings) if one in begun] == begun
    (done,) = [one for one in outcomes(settings) if one.outcome == "scored"]
    assert done.rows == 60


def test_who_lost_the_group_is_refused_in_the_middle_of_a_tick(settings, schedulers, monkeypatch):
    monkeypatch.setattr(scheduled_scoring, "PART_ROWS", 20)
    monkeypatch.setattr(scheduled_scoring, "CHUNK_ROWS", 10)
    first = schedulers()
    update(settings, *[row(number) for number in range(60)])
    first.until("the source to be on record", lambda: first.scorer._ticks.known("customers"))
    second = schedulers(at=NOON)
    first.at, write, writes = NOON, first.writer.transaction, 0

    def taken_over():
        second.log.poll(0.05)
        return second.log.leads

    def transaction(do):
        nonlocal writes
        writes += 1
        if writes == 3:  # it stood still for so long that the group went on without it
            first.log.consumer.unsubscribe()
            wait_for("the other to own the log", taken_over)
            second.until("the tick to end", lambda: second.facts.of(TickScored))
        write(do)

    first.writer.transaction = transaction
    with pytest.raises(LeadershipLost):
        first.until("its end", lambda: None)
    assert each_once(settings, NOON) == {f"c{number}" for number in range(60)}


def test_a_begun_tick_keeps_its_version(settings, schedulers, monkeypatch):
    monkeypatch.setattr(scheduled_scoring, "PART_ROWS", 20)
    monkeypatch.setattr(scheduled_scoring, "CHUNK_ROWS", 10)
    apply(settings, PIPELINE, 2)
    publisher = Publisher(settings)
    publisher.publish(linear([1.0, 0.0]))
    first = Scheduler(settings)
    update(settings, *[row(number) for number in range(60)])
    first.until("the source to be on record", lambda: first.scorer._ticks.known("customers"))
    write = first.writer.transaction
    seen = []

    def transaction(do):
        write(do)
        seen.append(1)
        if len(seen) == 2:
            raise Killed

    first.writer.transaction = transaction
    first.at = NOON
    with pytest.raises(Killed):
        first.until("its death", lambda: None)
    first.close()
    publisher.publish(linear([0.0, 1.0]))
    second = Scheduler(settings, at=NOON + HOUR)
    second.until("both ticks to end", lambda: len(second.facts.of(TickScored)) == 2)
    second.close()
    assert {(one["tick"], one["version"]) for one in predictions(settings)} == {(iso(NOON), 1), (iso(NOON + HOUR), 2)}
    assert len(each_once(settings, NOON)) == len(each_once(settings, NOON + HOUR)) == 60


@pytest.fixture
def table(tmp_path):
    return replace(PLAIN, score=[Score(f"file://{tmp_path}/customers", at=Every("1h"))]), tmp_path / "customers"


def test_a_folder_of_parquet_is_scored_with_the_latest_row_of_each_id(settings, schedulers, table):
    pipeline, folder = table
    (folder / "_temporary").mkdir(parents=True)
    (folder / "_temporary" / "draft.parquet").write_bytes(b"rubbish")
    rows = [row(number) for number in range(30)] + [row(5, distance=-5.0), row(6, at=iso(NOON + 1))]
    pq.write_table(pa.Table.from_pylist(rows[:20]), folder / "a.parquet", row_group_size=7)
    pq.write_table(pa.Table.from_pylist([*rows[20:], row(99) | {"distance": None}]), folder / "b.parquet")
    scheduler = schedulers(pipeline)
    done = scheduler.tick(NOON, pipeline.score[0].name)
    assert (done.outcome, done.rows, done.rejected, done.newer) == ("scored", 30, 1, 0)
    assert each_once(settings, NOON) == {f"c{number}" for number in range(30)}
    five = next(one for one in predictions(settings) if one["id"] == "c5")
    assert five["source"] == [pipeline.score[0].name, 0, 30]
    assert five["prediction"] == pytest.approx(0.0066929, rel=1e-4)
    assert letters(settings) == [(b"c99", "wrong_shape", iso(NOON).encode())]


def test_a_file_that_changes_ends_the_tick_and_one_that_is_not_there_fails_it(settings, schedulers, table, monkeypatch):
    pipeline, folder = table
    monkeypatch.setattr(scheduled_scoring, "PART_ROWS", 10)
    monkeypatch.setattr(scheduled_scoring, "CHUNK_ROWS", 10)
    scheduler = schedulers(pipeline)
    done = scheduler.tick(NOON, pipeline.score[0].name)
    assert (done.outcome, done.rows) == ("failed", 0)
    assert "FileNotFoundError" in done.reason
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([row(number) for number in range(30)]), folder / "a.parquet")
    write, writes = scheduler.writer.transaction, 0

    def transaction(do):
        nonlocal writes
        writes += 1
        if writes == 2:
            pq.write_table(pa.Table.from_pylist([row(number) for number in range(300)]), folder / "b.parquet")
        write(do)

    scheduler.writer.transaction = transaction
    done = scheduler.tick(NOON + HOUR, pipeline.score[0].name)
    assert (done.outcome, done.rows) == ("failed", 10)
    assert done.reason.startswith("source_changed: ")
    scheduler.writer.transaction = write
    assert scheduler.tick(NOON + 2 * HOUR, pipeline.score[0].name).rows == 300


VISITS = Topic("visits", time="at")
SPENT = Aggregate(VISITS, "spent", "sum", over="2h", by="id", lateness="1d")
STORED = replace(PIPELINE, features=[Number("distance"), SPENT])


def visits(settings, newest, *rows):
    """Applied to the feature store as the features agent does it: (time, spent) of c0, and the topic's newest time."""
    names = Names(settings.prefix, STORED)
    (ring,) = rings_of([SPENT])
    packed = b"".join(Struct("<qd").pack(*row) for row in rows)
    with closing(RedisFeatureStore(settings.redis_url, names.store_namespace)) as store:
        applied = store.append(
            names.of("visits"),
            0,
            expected=None,
            next_position=1,
            rows={ring: {ring.key(["c0"]): packed}},
            newest=newest,
        )
    assert applied.applied


def test_stored_features_are_as_of_the_tick_and_strictly_before_it(settings, schedulers):
    visits(settings, NOON, (NOON - 90 * 60_000, 1.0), (NOON - 1, 2.0), (NOON, 4.0))
    scheduler = schedulers(STORED, weights=[0.0, 1.0])
    update(settings, row(0), row(1))
    assert scheduler.tick(NOON).outcome == "scored"
    assert scheduler.tick(NOON + HOUR).outcome == "scored"
    found = {(one["id"], one["tick"]): one["prediction"] for one in predictions(settings)}
    assert found == {
        ("c0", iso(NOON)): pytest.approx(sigmoid(3.0)),  # of the row's own time it would be 1
        ("c1", iso(NOON)): pytest.approx(0.5),
        ("c0", iso(NOON + HOUR)): pytest.approx(sigmoid(6.0)),
        ("c1", iso(NOON + HOUR)): pytest.approx(0.5),
    }


def test_a_tick_whose_side_rows_may_be_gone_fails_and_says_so(settings, schedulers):
    visits(settings, NOON + 25 * HOUR, (NOON - 1, 2.0))
    scheduler = schedulers(STORED, weights=[0.0, 1.0])
    update(settings, row(0))
    done = scheduler.tick(NOON)
    assert (done.outcome, done.rows) == ("failed", 0)
    assert done.reason.startswith("too_late: ")
    assert predictions(settings) == []


def sigmoid(logit):
    return 1 / (1 + exp(-logit))


def test_predictions_of_events_are_still_found_by_their_source_between_those_of_ticks(settings, topic):
    place, chance, records = topic("predictions"), Random(1), []
    for offset in range(300):
        common = ("a", 0.5, True, "delay", 1, EARLIER)
        records.append(Prediction(*common, ("flights", 0, offset)))
        records += [
            TickPrediction(*common, ("flights", 0, chance.randrange(300)), tick=iso(NOON))
            for _ in range(chance.randrange(4))
        ]
    produce(settings, place, [{"value": msgspec.json.encode(one)} for one in records])
    for offset in (0, 1, 77, 150, 298, 299):
        (found,) = predicted_with(settings, place, 0, offset)
        assert msgspec.json.decode(found.value())["source"] == ["flights", 0, offset]
