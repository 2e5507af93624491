"""A dataset that is joined by buckets on disk is the one that is joined in memory, to the last count and bit."""

import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.errors import RunFailed
from headrace.models.features import Column
from headrace.models.schema import Schema
from headrace.trainer import dataset as dataset_module
from headrace.trainer.buckets import join_in_buckets
from headrace.trainer.dataset import join, read_stream_files, to_dataset
from headrace.trainer.order import bounds_of, ends_in, order_of
from headrace.trainer.ready import memory_left, ready_dataset
from headrace.trainer.scratch import scratch_folder
from headrace.trainer.snapshot import dataset_sha256, snapshot
from headrace.trainer.spill import blocks

START = 1_372_939_200_000  # 2013-07-04T12:00Z
RULES = {"within_ms": 20, "if_absent": "drop", "as_of_ms": START + 50, "window_ms": 60}
SCHEMA = Schema(
    (
        Column("x", "number", nullable=True),
        Column("carrier", "category", nullable=True),
        Column("gate", "category"),
        Column("image", "tensor", shape=(2,)),
    )
)


def served(rows, day=2):
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


def world(folder, seed, *, ids, spread_ms):
    """Files of three days and of labels: ids that come again, offsets that are served twice, labels that are odd."""
    random = np.random.default_rng(seed)
    names: dict[tuple[int, int], str] = {}  # a source offset is one event

    def row():
        source = int(random.integers(-1, 2)), int(random.integers(80))  # a partition below 0: on demand
        x = None if random.random() < 0.2 else float(random.integers(4))
        return names.setdefault(source, f"id{random.integers(ids)}"), int(random.integers(spread_ms)), *source, x

    for day in range(3):
        batches = [served([row() for _ in range(random.integers(1, 50))], day) for _ in range(random.integers(1, 4))]
        written(folder, f"served-{day}", batches)
    for number in range(random.integers(3)):
        rows = [
            (f"id{random.integers(ids + 5)}", int(random.integers(-10, spread_ms + 30)), float(random.integers(3)))
            for _ in range(random.integers(120))
        ]
        written(folder, f"labels-{number}", [labels(rows)])


