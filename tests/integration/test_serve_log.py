"""`headrace serve --log-served`: what was answered on demand is on the served topic, joined, learnt from, explained."""

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from kit import Facts, linear, produce, read_all, wait_for
from test_cli import Cli
from test_explain_replay import Kept
from test_leader import HOUR, NOON, ask, finished, leading
from test_serve import infer_body, server_of
from test_source import worker_of
from test_swap import PIPELINE, Publisher

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.kafka import admin
from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.serve.limits import Limits
from headrace.infra.served_log import served_with
from headrace.infra.services.compare.diff_rows import once, together
from headrace.infra.services.data.explain import explain
from headrace.infra.services.scores.rescore import rescore
from headrace.infra.services.scores.rescore_topic import TopicTarget
from headrace.infra.topics import apply
from headrace.models.durations import iso
from headrace.models.errors import BadInput, BrokerUnavailable
from headrace.models.facts import Predicted, RowsLogged, RowsNotLogged, RunEnded, Swapped
from headrace.models.features import Tensor, Topic
from headrace.models.records import FIRST_OFFSET_HEADER, ON_DEMAND_HEADER
from headrace.streams.served import served_rows
from headrace.trainer.dataset import join, read_stream_files

PATH = "/v1/pipelines/delay/predict"
FILE = """
from headrace import Binary, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)
"""


def event(number, **more):
    return {"id": f"e{number}", "at": iso(NOON + 1_000 * number), "distance": number / 100, "wind": number % 7} | more


def label(number, late=True):
    return {"value": msgspec.json.encode({"id": f"e{number}", "at": NOON + 1_000 * number + 5, "late": late})}


def rows_of(settings, names):
    """With their places."""
    return [row for message in read_all(settings, names.topics.served) for row in served_rows(message).to_pylist()]


def logged(facts):
    return sum(fact.rows for fact in facts.of(RowsLogged))


@pytest.fixture
def publisher(settings):
    apply(settings, PIPELINE, 2)
    return Publisher(settings)


@pytest.fixture
def names(settings):
    return Names(settings.prefix, PIPELINE)


def test_what_is_logged_is_what_was_answered_each_row_at_a_place_of_its_own(settings, publisher, names):
    publisher.publish(linear([0.5, -0.25]))
    answers, facts = [], Facts()
    for first in (0, 50):  # a server, and the one that is started after it
        with (
            server_of(settings, PIPELINE, facts=facts, log_served=True) as (_, client),
            server_of(settings, PIPELINE, facts=facts, log_served=True) as (_, other),
        ):
            wait_for("the version", lambda: client.get("/v2/models/delay/versions/1/ready")[0] == 200)
            for number in range(first, first + 20):
                status, answer = (client if number % 2 else other).post(PATH, event(number))
                assert status == 200
                answers.append(answer)
            some = [event(n) for n in range(first + 20, first + 50)]
            some[7], some[29] = {"id": "rubbish"}, event(1, at="2999-01-01T00:00:00Z")
            answers += [one for one in client.post(f"{PATH}?version=0", some)[1] if "error" not in one]
            assert client.post(PATH, {"id": "rubbish"})[0] == 422
            assert client.post("/v2/models/delay/infer", infer_body([1.0, 2.0]))[0] == 200  # it has no id
    rows = rows_of(settings, names)
    assert len(rows) == logged(facts) == len(answers) == 96
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == 96
    for answer in answers:
        row, number = by_id[answer["id"]], int(answer["id"][1:])
        assert (row["score"], row["version"]) == (answer["prediction"], answer["version"])
        assert (row["distance"], row["wind"]) == (number / 100, number % 7)
        assert iso(round(row["event_time"].timestamp() * 1000)) == answer["event_time"]
    assert {row["version"] for row in rows} == {0, 1}
    assert len({(row["partition"], row["offset"]) for row in rows}) == 96
    assert max(row["partition"] for row in rows) < 0
    for message in read_all(settings, names.topics.served):
        headers = dict(message.headers())
        assert int(headers[ON_DEMAND_HEADER]) == served_rows(message).num_rows
        assert len({row["version"] for row in served_rows(message).to_pylist()}) == 1


def test_nothing_is_logged_where_that_is_not_asked_for(settings, publisher, names):
    with server_of(settings, PIPELINE) as (_, client):
        assert client.post(PATH, event(0))[0] == 200
    assert read_all(settings, names.topics.served) == []


