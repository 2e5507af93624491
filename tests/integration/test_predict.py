"""A file of events through the stream's decoding and features, and what a user who types the command sees of it."""

import json

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kit import linear
from test_swap import PIPELINE, Publisher

from headrace.infra.names import Names
from headrace.infra.rows import read_rows
from headrace.infra.services.predict import Predictor, RowPrediction, RowRejected
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
