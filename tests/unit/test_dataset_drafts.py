"""Served rows of one partition as files: how many there are, and in which order they are read."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.infra.dataset_files import _PartitionFiles
from headrace.models.features import Number
from headrace.streams.served import ON_DEMAND, served_batch, served_schema
from headrace.trainer.dataset import join, read_stream_files


def batch_of(names, first, rows, partition):
    columns = [column for name in names for column in Number(name).columns]
    return served_batch(
        served_schema(columns),
        ids=[f"e{n}" for n in range(first, first + rows)],
        times=np.arange(first, first + rows),
        partition=partition,
        offsets=np.arange(first, first + rows),
        version=1,
        scores=np.full(rows, 0.5),
        columns={column.name: np.arange(first, first + rows, dtype=np.float64) for column in columns},
    )


def joined(folder):
    batches = read_stream_files(folder, "served*.arrow")
    return join(batches, [], within_ms=1, if_absent=0.0, as_of_ms=10**6, window_ms=10**6)


@pytest.mark.parametrize("at_once", [1, 20])
def test_whatever_versions_are_asked_for_beside_the_stream_there_are_few_files_and_every_row_is_in_one(
    tmp_path, at_once
):
    given = []
    for number in range(100):
        given.append(batch_of("ab", 100 * number, 3, 0))
        given.append(batch_of(("ba", "abc")[number % 2], 100 * number + 50, 2, ON_DEMAND))
    for first in range(0, len(given), 200 // at_once):  # in one fetch, and in several
        part = _PartitionFiles(tmp_path, "served-00000", first)
        for number, batch in enumerate(given[first : first + 200 // at_once]):
            part.add(batch)
            if number % 7 == 0:
                part.flush()
                assert part.waiting_bytes == 0
        part.end = first + 200 // at_once
        part.close()
        part.keep()
    assert len(list(tmp_path.iterdir())) == 3 * at_once
    table = joined(tmp_path).table
    assert len(table) == 500
    assert table["a"].to_pylist() == table["offset"].to_pylist()
    assert sum(value is None for value in table["c"].to_pylist()) == 400


def test_more_schemas_than_files_may_be_open_lose_no_row(tmp_path):
    part = _PartitionFiles(tmp_path, "served-00000", 0)
    for number in range(60):
        part.add(batch_of([f"x{number % 20}"], number, 1, ON_DEMAND))
    part.close()
    part.keep()
    assert joined(tmp_path).table["offset"].to_pylist() == list(range(60))


def test_what_was_asked_of_another_declaration_decides_no_columns_type(tmp_path):
    part = _PartitionFiles(tmp_path, "served-00000", 0)
    part.add(batch_of("ab", 0, 3, 0))
    older = batch_of("ab", 10, 3, ON_DEMAND)
    at = older.schema.get_field_index("b")
    part.add(older.set_column(at, pa.field("b", pa.string()), pa.array(["x", "y", "z"])))
    part.close()
    part.keep()
    assert joined(tmp_path).table["b"].to_pylist() == [0.0, 1.0, 2.0, None, None, None]