def test_labels_join_them_in_live_metrics_and_datasets_and_what_the_stream_served_too_counts_once(
    settings, publisher, names, tmp_path
):
    facts, live = Facts(), LiveLabels(settings, names, Facts())
    with server_of(settings, PIPELINE, facts=facts, log_served=True) as (_, client):
        assert client.post(PATH, [event(n) for n in range(60)])[0] == 200
        assert client.post(PATH, event(3))[0] == 200  # again
        wait_for("the log", lambda: logged(facts) == 61)
        with worker_of(settings, PIPELINE, facts):
            on_topic = [{"value": msgspec.json.encode(event(n)), "partition": n % 2} for n in range(40, 100)]
            produce(settings, names.events, on_topic)
            wait_for("predictions", lambda: sum(fact.rows for fact in facts.of(Predicted)) == 60)
        assert client.post(PATH, event(70))[0] == 200  # after the stream
    produce(settings, names.labels, [label(n, late=n % 2 == 0) for n in range(100)])
    assert live.now().new_labels == 100
    assert live.join.counts["joined"] == 100
    assert live.join.asked_again == 22
    again = LiveLabels(settings, names, Facts())  # the next leader, from the log
    assert again.now().new_labels == 100
    for one in (live, again):
        one.close()
    files = DatasetFiles(settings, names, tmp_path / "dataset")
    files.fetch()
    joined = join(
        read_stream_files(files.folder, "served*.arrow"),
        read_stream_files(files.folder, "labels*.arrow"),
        within_ms=HOUR,
        if_absent="drop",
        as_of_ms=NOON + HOUR,
        window_ms=100 * HOUR,
    )
    found = joined.table.to_pylist()
    assert {row["id"]: row["label"] for row in found} == {f"e{n}": float(n % 2 == 0) for n in range(100)}
    assert {row["id"] for row in found if row["partition"] < 0} == {f"e{n}" for n in range(40)}
    assert (len(found), joined.counts.asked_again, joined.counts.same_id) == (100, 22, 0)
    table = together(pa.Table.from_batches([served_rows(m)]) for m in read_all(settings, names.topics.served))
    assert len(table) == 122
    assert sorted(once(table)["id"].to_pylist()) == sorted(f"e{n}" for n in range(100))


def test_a_training_learns_from_them(settings, publisher, names, tmp_path):
    facts, random = Facts(), np.random.default_rng(3)
    distances = random.normal(0, 1, 400)
    asked = [event(n, at=iso(NOON + n * HOUR), distance=float(distances[n]), wind=0.0) for n in range(400)]
    with server_of(settings, PIPELINE, facts=facts, log_served=True) as (_, client):
        assert client.post(PATH, asked)[0] == 200
    assert logged(facts) == 400
    labels = [
        {"value": msgspec.json.encode({"id": f"e{n}", "at": NOON + n * HOUR + 5, "late": bool(late)})}
        for n, late in enumerate(distances + random.normal(0, 0.3, 400) > 0)
    ]
    produce(settings, names.labels, labels)
    (tmp_path / "mood").write_text("good")
    with leading(settings, tmp_path, facts):
        ask(settings, "a", NOON + 401 * HOUR, on_demand=True)
        ended = facts.wait(RunEnded, seconds=120)
    assert ended.outcome == "promoted", ended
    (run,) = finished(settings)
    assert (run.version, run.rows + run.holdout_rows) == (1, 400)


def test_one_is_explained_by_its_id_and_by_its_place(settings, publisher, names, tmp_path):
    publisher.publish(linear([0.5, -0.25]))
    facts = Facts()
    with server_of(settings, PIPELINE, facts=facts, log_served=True) as (_, client):
        facts.wait(Swapped)
        (answer, *_) = client.post(PATH, [event(n) for n in range(7, 30)])[1]
    found = explain(settings, names, "e7", look_back=1_000)
    assert (found.id, found.served.score, found.served.version) == ("e7", answer["prediction"], 1)
    assert found.served.features == {"distance": 0.07, "wind": 0.0}
    assert (found.event, found.no_event) == (None, "asked for on demand: it is on no topic")
    assert found.rerun.verdict == "equal to the bit"
    assert [one.seq for one in found.promotions] == [2]
    last = explain(settings, names, "e29", look_back=1_000)
    assert last.source.startswith(f"{names.topics.served}/")
    assert explain(settings, names, last.source, look_back=1).id == "e29"
    for nowhere in (last.source[:-2] + "999", f"{names.topics.served}/0/77/0"):
        with pytest.raises(BadInput, match="expected a row that was asked for on demand"):
            explain(settings, names, nowhere, look_back=1)
    (tmp_path / "delay.py").write_text(FILE)
    said = Cli(settings, tmp_path)("data", "explain", "delay.py", "e7").out
    for part in ("answered on demand", "asked for on demand", "equal to the bit"):
        assert part in said