def written(folder, name, batches):
    with pa.ipc.new_stream(str(folder / f"{name}.arrow"), batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


def files(folder):
    return sorted(folder.glob("served*.arrow")), sorted(folder.glob("labels*.arrow"))


def in_memory(folder, **rules):
    return join(read_stream_files(folder, "served*.arrow"), read_stream_files(folder, "labels*.arrow"), **rules)


def memory_for(folder, buckets):
    return max(1, sum(path.stat().st_size for part in files(folder) for path in part) * 4 // buckets)


@given(
    seed=st.integers(0, 2**32),
    buckets=st.integers(1, 12),
    ids=st.sampled_from([1, 7, 200]),
    spread_ms=st.sampled_from([1, 40]),
    if_absent=st.sampled_from(["drop", 0.5]),
    within_ms=st.integers(0, 25),
    as_of_ms=st.integers(-1, 60),
    window_ms=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_buckets_on_disk_and_the_join_in_memory_agree_on_rows_counts_and_hash(
    seed, buckets, ids, spread_ms, as_of_ms, **rules
):
    rules["as_of_ms"] = START + as_of_ms
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        world(folder, seed, ids=ids, spread_ms=spread_ms)
        expected = in_memory(folder, **rules)
        with scratch_folder(folder) as scratch:
            stored = join_in_buckets(*files(folder), scratch, memory_for(folder, buckets), **rules)
            assert stored.counts == expected.counts
            assert stored.lacking == expected.lacking
            assert stored.table.equals(expected.table)
            assert dataset_sha256(stored) == dataset_sha256(expected)
            assert sorted(path.name for path in scratch.iterdir()) == ["ready.arrow"]


# ── in memory where there is room ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path):
    world(tmp_path, 5, ids=50, spread_ms=40)
    return tmp_path


def test_what_is_larger_than_its_share_of_memory_goes_by_disk_and_is_the_same_dataset(folder, tmp_path):
    with scratch_folder(folder) as scratch:
        roomy = ready_dataset(folder, scratch, **RULES)
        tight = ready_dataset(folder, scratch, 100_000, **RULES)
        assert (roomy.file, tight.file) == (None, scratch / "ready.arrow")
        assert len(tight.table) > 20
        assert dataset_sha256(tight) == dataset_sha256(roomy)
        path = snapshot(tight, tmp_path / "snapshots")
        assert path == snapshot(roomy, tmp_path / "snapshots")
        assert pq.read_table(path).equals(roomy.table)


def test_columns_of_a_dataset_on_disk_are_made_when_asked_for_and_are_those_of_one_in_memory(folder):
    with scratch_folder(folder) as scratch:
        memory = to_dataset(in_memory(folder, **RULES), SCHEMA, "regression")
        disk = to_dataset(ready_dataset(folder, scratch, 100_000, **RULES), SCHEMA, "regression")
        assert (memory.scratch, disk.scratch) == (None, scratch)
        assert list(disk.columns) == list(memory.columns)
        odd = np.arange(len(memory)) % 2 == 1
        for rows in (slice(None), slice(7, None), slice(-5, None), slice(2, 20, 3), slice(9, 2), np.array([4, 1]), odd):
            one, other = memory.take(rows), disk.take(rows)
            assert len(one) == len(other)
            np.testing.assert_array_equal(one.times, other.times)
            np.testing.assert_array_equal(one.labels, other.labels)
            for name in memory.columns:
                np.testing.assert_array_equal(one.columns[name], other.columns[name])


def test_the_hash_does_not_depend_on_where_blocks_end(folder, monkeypatch):
    joined = in_memory(folder, **RULES)
    whole = dataset_sha256(joined)
    monkeypatch.setattr(dataset_module, "_BLOCK_ROWS", 8)
    assert dataset_sha256(joined) == whole


def test_a_dataset_of_too_many_buckets_says_how_much_memory_it_needs(folder):
    with pytest.raises(RunFailed, match=r"memory: 0 MB to join: allow 1 MB for it, or shorten train_on's window"):
        join_in_buckets(*files(folder), folder, 10, **RULES)


def test_nothing_served_is_a_failed_run_by_disk_too(tmp_path):
    written(tmp_path, "labels-0", [labels([("a", 1, 1.0)])])
    with pytest.raises(RunFailed, match="no_rows"):
        ready_dataset(tmp_path, tmp_path, 1_000, **RULES)


def test_what_may_be_taken_is_what_the_process_limit_leaves():
    script = """
import resource
from headrace.trainer.ready import memory_left
resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
print(memory_left())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert 2**29 < int(done.stdout) < min(2**31, memory_left())


# ── order, blocks, scratch ────────────────────────────────────────────────────────────────────────────────────────────


def test_slices_end_where_their_bounds_say_also_among_rows_of_one_time():
    random = np.random.default_rng(4)
    places = random.integers(0, 5, (3, 1_000))
    places = places[:, order_of(places)]
    bounds = bounds_of(places[:, ::7], 9)
    ends = ends_in(places, bounds)
    assert (len(ends), ends[-1]) == (9, 1_000)
    rows = [tuple(row) for row in places.T.tolist()]
    for end, bound in zip(ends, bounds.T.tolist(), strict=False):
        assert [row < tuple(bound) for row in rows] == [number < end for number in range(1_000)]


def test_blocks_have_the_rows_in_order_and_only_the_last_is_shorter():
    tables = [pa.table({"n": np.arange(first, end)}) for first, end in ((0, 3), (3, 3), (3, 20), (20, 21))]
    found = list(blocks(iter(tables), 8))
    assert [len(block) for block in found] == [8, 8, 5]
    assert pa.concat_tables(found)["n"].to_pylist() == list(range(21))


@pytest.mark.parametrize(
    "then",
    ["os.kill(os.getpid(), signal.SIGKILL)", "pass"],
    ids=["in use", "half removed"],
)
def test_what_a_killed_training_left_behind_is_gone_with_the_next_and_what_is_in_use_stays(tmp_path, then):
    script = f"""
import os, shutil, signal
from pathlib import Path
from headrace.trainer.scratch import scratch_folder
shutil.rmtree = lambda folder, **_: ((folder / "rows-1").unlink(), os.kill(os.getpid(), signal.SIGKILL))
with scratch_folder(Path({str(tmp_path)!r})) as made:
    (made / "rows-0").write_bytes(b"much")
    (made / "rows-1").write_bytes(b"more")
    {then}
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "rows-0").exists()
    with scratch_folder(tmp_path) as one:
        assert not left.exists()
        with scratch_folder(tmp_path) as other:
            assert one.exists()
        assert list(tmp_path.iterdir()) == [one]
        assert other != one
    assert list(tmp_path.iterdir()) == []


def test_folders_that_begin_at_once_are_nobodys_leftovers(tmp_path):
    def work(_):
        for _turn in range(100):
            with scratch_folder(tmp_path) as made:
                (made / "rows").write_bytes(b"mine")
                assert (made / "rows").read_bytes() == b"mine"

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert list(tmp_path.iterdir()) == []
