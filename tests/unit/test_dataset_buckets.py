"""A dataset that is joined by buckets on disk is the one that is joined in memory, to the last count and bit."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.features import Column
from headrace.models.schema import Schema
from headrace.trainer.buckets import join_in_buckets
from headrace.trainer.dataset import join, read_stream_files, to_dataset
from headrace.trainer.scratch import scratch_folder
from headrace.trainer.snapshot import dataset_sha256

START = 1_372_939_200_000  # 2013-07-04T12:00Z
SCHEMA = Schema(
    (
        Column("x", "number", nullable=True),
        Column("carrier", "category", nullable=True),
        Column("gate", "category"),
        Column("image", "tensor", shape=(2,)),
    )
)


def served(rows, day):
    """Rows are (id, ms, partition, offset, x). A day has the columns that were declared then."""
    ids, times, partitions, offsets, xs = zip(*rows, strict=True)
    columns = {
        "id": pa.array(ids, pa.string()),
        "event_time": pa.array([START + ms for ms in times], pa.timestamp("ms", "UTC")),
        "partition": pa.array(partitions, pa.int32()),
        "offset": pa.array(offsets, pa.int64()),
        "version": pa.array([day] * len(rows), pa.int32()),
        "score": pa.array([0.5] * len(rows), pa.float64()),
        "x": pa.array(xs, pa.float64()),
    }
    if day > 0:
        columns["carrier"] = pa.array([None if x is None else f"é{x}" for x in xs], pa.string())
        columns["gate"] = pa.array(xs, pa.float64())
    if day > 1:
        columns["gate"] = pa.array([f"B{offset}" for offset in offsets], pa.string())
        images = [None if x is None else [x, 1.0] for x in xs]
        columns["image"] = pa.array(images, pa.list_(pa.float32(), 2))
    return pa.RecordBatch.from_pydict(columns)


def labels(rows):
    ids, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.record_batch(
        [
            pa.array(ids, pa.string()),
            pa.array([START + ms for ms in times], pa.int64()),
            pa.array(values, pa.float64()),
        ],
        ["id", "time", "value"],
    )


def written(folder, name, batches):
    with pa.ipc.new_stream(str(folder / f"{name}.arrow"), batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


@st.composite
def worlds(draw):
    """Served files, oldest first, and label files: ids that come again, offsets that are served twice, odd labels."""
    ids = st.integers(0, draw(st.integers(1, 60))).map(lambda n: f"id{n}")
    names: dict[tuple[int, int], str] = {}  # a source offset is one event
    files = []
    for day in draw(st.lists(st.integers(0, 2), min_size=1, max_size=3).map(sorted)):
        rows = []
        for _ in range(draw(st.integers(1, 80))):
            source = draw(st.integers(0, 2)), draw(st.integers(0, 60))
            x = draw(st.one_of(st.none(), st.integers(0, 3).map(float)))
            rows.append((names.setdefault(source, draw(ids)), draw(st.integers(0, 40)), *source, x))
        files.append(
            [served(rows[:at] or rows, day) for at in (len(rows) // 2,)] + [served(rows[len(rows) // 2 :], day)]
        )
    moments, values = st.integers(-10, 60), st.sampled_from([0.0, 1.0, 2.5])
    answers = draw(st.lists(st.lists(st.tuples(ids, moments, values), max_size=80), max_size=3))
    rules = {
        "within_ms": draw(st.integers(0, 25)),
        "if_absent": draw(st.sampled_from(["drop", 0.5])),
        "as_of_ms": START + draw(st.integers(0, 60)),
        "window_ms": draw(st.integers(1, 60)),
    }
    return files, [labels(rows) for rows in answers], rules, draw(st.integers(1, 9))


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_buckets_on_disk_and_the_join_in_memory_agree_on_rows_counts_and_hash(world):
    files, answers, rules, buckets = world
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for number, batches in enumerate(files):
            written(folder, f"served-{number}", batches)
        for number, batch in enumerate(answers):
            written(folder, f"labels-{number}", [batch])
        expected = join(read_stream_files(folder, "served*"), read_stream_files(folder, "labels*"), **rules)
        paths = [sorted(folder.glob(pattern)) for pattern in ("served*", "labels*")]
        size = sum(path.stat().st_size for part in paths for path in part)
        with scratch_folder(folder) as scratch:
            stored = join_in_buckets(*paths, scratch, size * 4 // buckets, **rules)
            assert stored.counts == expected.counts
            assert stored.lacking == expected.lacking
            assert stored.table.equals(expected.table)
            assert dataset_sha256(stored) == dataset_sha256(expected)
            one, other = to_dataset(stored, SCHEMA, "regression"), to_dataset(expected, SCHEMA, "regression")
            part = slice(len(one) // 3, None)
            for name in ("x", "carrier", "gate", "image"):
                np.testing.assert_array_equal(one.columns[name], other.columns[name])
                np.testing.assert_array_equal(one.take(part).columns[name], other.take(part).columns[name])
            assert sorted(path.name for path in scratch.iterdir()) == ["lock", "ready.arrow"]
        assert not scratch.exists()