def test_between_them_rows_of_the_stream_are_found_as_before(settings, publisher, names):
    facts = Facts()
    with (
        server_of(settings, PIPELINE, facts=facts, log_served=True) as (_, client),
        worker_of(settings, PIPELINE, facts),
    ):
        for done in range(5, 61, 5):
            some = range(done - 5, done)
            produce(settings, names.events, [{"value": msgspec.json.encode(event(n)), "partition": 0} for n in some])
            assert client.post(PATH, [event(1_000 + n) for n in some])[0] == 200
            wait_for("the rows", lambda done=done: logged(facts) == done)
        wait_for("predictions", lambda: sum(fact.rows for fact in facts.of(Predicted)) == 60)
    kinds = [FIRST_OFFSET_HEADER in dict(m.headers()) for m in read_all(settings, names.topics.served)]
    assert 12 <= len(kinds) - sum(kinds) <= 60
    for number in range(0, 60, 7):
        (batch,) = served_with(settings, names.topics.served, 0, number)
        assert batch.rows.column("id")[batch.row(number)].as_py() == f"e{number}"
        assert explain(settings, names, f"flights/0/{number}", look_back=1).id == f"e{number}"
    assert served_with(settings, names.topics.served, 0, 60) == []


def test_a_replay_of_the_past_has_them_too(settings, publisher, names):
    with server_of(settings, PIPELINE, log_served=True) as (_, client):
        for first in (0, 30):
            assert client.post(PATH, [event(n) for n in range(first, first + 30)])[0] == 200
    publisher.publish(linear([0.5, -0.25]))
    kept = Kept()
    done = rescore(settings, names, "1", since=0, until=None, out=kept)
    assert (done.rows, done.repeated, len({row["id"] for row in kept.rows})) == (60, 0, 60)
    with TopicTarget(settings, names, "again") as out:
        rescore(settings, names, "1", since=0, until=None, out=out)
    found = [msgspec.json.decode(message.value()) for message in read_all(settings, names.of("again"))]
    assert {one["source"][0] for one in found} == {names.topics.served}
    assert len({tuple(one["source"]) for one in found}) == 60


def test_rows_beyond_what_may_be_held_are_answered_and_counted_as_lost(settings, publisher, names):
    facts = Facts()
    with server_of(settings, PIPELINE, facts=facts, log_served=True, limits=Limits(logged_bytes=10_000)) as (_, client):
        assert client.post(PATH, [event(n) for n in range(1_000)])[0] == 200
        assert client.post(PATH, event(1))[0] == 200
        facts.wait(RowsNotLogged)
        wait_for("the other", lambda: logged(facts) == 1)
    (lost,) = facts.of(RowsNotLogged)
    assert (lost.rows, lost.reason) == (1_000, "too_many")
    assert [row["id"] for row in rows_of(settings, names)] == ["e1"]


def test_rows_that_the_broker_refuses_are_counted_as_lost_and_make_room_for_others(settings, publisher, names):
    facts, client_of_broker = Facts(), admin(settings)
    with server_of(settings, PIPELINE, facts=facts, log_served=True, limits=Limits(logged_bytes=100_000)) as (
        _,
        client,
    ):
        for most in (100, 1_000_000):
            entry = ConfigEntry("max.message.bytes", str(most), incremental_operation=AlterConfigOpType.SET)
            place = ConfigResource(ResourceType.TOPIC, names.topics.served, incremental_configs=[entry])
            client_of_broker.incremental_alter_configs([place])[place].result(30)
            if most == 100:
                for number in range(5):
                    assert client.post(PATH, [event(n) for n in range(1_000)])[0] == 200
                    wait_for("a refusal", lambda number=number: len(facts.of(RowsNotLogged)) == number + 1)
        assert client.post(PATH, event(7))[0] == 200
        wait_for("the log", lambda: logged(facts) == 1)
    assert {(fact.rows, fact.reason) for fact in facts.of(RowsNotLogged)} == {(1_000, "undelivered")}


def test_large_rows_are_split_and_each_part_has_its_own_places(settings):
    pipeline = replace(PIPELINE, features=[Tensor("pixels", shape=[1_000])])
    apply(settings, pipeline)
    pixels = np.arange(1_000, dtype=np.float32).tolist()
    with server_of(settings, pipeline, log_served=True) as (_, client):
        assert client.post(PATH, [event(n, pixels=pixels) for n in range(600)])[0] == 200
    names = Names(settings.prefix, pipeline)
    found = read_all(settings, names.topics.served)
    assert len(found) > 3
    assert max(len(message.value()) for message in found) < 600_000
    rows = [row for message in found for row in served_rows(message).to_pylist()]
    assert {row["id"] for row in rows} == {f"e{n}" for n in range(600)}
    assert len({(row["partition"], row["offset"]) for row in rows}) == 600


def test_a_served_topic_that_is_not_there_is_said_before_anything_is_answered(settings, topic):
    for name in ("headrace.registry", "headrace.artifacts"):
        topic(name)
    pipeline = replace(PIPELINE, name="other", events=Topic("others", id="id", time="at"))
    topic("others")
    with (
        pytest.raises(BrokerUnavailable, match=r"other\.served"),
        server_of(settings, pipeline, log_served=True),
    ):
        pass
