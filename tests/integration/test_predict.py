"""A file of events through the stream's decoding and features, and what a user who types the command sees of it."""

import json

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kit import linear, read_all
from test_swap import PIPELINE, Publisher

from headrace.infra.names import Names
from headrace.infra.rows import read_rows
from headrace.infra.services.scores import predict_targets as targets
from headrace.infra.services.scores.predict import Predictor, RowPrediction, RowRejected
from headrace.infra.topics import apply
from headrace.models.errors import BadInput

GOOD = {"id": "a", "at": "2013-07-04T11:00:00Z", "distance": 1.0, "wind": 2.0}


@pytest.fixture
def names(settings):
    apply(settings, PIPELINE)
    publisher = Publisher(settings)
    publisher.publish(linear([1.0, 0.0]))
    publisher.publish(linear([0.0, 1.0]))
    return Names(settings.prefix, PIPELINE)


def lines(*rows):
    return [row if isinstance(row, bytes) else msgspec.json.encode(row) for row in rows]


def test_rows_are_scored_by_the_champion_or_by_the_version_that_is_named(settings, names):
    def answer(version):
        (found,) = Predictor(settings, names, version).predict(lines(GOOD))
        return found

    assert answer("champion") == RowPrediction(
        row=1,
        id="a",
        prediction=pytest.approx(0.8807971),
        decision=True,
        pipeline="delay",
        version=2,
        event_time="2013-07-04T11:00:00Z",
    )
    assert (answer("1").prediction, answer("0").prediction) == (pytest.approx(0.7310586), 0.25)
    with pytest.raises(BadInput, match="expected one of 0, 1, 2, or champion; got '7'"):
        answer("7")


def test_bad_rows_are_lines_of_their_own_in_their_places_and_many_rows_come_out_in_order(settings, names):
    rows = lines(*[GOOD | {"id": f"e{number}"} for number in range(2_500)])
    rows[1_200:1_200] = [b"rubbish", msgspec.json.encode({"id": "x"}), b"", b"\xff"]
    predictor = Predictor(settings, names)
    found = list(predictor.predict(rows))
    assert [one.row for one in found] == list(range(1, 2_505))
    assert [one.reason for one in found if isinstance(one, RowRejected)] == [
        "not_json",
        "wrong_shape",
        "empty",
        "not_utf8",
    ]
    assert [one.id for one in found if isinstance(one, RowPrediction)] == [f"e{number}" for number in range(2_500)]


def test_parquet_and_json_lines_say_the_same(settings, names, tmp_path):
    table = pa.table({name: [value] * 3 for name, value in GOOD.items()})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(GOOD)] * 3))
    predictor = Predictor(settings, names)
    one, other = (
        list(predictor.predict(read_rows(tmp_path / name, strict=False))) for name in ("rows.parquet", "rows.jsonl")
    )
    assert one == other
    assert len(one) == 3


def test_nothing_is_written_to_any_topic(settings, names):
    from headrace.infra.topic_reader import TopicReader

    topics = names.topics
    reader = TopicReader(settings, [topics.predictions, topics.served, topics.dead_letters, topics.history], once=True)
    before = reader.ends()
    list(Predictor(settings, names).predict(lines(GOOD, b"rubbish")))
    assert reader.ends() == before
    reader.close()


def test_predictions_go_to_json_lines_or_parquet_by_path_or_url_whole_or_not_at_all(settings, names, tmp_path):
    rows = lines(GOOD, b"rubbish", GOOD | {"id": "b"})
    for place in (f"{tmp_path}/out.jsonl", f"file://{tmp_path}/out.parquet"):
        targets.expect_new_file(place)
        targets.to_file(Predictor(settings, names).predict(rows), place)
        with pytest.raises(BadInput, match="is there already"):
            targets.expect_new_file(place)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [one.get("reason") for one in written] == [one["reason"] for one in table] == [None, "not_json", None]
    assert [one.get("prediction") for one in written] == [one["prediction"] for one in table]
    assert table[0]["event_time"].isoformat() == "2013-07-04T11:00:00+00:00"
    with pytest.raises(BadInput, match=r"ends in \.jsonl or \.parquet"):
        targets.expect_new_file("out.csv")
    with pytest.raises(BadInput, match="fsspec can open"):
        targets.expect_new_file("nowhere://out.parquet")

    def broken():
        yield from Predictor(settings, names).predict(rows)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        targets.to_file(broken(), f"{tmp_path}/half.parquet")
    assert sorted(one.name for one in tmp_path.glob("*.*")) == ["out.jsonl", "out.parquet"]


def test_predictions_go_to_a_topic_of_the_users_and_to_no_other(settings, names):
    answers = Predictor(settings, names).predict(lines(GOOD, b"rubbish", GOOD | {"id": "b"}))
    (bad,) = targets.to_topic(answers, settings, names, "by-hand", "rows.jsonl")
    assert (bad.row, bad.reason) == (2, "not_json")
    found = [msgspec.json.decode(message.value()) for message in read_all(settings, settings.prefixed("by-hand"))]
    assert [(one["id"], one["source"], one["version"]) for one in found] == [
        ("a", ["rows.jsonl", 0, 0], 2),
        ("b", ["rows.jsonl", 0, 2], 2),
    ]
    with pytest.raises(BadInput, match="--to: expected a topic of your own"):
        list(targets.to_topic([], settings, names, "delay.predictions", "rows.jsonl"))


def test_rows_are_read_from_a_url(settings, names, tmp_path):
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "rows.parquet")
    (found,) = Predictor(settings, names).predict(read_rows(f"file://{tmp_path}/rows.parquet"))
    assert found.id == "a"
