"""Rows that were asked for on demand: where they lie is who they are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.names import Names
from headrace.infra.services.data.explain import explain
from headrace.infra.settings import Settings
from headrace.models.draw import sources_of
from headrace.models.errors import BadInput
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.streams.served import (
    ON_DEMAND,
    decode_served,
    encode_on_demand,
    on_demand_place,
    record_of,
    served_batch,
    served_rows,
    served_schema,
)


class Record:
    def __init__(self, value, partition=3, offset=1_000):
        self._value, self._partition, self._offset = value, partition, offset

    def value(self):
        return self._value

    def partition(self):
        return self._partition

    def offset(self):
        return self._offset


def batch_of(rows, partition=ON_DEMAND):
    return served_batch(
        served_schema(()),
        ids=[f"e{n}" for n in range(rows)],
        times=np.arange(rows),
        partition=partition,
        offsets=np.zeros(rows, np.int64) if partition < 0 else np.arange(rows) + 70,
        version=1,
        scores=np.zeros(rows),
        columns={},
    )


@given(st.integers(0, 60_000), st.integers(0, 2**34 - 1), st.integers(0, 8_191))
def test_a_place_says_which_record_and_row_it_is_and_sorts_before_every_event(partition, offset, row):
    place = on_demand_place(partition, offset, row)
    assert record_of(*place) == (partition, offset, row)
    source = int(sources_of(np.array([place[0]]), np.array([place[1]]))[0])
    assert source == place[0] * 2**47 + place[1] < 0  # neither its partition nor its offset runs into the other


def test_no_two_rows_of_a_topic_share_a_place():
    values = [value for value, _ in encode_on_demand(batch_of(20_000))]
    assert len(values) == 3
    records = [Record(value, p, offset) for p in range(2) for offset, value in enumerate(values)]
    rows = pa.Table.from_batches([served_rows(record) for record in records])
    sources = sources_of(rows["partition"].to_numpy().astype(np.int64), rows["offset"].to_numpy())
    assert len(np.unique(sources)) == 40_000
    assert rows["id"].to_pylist() == [f"e{n}" for n in range(20_000)] * 2


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_of_the_stream_keep_the_places_of_their_events(rows):
    batch = batch_of(rows, partition=2)
    value = b"".join([batch.schema.serialize(), batch.serialize(), b"\xff\xff\xff\xff\x00\x00\x00\x00"])
    assert served_rows(Record(value)) == decode_served(value) == batch


def test_a_row_that_no_record_can_have_is_refused_and_not_looked_for_in_the_next_record():
    pipeline = Pipeline(
        name="delay",
        events=Topic("flights", id="id", time="at"),
        features=[Number("distance")],
        label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    )
    with pytest.raises(BadInput, match="a row from 0 to 8,191"):
        explain(Settings(), Names("", pipeline), "delay.served/0/5/8192", look_back=1)
