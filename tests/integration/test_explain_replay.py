"""One prediction explained, and the past scored again: on a real broker, over real swaps."""

import dataclasses
from contextlib import closing

import msgspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from kit import Facts, committed, linear, produce, read_all, wait_for
from test_cli import Cli
from test_source import worker_of
from test_swap import Publisher, predicted

from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.seek import Seeker, about
from headrace.infra.services.data.explain import explain
from headrace.infra.services.scores.rescore import RESCORED, rescore
from headrace.infra.services.scores.rescore_file import FileTarget
from headrace.infra.services.scores.rescore_topic import TopicTarget
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.facts import Swapped
from headrace.models.features import Number, Tensor, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.records import FIRST_OFFSET_HEADER, LAST_OFFSET_HEADER
from headrace.models.schema import Schema
from headrace.streams.served import encode_served, served_batch, served_schema

AT = 1_372_935_600_000  # 2013-07-04T11:00:00Z; the events are a second apart
FILE = """
from headrace import Binary, Category, Function, Number, Pipeline, Topic

from rules_of_delay import half

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind"), Category("carrier", nullable=True)],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    baseline=Function(half, inputs=["distance"]),
)
"""
RULES = """
import numpy as np


def half(distance):
    return np.clip(distance / 2_000, 0, 1)
"""
TWO = (Number("distance"), Number("wind"))
PLAIN = Pipeline(
    name="plain",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)


PLAIN_FILE = """
from headrace import Binary, Number, Pipeline, Topic

plain = Pipeline(
    name="plain",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)
"""


def event(number):
    value = {"id": f"e{number}", "at": AT + 1_000 * number, "distance": number, "wind": number % 7}
    return {"value": msgspec.json.encode(value), "key": f"k{number}".encode(), "partition": number % 2}


def needs(*features):
    """A version of these features, whatever else the declaration logs."""
    schema = Schema(tuple(column for feature in features for column in feature.columns))
    told = {"libraries": {"onnxruntime": "1.0"}, "hyperparameters": {"epochs": 2}, "git_commit": "abc"}
    return lambda manifest: msgspec.structs.replace(manifest, features=features, schema=schema, **told)


class World:
    """The baseline and two versions, each of which served some of 1,200 events; event 700 is a dead letter."""

    def __init__(self, settings, folder):
        folder.mkdir(exist_ok=True)
        (folder / "rules_of_delay.py").write_text(RULES)
        (folder / "flights.py").write_text(FILE)
        self.settings, self.folder, self.cli = settings, folder, Cli(settings, folder)
        self.pipeline = read_pipeline(f"{folder / 'flights.py'}:delay")
        self.names = Names(settings.prefix, self.pipeline)
        apply(settings, self.pipeline, 2)
        self.publisher, facts = Publisher(settings, self.pipeline), Facts()
        with worker_of(settings, self.pipeline, facts):
            for version in (0, 1, 2):
                if version:
                    self.publisher.publish(linear([0.003 * version, -0.1], bias=-0.5), change=needs(*TWO))
                    facts.wait(Swapped, lambda fact, version=version: fact.version == version)
                self.send(400 * version, 400 * version + 400)
                wait_for("its share", lambda done=400 * version + 400: predicted(facts) >= done - (done > 700))
            wait_for("a dead letter", lambda: read_all(settings, self.names.topics.dead_letters))
        answers = [msgspec.json.decode(m.value()) for m in read_all(settings, self.names.topics.predictions)]
        self.predictions = {answer["id"]: answer for answer in answers}
        assert len(self.predictions) == 1_199

    def send(self, first, last):
        rubbish = {"value": b"rubbish", "partition": 0}
        produce(self.settings, self.names.events, [rubbish if n == 700 else event(n) for n in range(first, last)])

    def place(self, number):
        return f"flights/{number % 2}/{number // 2}"

    def explain(self, wanted, look_back=1_000_000):
        return explain(self.settings, self.names, wanted, look_back=look_back)

    def rescore(self, wanted, *, since=0, until=None):
        """Summary, and the rows."""
        kept = Kept()
        done = rescore(self.settings, self.names, wanted, since=since, until=until, out=kept)
        return done, kept.rows


