"""Which served rows are trained on, and with which label."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.protocols import Dataset
from headrace.models.schema import Schema
from headrace.models.windows import Last
from headrace.trainer.dataset import join, read_stream_files, to_columns, to_dataset
from headrace.trainer.snapshot import dataset_sha256, snapshot
from headrace.trainer.split import split

HOUR = 3_600_000
NOON = int(datetime(2013, 7, 4, 12, tzinfo=UTC).timestamp() * 1000)


def served(*rows, **features):
    """Rows are (id, hours since noon, partition, offset); features are Arrow arrays."""
    ids, hours, partitions, offsets = zip(*rows, strict=True)
    columns = {
        "id": pa.array(ids, pa.string()),
        "event_time": pa.array([NOON + int(hour * HOUR) for hour in hours], pa.timestamp("ms", "UTC")),
        "partition": pa.array(partitions, pa.int32()),
        "offset": pa.array(offsets, pa.int64()),
        "version": pa.array([0] * len(rows), pa.int32()),
        "score": pa.array([0.5] * len(rows), pa.float64()),
    }
    return pa.RecordBatch.from_pydict(columns | features)


def labels(*rows):
    ids, hours, values = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array(ids, pa.string()),
            "time": pa.array([NOON + int(hour * HOUR) for hour in hours], pa.int64()),
            "value": pa.array(values, pa.float64()),
        }
    )


def joined(rows, answers, *, within=10, if_absent="drop", as_of=24, window=48):
    return join(
        rows if isinstance(rows, list) else [rows],
        answers if isinstance(answers, list) else [answers],
        within_ms=within * HOUR,
        if_absent=if_absent,
        as_of_ms=NOON + as_of * HOUR,
        window_ms=window * HOUR,
    )


def pairs(result):
    return list(zip(result.table["id"].to_pylist(), result.table["label"].to_pylist(), strict=True))


def test_a_label_joins_the_row_of_its_id():
    result = joined(served(("a", 0, 0, 0), ("b", 1, 0, 1)), labels(("b", 2, 1.0), ("a", 3, 0.0)))
    assert pairs(result) == [("a", 0.0), ("b", 1.0)]
    assert (result.counts.rows, result.counts.joined) == (2, 2)


def test_of_several_labels_the_earliest_wins_whatever_the_order_of_arrival():
    result = joined(served(("a", 0, 0, 0)), labels(("a", 5, 3.0), ("a", 2, 1.0), ("a", 4, 2.0)))
    assert pairs(result) == [("a", 1.0)]
    assert result.counts.labels_repeated == 2


def test_of_two_labels_at_one_time_the_same_one_wins_in_any_order():
    one, other = labels(("a", 2, 1.0)), labels(("a", 2, 0.0))
    assert pairs(joined(served(("a", 0, 0, 0)), [one, other])) == pairs(joined(served(("a", 0, 0, 0)), [other, one]))


def test_a_label_at_the_events_own_time_and_one_at_the_end_of_the_horizon_count():
    result = joined(served(("a", 0, 0, 0), ("b", 0, 0, 1)), labels(("a", 0, 1.0), ("b", 10, 1.0)))
    assert pairs(result) == [("a", 1.0), ("b", 1.0)]


def test_labels_after_the_horizon_and_before_the_event_are_counted_and_not_used():
    result = joined(served(("a", 0, 0, 0), ("b", 5, 0, 1)), labels(("a", 11, 1.0), ("b", 4, 1.0)))
    assert pairs(result) == []
    assert (result.counts.labels_late, result.counts.labels_early, result.counts.never_came) == (1, 1, 2)


def test_a_label_before_the_event_does_not_hide_the_one_after_it():
    assert pairs(joined(served(("a", 1, 0, 0)), labels(("a", 0, 0.0), ("a", 2, 1.0)))) == [("a", 1.0)]


def test_labels_of_unknown_ids_are_counted():
    result = joined(served(("a", 0, 0, 0)), labels(("z", 1, 1.0), ("a", 1, 0.0)))
    assert (result.counts.labels_unknown, result.counts.joined) == (1, 1)


def test_labels_newer_than_the_tick_are_not_seen():
    result = joined(served(("a", 0, 0, 0)), labels(("a", 5, 1.0)), as_of=4)
    assert pairs(result) == []
    assert (result.counts.labels_unseen, result.counts.open) == (1, 1)


def test_rows_newer_than_the_tick_or_older_than_the_window_are_not_used_and_their_labels_are_not_unknown():
    rows = served(("old", -30, 0, 0), ("a", 0, 0, 1), ("new", 30, 0, 2))
    result = joined(rows, labels(("old", -29, 1.0), ("a", 1, 1.0), ("new", 31, 1.0)), as_of=24, window=48)
    assert pairs(result) == [("a", 1.0)]
    assert (result.counts.rows, result.counts.labels_unknown) == (1, 0)


def test_an_event_that_was_served_twice_is_one_row_the_first_one():
    rows = served(("a", 0, 0, 7), ("b", 0, 0, 8), ("a", 0, 0, 7), ("a", 0, 1, 7), x=pa.array([1.0, 2.0, 3.0, 4.0]))
    result = joined(rows, labels(("a", 1, 1.0), ("b", 1, 0.0)))
    assert result.table["x"].to_pylist() == [1.0, 2.0, 4.0]  # partition 1 has an offset 7 of its own
    assert result.counts.duplicates == 1


def test_what_was_asked_for_on_demand_and_streamed_counts_as_it_was_first_by_event_time_else_as_streamed():
    """Partitions below 0 are of what was asked for; the order of reading says nothing."""
    asked = served(("a", 0, -1, 9), ("b", 0, -2, 4), ("c", 1, -1, 7), ("c", 0, -2, 3), ("c", 0, -1, 8), ("d", 0, -1, 1))
    streamed = served(("a", 0, 0, 0), ("a", 1, 0, 5), ("d", 1, 3, 1), ("d", 2, 3, 2))
    answers = labels(*((name, 3, 1.0) for name in "abcd"))
    for batches in ([asked, streamed], [streamed, asked], [asked, streamed, asked]):
        result = joined(batches, answers)
        found = result.table.select(["id", "partition", "offset"]).to_pylist()
        places = [("c", -2, 3), ("b", -2, 4), ("d", -1, 1), ("a", 0, 0), ("a", 0, 5)]
        assert [tuple(row.values()) for row in found] == places
        assert (result.counts.rows, result.counts.asked_again, result.counts.same_id) == (5, 5, 1)
        assert result.counts.duplicates == 6 * (len(batches) - 2)


def test_without_a_value_for_silence_a_row_is_usable_as_soon_as_its_label_came():
    result = joined(served(("a", 20, 0, 0), ("b", 20, 0, 1)), labels(("a", 21, 1.0)), if_absent="drop")
    assert pairs(result) == [("a", 1.0)]
    assert (result.counts.open, result.counts.never_came) == (1, 0)


def test_where_silence_is_a_value_only_closed_horizons_are_used_never_a_mix():
    rows = served(("silent", 0, 0, 0), ("click", 1, 0, 1), ("open", 20, 0, 2), ("open click", 20, 0, 3))
    result = joined(rows, labels(("click", 2, 1.0), ("open click", 21, 1.0)), if_absent=0.0)
    assert pairs(result) == [("silent", 0.0), ("click", 1.0)]
    counts = result.counts
    assert (counts.joined, counts.filled, counts.open, counts.held_back) == (1, 1, 1, 1)


def test_a_horizon_closes_exactly_at_its_end():
    assert pairs(joined(served(("a", 0, 0, 0)), labels(), if_absent=0, as_of=10)) == [("a", 0.0)]
    assert pairs(joined(served(("a", 0, 0, 0)), labels(), if_absent=0, as_of=9)) == []


def test_the_order_is_event_time_partition_offset_in_whatever_order_rows_were_read():
    first, second = served(("c", 1, 0, 9), ("b", 0, 1, 3)), served(("d", 1, 1, 4), ("a", 0, 0, 8))
    answers = labels(*((name, 2, 1.0) for name in "abcd"))
    forward, backward = joined([first, second], answers), joined([second, first], answers)
    assert [name for name, _ in pairs(forward)] == ["a", "b", "c", "d"]
    assert dataset_sha256(forward) == dataset_sha256(backward)


def test_a_column_that_older_rows_lack_is_missing_there_and_the_rows_are_counted():
    old = served(("a", 0, 0, 0), ("b", 0, 0, 1), x=pa.array([1.0, 2.0]))
    new = served(("c", 1, 0, 2), x=pa.array([3.0]), tail=pa.array(["N1"]), wind=pa.array([7.0]))
    result = joined([old, new], labels(("a", 2, 1.0), ("b", 2, 1.0), ("c", 2, 0.0)))
    assert result.lacking == {"tail": 2, "wind": 2}
    schema = Schema((Column("wind", "number"), Column("tail", "category", nullable=True), Column("x", "number")))
    dataset = to_dataset(result, schema, "binary")
    assert np.isnan(dataset.columns["wind"]).tolist() == [True, True, False]
    assert dataset.columns["tail"].tolist() == [None, None, "N1"]
    assert dataset.columns["x"].tolist() == [1.0, 2.0, 3.0]


def test_a_required_category_that_older_rows_lack_is_the_empty_string_which_the_graph_takes():
    result = joined(served(("a", 0, 0, 0)), labels(("a", 1, 1.0)))
    assert to_columns(result.table, Schema((Column("tail", "category"),)))["tail"].tolist() == [""]


def test_a_column_that_changed_its_type_keeps_the_newest_and_counts_the_older_rows():
    old, new = served(("a", 0, 0, 0), gate=pa.array([12.0])), served(("b", 1, 0, 1), gate=pa.array(["B12"]))
    result = joined([old, new], labels(("a", 2, 1.0), ("b", 2, 1.0)))
    assert result.table["gate"].to_pylist() == [None, "B12"]
    assert result.lacking == {"gate": 1}
    assert np.isnan(to_columns(result.table, Schema((Column("gate", "number"),)))["gate"]).all()


def test_tensors_come_back_in_their_shape():
    flat = pa.array([[1, 2, 3, 4], [5, 6, 7, 8]], pa.list_(pa.float32(), 4))
    result = joined(served(("a", 0, 0, 0), ("b", 1, 0, 1), image=flat), labels(("a", 2, 1.0), ("b", 2, 1.0)))
    image = to_columns(result.table.slice(1), Schema((Column("image", "tensor", shape=(2, 2)),)))["image"]
    assert image.dtype == np.float32
    assert image.tolist() == [[[5, 6], [7, 8]]]


def test_the_hash_knows_values_nulls_and_labels_and_ignores_who_served():
    rows = [("a", 0, 0, 0), ("b", 1, 0, 1)]
    base = dataset_sha256(joined(served(*rows, x=pa.array([1.0, None])), labels(("a", 2, 1.0), ("b", 2, 1.0))))
    zero = dataset_sha256(joined(served(*rows, x=pa.array([1.0, 0.0])), labels(("a", 2, 1.0), ("b", 2, 1.0))))
    label = dataset_sha256(joined(served(*rows, x=pa.array([1.0, None])), labels(("a", 2, 1.0), ("b", 2, 0.0))))
    assert len({base, zero, label}) == 3
    batch = served(*rows, x=pa.array([1.0, None]))
    other = batch.set_column(batch.schema.get_field_index("version"), "version", pa.array([9, 9], pa.int32()))
    assert dataset_sha256(joined(other, labels(("a", 2, 1.0), ("b", 2, 1.0)))) == base


def test_a_snapshot_is_named_by_its_content_and_written_once(tmp_path):
    result = joined(served(("a", 0, 0, 0), x=pa.array(["é"])), labels(("a", 1, 1.0)))
    path = snapshot(result, tmp_path)
    assert path.stem == dataset_sha256(result)[:32]
    assert snapshot(result, tmp_path) == path
    assert pq.read_table(path).equals(result.table)
    assert list(tmp_path.iterdir()) == [path]


def test_stream_files_of_different_schemas_are_read_in_order_of_their_names(tmp_path):
    for name, batch in {
        "served-1.arrow": served(("b", 1, 0, 1), x=pa.array([1.0])),
        "served-0.arrow": served(("a", 0, 0, 0)),
    }.items():
        with pa.ipc.new_stream(tmp_path / name, batch.schema) as stream:
            stream.write_batch(batch)
    assert [batch["id"].to_pylist() for batch in read_stream_files(tmp_path, "served*.arrow")] == [["a"], ["b"]]


def test_no_served_rows_at_all_is_a_failed_run_and_no_labels_at_all_is_an_empty_dataset():
    with pytest.raises(RunFailed, match="no_rows"):
        join([], [], within_ms=1, if_absent="drop", as_of_ms=NOON, window_ms=1)
    result = join([served(("a", 0, 0, 0))], [], within_ms=1, if_absent="drop", as_of_ms=NOON, window_ms=HOUR)
    assert (result.table.num_rows, result.counts.open) == (0, 1)


def test_the_join_agrees_with_one_written_row_by_row():
    random = np.random.default_rng(3)
    rows = [(f"id{random.integers(60)}", int(random.integers(-30, 30)), 0, offset) for offset in range(300)]
    answers = [(f"id{random.integers(70)}", int(random.integers(-30, 30)), float(i)) for i in range(300)]
    for if_absent in ("drop", 0.5):
        expected = []
        for name, hour, _, offset in sorted(rows, key=lambda row: (row[1], row[3])):
            mine = [(at, value) for who, at, value in answers if who == name and hour <= at <= hour + 10 and at <= 20]
            closed = hour + 10 <= 20
            if -28 <= hour <= 20 and (closed if if_absent != "drop" else mine):
                expected.append((name, offset, min(mine)[1] if mine else if_absent))
        result = joined(served(*rows), labels(*answers), if_absent=if_absent, as_of=20, window=48)
        table = result.table
        assert list(zip(*(table[c].to_pylist() for c in ("id", "offset", "label")), strict=True)) == expected
        counts = result.counts
        assert counts.joined + counts.open + counts.held_back + counts.never_came == counts.rows


# ── split ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset_of(times, answers, task="binary"):
    return Dataset(
        columns={"x": np.arange(len(times), dtype=float)},
        labels=np.array(answers, float),
        times=np.array(times, np.int64),
        task=task,
    )


def test_the_holdout_is_newer_than_every_training_row():
    dataset = dataset_of([i * HOUR for i in range(100)], [i % 2 for i in range(100)])
    train, holdout = split(dataset, Last("10d", holdout="1d", min_rows=20), at_ms=99 * HOUR)
    assert len(train) + len(holdout) == 100
    assert train.times.max() < 75 * HOUR == holdout.times.min()
    assert holdout.columns["x"][0] == 75


def test_too_few_rows_on_either_side_says_how_many_there_are():
    dataset = dataset_of([i * HOUR for i in range(50)], [i % 2 for i in range(50)])
    with pytest.raises(RunFailed, match="too_few_rows: 25 labelled rows before"):
        split(dataset, Last("10d", holdout="1d", min_rows=26), at_ms=49 * HOUR)
    with pytest.raises(RunFailed, match="and 0 from then on"):
        split(dataset, Last("10d", holdout="1d", min_rows=20), at_ms=100 * HOUR)


def test_training_rows_of_one_class_fail_and_those_of_a_regression_may_be_equal():
    times = [i * HOUR for i in range(50)]
    with pytest.raises(RunFailed, match="one_class"):
        split(dataset_of(times, [1] * 50), Last("10d", holdout="1d", min_rows=20), at_ms=49 * HOUR)
    split(dataset_of(times, [1] * 50, "regression"), Last("10d", holdout="1d", min_rows=20), at_ms=49 * HOUR)