class Kept:
    name = "kept"

    def __init__(self):
        self.rows = []

    def write(self, rows):
        assert rows.schema == RESCORED
        self.rows += rows.to_pylist()


@pytest.fixture(scope="module")
def world(servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("delays")
    return World(
        Settings(bootstrap_servers=servers.bootstrap_servers, prefix=f"{folder.name}.", home=folder / "home"), folder
    )


# ── explain ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("first", "version"), [(0, 0), (400, 1), (800, 2)])
def test_what_was_served_comes_out_again_to_the_bit_by_whichever_version(world, first, version):
    for number in {first, first + 1, first + 57, first + 198, first + 399}:
        found, answer = world.explain(world.place(number)), world.predictions[f"e{number}"]
        assert found.prediction == answer
        assert (found.id, found.served.version, found.served.score) == (f"e{number}", version, answer["prediction"])
        assert found.served.features == {"distance": float(number), "wind": float(number % 7), "carrier": None}
        assert found.event.value["distance"] == number
        assert (found.event.key, found.served.event_time) == (f"k{number}", answer["event_time"])
        assert (found.rerun.verdict, found.rerun.score) == ("equal to the bit", answer["prediction"])


def test_an_explanation_names_what_made_the_version_and_who_promoted_it_when_it_served(world):
    found = world.explain(world.place(801))
    assert found.manifest.hyperparameters == {"epochs": 2}
    assert found.rerun.made_with["onnxruntime"] == "1.0"
    assert (found.promotion.seq, found.promotion.version, found.promotion.by) == (4, 2, "test")
    assert (found.switched.version, found.switched.first_offset) == (2, 400)
    baseline = world.explain(world.place(1))
    assert (baseline.manifest, baseline.promotion, baseline.promotions) == (None, None, ())


def test_an_event_id_is_found_among_the_newest_served_rows_and_how_many_were_looked_at_is_said(world):
    assert world.explain("e1000").source == f"{world.names.events}/0/500"
    assert world.explain("e3").source == f"{world.names.events}/1/1"
    with pytest.raises(BadInput, match="newest 1,199 served rows; got 'nobody'"):
        world.explain("nobody")


def test_a_dead_letter_is_explained_by_its_reason(world):
    found = world.explain(world.place(700))
    assert (found.served, found.rerun) == (None, None)
    assert found.event.value == "rubbish"
    assert found.dead_letter.reason == "not_json"
    assert "not_json" in world.cli("data", "explain", "flights.py", world.place(700)).out


def test_what_is_not_there_is_said_with_what_is(world):
    with pytest.raises(BadInput, match="expected an offset from 0 to 599"):
        world.explain("flights/0/600")
    with pytest.raises(BadInput, match="expected a partition from 0 to 1"):
        world.explain("flights/2/0")


def test_an_event_that_no_worker_has_come_to_is_not_predicted_yet(settings):
    apply(settings, PLAIN, 1)
    names = Names(settings.prefix, PLAIN)
    produce(settings, names.events, [event(0)])
    with pytest.raises(BadInput, match="not predicted yet: no worker has begun"):
        explain(settings, names, "flights/0/0", look_back=10)
    with pytest.raises(BadInput, match="newest 0 served rows"):
        explain(settings, names, "e0", look_back=10)


def test_the_command_shows_all_of_it_and_as_json_for_programs(world):
    said = world.cli("data", "explain", "flights.py", "e900", "--output", "json").json
    assert (said["rerun"]["verdict"], said["served"]["version"]) == ("equal to the bit", 2)
    assert said["manifest"]["hyperparameters"] == {"epochs": 2}
    shown = world.cli("data", "explain", "flights.py", world.place(900)).out
    for part in ("distance", "equal to the bit", "epochs=2", "abc", "promoted", "serves here", "onnxruntime 1.0"):
        assert part in shown, part


def served_rows(pipeline, first, last, *, version=0, score=0.5, columns=None, partition=0):
    """A batch as a worker logs it, of events first … last - 1."""
    rows = last - first
    return served_batch(
        served_schema(pipeline.columns),
        ids=[f"e{n}" for n in range(first, last)],
        times=AT + 1_000 * np.arange(first, last),
        partition=partition,
        offsets=np.arange(first, last),
        version=version,
        scores=np.full(rows, score),
        columns=columns or {column.name: np.arange(first, last, dtype=np.float64) for column in pipeline.columns},
    )


def log(settings, names, *batches):
    """As a worker does, one record per batch."""
    records = []
    for batch in batches:
        for value, first, last in encode_served(batch):
            headers = [(FIRST_OFFSET_HEADER, str(first).encode()), (LAST_OFFSET_HEADER, str(last).encode())]
            records.append({"value": value, "headers": headers, "partition": batch.column("partition")[0].as_py()})
    produce(settings, names.topics.served, records)


def test_a_version_whose_artifact_was_tampered_with_is_explained_and_not_run(settings, tmp_path):
    apply(settings, PLAIN, 1)
    names, publisher = Names(settings.prefix, PLAIN), Publisher(settings, PLAIN)
    other = msgspec.structs.replace
    publisher.publish(
        linear([1.0]), change=lambda manifest: other(manifest, onnx=other(manifest.onnx, sha256="0" * 64))
    )
    produce(settings, names.events, [event(0) | {"partition": 0}])
    log(settings, names, served_rows(PLAIN, 0, 1, version=1))
    found = explain(settings, names, "e0", look_back=10)
    assert (found.served.score, found.manifest.version) == (0.5, 1)
    assert found.rerun.verdict == "not possible"
    assert "version 1 cannot be run again, its graph" in found.rerun.why_not
    with pytest.raises(RegistryRefused, match="version 1 cannot be run again, its graph"):
        rescore(settings, names, "1", since=0, until=None, out=Kept())
    (tmp_path / "plain.py").write_text(PLAIN_FILE)
    said = Cli(settings, tmp_path)("data", "explain", "plain.py", "e0", code=1)
    assert "0.5 by version 1" in said.out
    assert said.err.startswith("headrace: not run again: ")
    assert len(said.err.splitlines()) == 1


def test_a_version_that_answers_something_else_now_is_seen(settings, tmp_path):
    apply(settings, PLAIN, 1)
    names = Names(settings.prefix, PLAIN)
    Publisher(settings, PLAIN).publish(linear([0.0], bias=1.0))
    produce(settings, names.events, [event(0) | {"partition": 0}, event(1) | {"partition": 0}])
    answer = 1 / (1 + np.exp(-1.0))
    log(settings, names, served_rows(PLAIN, 0, 1, version=1), served_rows(PLAIN, 1, 2, version=1, score=answer))
    assert explain(settings, names, "e0", look_back=10).rerun.verdict == "different"
    close = explain(settings, names, "e1", look_back=10).rerun
    assert (close.verdict, close.tolerance) == ("equal within the tolerance", 1e-5)
    assert 0 < close.difference < 1e-7  # a float32's answer beside a float64's
    (tmp_path / "plain.py").write_text(PLAIN_FILE)
    assert Cli(settings, tmp_path)("data", "explain", "plain.py", "e0", "--output", "json", code=3).json["id"] == "e0"


def test_what_was_served_again_after_a_crash_is_found_by_bisection_wherever_offsets_fall_back(settings):
    apply(settings, PLAIN, 1)
    names, steps = Names(settings.prefix, PLAIN), [*range(0, 600, 3), *range(150, 900, 3), *range(879, 1_200, 3)]
    left_out = {n for n in range(1_200) if n % 3 == 2}  # dead letters: gaps within batches
    batches = [served_rows(PLAIN, n, n + 2) for n in steps]
    log(settings, names, *batches)
    with closing(Seeker(settings, names.topics.served)) as seeker:
        for wanted in (0, 1, 149, 150, 301, 598, 600, 735, 882, 883, 900, 1_198, 1_199):
            found = about(seeker, 0, wanted, offsets_of)
            assert all(first <= wanted <= last for first, last in map(offsets_of, found))
            assert bool(found) == (wanted not in left_out), wanted
        assert len(about(seeker, 0, 895, offsets_of)) == 2  # within 50 records of each other
        assert about(seeker, 0, 5_000, offsets_of) == []


def offsets_of(message):
    headers = dict(message.headers())
    return int(headers[FIRST_OFFSET_HEADER]), int(headers[LAST_OFFSET_HEADER])


def test_marks_of_transactions_between_the_records_hide_nothing(settings):
    once = dataclasses.replace(PLAIN, delivery="exactly_once")
    apply(settings, once, 2)
    names, facts, kept = Names(settings.prefix, once), Facts(), Kept()
    Publisher(settings, once).publish(linear([0.01]))
    with worker_of(settings, once, facts):
        for done in range(60, 301, 60):  # a transaction or more for each
            produce(settings, names.events, [event(n) for n in range(done - 60, done)])
            wait_for("predictions", lambda done=done: predicted(facts) == done)
    for number in (0, 1, 59, 60, 150, 299):
        found = explain(settings, names, f"flights/{number % 2}/{number // 2}", look_back=1)
        assert (found.id, found.rerun.verdict) == (f"e{number}", "equal to the bit")
        assert found.prediction["source"] == [names.events, number % 2, number // 2]
    done = rescore(settings, names, "champion", since=0, until=None, out=kept)
    assert (done.rows, done.same, len(kept.rows)) == (300, 300, 300)


# ── replay ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_range_of_event_time_is_scored_again_beside_what_was_served_each_event_once(world):
    since, until = AT + 1_000 * 300, AT + 1_000 * 900
    before = committed(world.settings, world.names.infer, world.names.events, 2)
    done, rows = world.rescore("1", since=since, until=until)
    assert (done.rows, done.version, done.served_by) == (599, 1, {0: 100, 1: 399, 2: 100})
    assert {row["id"] for row in rows} == {f"e{n}" for n in range(300, 900)} - {"e700"}
    for row in rows:
        answer = world.predictions[row["id"]]
        assert (row["served_version"], row["served_score"]) == (answer["version"], answer["prediction"])
        assert [world.names.events, row["partition"], row["offset"]] == answer["source"]
        assert row["replayed_version"] == 1
        if row["served_version"] == 1:
            assert row["replayed_score"] == row["served_score"]  # to the bit
    assert done.same == 399
    assert committed(world.settings, world.names.infer, world.names.events, 2) == before


@pytest.mark.parametrize(("wanted", "same"), [("0", 400), ("champion", 400), ("1", 399)])
def test_any_version_by_number_or_alias_scores_all_there_is(world, wanted, same):
    done, rows = world.rescore(wanted)
    assert (done.rows, len(rows), done.same) == (1_199, 1_199, same)


def test_a_version_that_is_not_there_and_a_range_without_rows_say_so(world):
    with pytest.raises(BadInput, match=r"expected one of 0, 1, 2.*, or champion; got 'canary'"):
        world.rescore("canary")
    with pytest.raises(BadInput, match="found none among"):
        world.rescore("1", since=AT + 10_000_000_000)


def test_rows_that_lack_what_a_version_needs_are_counted_by_the_column(settings):
    wider = dataclasses.replace(PLAIN, features=[Number("distance"), Number("humid")])
    apply(settings, PLAIN, 1)
    names, kept = Names(settings.prefix, PLAIN), Kept()
    Publisher(settings, wider).publish(linear([0.0, 1.0]))
    log(settings, names, served_rows(PLAIN, 0, 10))
    with pytest.raises(BadInput, match="version 1 needs humid, which was not logged when the 10 rows"):
        rescore(settings, names, "1", since=0, until=None, out=kept)
    log(settings, names, served_rows(wider, 10, 30), served_rows(wider, 20, 35))  # the second from after a crash
    done = rescore(settings, names, "1", since=0, until=None, out=kept)
    assert (done.rows, done.lacking_rows, done.lacking, done.repeated) == (25, 10, {"humid": 10}, 10)
    assert [row["offset"] for row in kept.rows] == list(range(10, 35))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_a_file_has_all_rows_or_is_not_there(world, tmp_path, name):
    place = tmp_path / name
    with FileTarget(str(place)) as out:
        rescore(world.settings, world.names, "2", since=0, until=None, out=out)
        assert not place.exists()
    rows = pq.read_table(place).to_pylist() if place.suffix == ".parquet" else read_lines(place)
    assert len(rows) == 1_199
    (row,) = [row for row in rows if row["id"] == "e900"]
    assert (row["served_version"], row["served_score"]) == (2, world.predictions["e900"]["prediction"])
    assert row["replayed_score"] == row["served_score"]
    with pytest.raises(BadInput, match="is there already"):
        FileTarget(str(place))
    with pytest.raises(BadInput), FileTarget(str(tmp_path / f"none-{name}")) as out:
        rescore(world.settings, world.names, "2", since=AT * 2, until=None, out=out)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def read_lines(place):
    return [msgspec.json.decode(line) for line in place.read_bytes().splitlines()]


def test_a_topic_gets_predictions_in_their_partitions_that_say_they_are_a_replay(world):
    with TopicTarget(world.settings, world.names, "flights-again") as out:
        rescore(world.settings, world.names, "1", since=0, until=None, out=out)
    records = read_all(world.settings, world.names.of("flights-again"))
    assert len(records) == 1_199
    for record in records:
        value, headers = msgspec.json.decode(record.value()), dict(record.headers())
        served = world.predictions[value["id"]]
        assert value == served | {key: value[key] for key in ("version", "prediction", "decision")}
        assert (value["version"], headers["headrace-version"]) == (1, b"1")
        assert (record.key(), record.partition()) == (value["id"].encode(), value["source"][1])
        assert float(headers["headrace-served-score"]) == served["prediction"]
        assert headers["headrace-served-version"] == str(served["version"]).encode()
        assert headers["headrace-replay"].startswith(b"20")


def test_topics_that_headrace_writes_or_reads_are_no_place_for_a_replay(world):
    for topic in ("flights", "arrivals", "delay.predictions", "delay.served", "other.predictions", "headrace.runs"):
        with pytest.raises(BadInput, match="expected a topic of your own"):
            TopicTarget(world.settings, world.names, topic)
    apply(world.settings, dataclasses.replace(PLAIN, events=Topic("narrow", id="id", time="at")), 1)
    with pytest.raises(BadInput, match="expected 2 partitions"):
        TopicTarget(world.settings, world.names, "narrow")


def test_the_replay_command_sums_up(world):
    said = world.cli("data", "replay", "flights.py", "--from", str(AT), "--version", "1", "--to-file", "a.parquet")
    assert "1,199" in said.out
    assert "399 with the same score to the bit" in said.out
    assert "one of the two" in world.cli.refused("data", "replay", "flights.py", "--from", str(AT), "--version", "1")
    twice = ("data", "replay", "flights.py", "--from", str(AT), "--version", "1", "--to-file", "a.parquet")
    assert "is there already" in world.cli.refused(*twice)


def test_memory_is_bounded_by_what_is_read_at_once_not_by_the_range(settings, tmp_path):
    images = dataclasses.replace(PLAIN, name="images", features=[Tensor("pixels", shape=[3, 64, 64])])
    apply(settings, images, 1)
    names, pixels = Names(settings.prefix, images), np.random.default_rng(1).random((100, 3, 64, 64), np.float32)
    for first in range(0, 6_000, 100):  # 295 MB
        log(settings, names, served_rows(images, first, first + 100, columns={"pixels": pixels}))
    process, most = psutil.Process(), 0

    def looked(_rows):
        nonlocal most
        most = max(most, process.memory_info().rss)

    def replay(until):
        nonlocal most
        most = 0
        out = tmp_path / f"{until}.parquet"
        with FileTarget(str(out)) as target:
            done = rescore(settings, names, "0", since=0, until=until, out=target, seen=looked)
        return done.rows, most

    few, most_of_few = replay(AT + 1_000 * 1_000)
    many, most_of_all = replay(AT + 1_000 * 6_000)
    assert (few, many) == (1_000, 6_000)
    assert most_of_all - most_of_few < 60 * 2**20
