"""Kafka → files → dataset: only what is new is read, nothing odd is an accident, and memory is bounded."""

import msgspec
import numpy as np
from kit import produce, transaction

from headrace.infra.bench.training import LIMIT_BYTES, built, filled
from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.names import Names
from headrace.infra.topics import apply
from headrace.models.features import Category, Column, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.streams.served import encode_served, served_batch, served_schema
from headrace.trainer.dataset import join, read_stream_files

HOUR, START = 3_600_000, 1_372_939_200_000  # 2013-07-04T12:00Z
PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Category("carrier")],
    label=Binary(Topic("arrivals", id="id", time="at", partitions=11), "delay", at_least=15, within="36h", if_absent=0),
)
OLD = (Column("distance", "number"),)


def batch(numbers, partition, columns=PIPELINE.columns):
    """Served rows of the events with these numbers."""
    rows = len(numbers)
    features = {"distance": np.array(numbers, float), "carrier": np.array(["UA"] * rows, object)}
    ((value, _, _),) = encode_served(
        served_batch(
            served_schema(columns),
            ids=[f"e{n}" for n in numbers],
            times=START + np.array(numbers, np.int64),
            partition=partition,
            offsets=np.array(numbers, np.int64),
            version=0,
            scores=np.zeros(rows),
            columns=features,
        )
    )
    return {"value": value, "partition": partition}


def label(number, partition, delay=20):
    value = msgspec.json.encode({"id": f"e{number}", "at": START + HOUR, "delay": delay})
    return {"value": value, "partition": partition}


def joined(files):
    return join(
        read_stream_files(files.folder, "served*.arrow"),
        read_stream_files(files.folder, "labels*.arrow"),
        within_ms=36 * HOUR,
        if_absent="drop",
        as_of_ms=START + 48 * HOUR,
        window_ms=100 * HOUR,
    )


def ranges_of(found, topic):
    return {one.partition: (one.first, one.end) for one in found if one.topic == topic}


def test_a_second_fetch_reads_what_is_new_and_odd_records_are_passed_over(settings, tmp_path):
    apply(settings, PIPELINE, 2)
    names = Names(settings.prefix, PIPELINE)
    files = DatasetFiles(settings, names, tmp_path / "dataset")
    assert files.fetch() == ()
    produce(
        settings,
        names.topics.served,
        [
            batch([0, 1], 0, OLD),
            {"value": b"not ours", "partition": 0},
            {"value": None, "partition": 0},
            batch([2, 3], 0),
            batch([4], 1),
        ],
    )
    odd = [{"value": value, "partition": 10} for value in (b"{", None, b'{"id":"e1"}')]
    produce(settings, names.labels, [*(label(n, n) for n in range(5)), *odd, label(5, 10)])

    found = files.fetch()
    assert ranges_of(found, names.topics.served) == {0: (0, 4), 1: (0, 1)}
    assert ranges_of(found, names.labels) == {**dict.fromkeys(range(5), (0, 1)), 10: (0, 4)}
    first = joined(files)
    assert first.table["id"].to_pylist() == ["e0", "e1", "e2", "e3", "e4"]
    assert first.lacking == {"carrier": 2}
    assert (first.counts.labels_unknown, first.counts.duplicates) == (1, 0)
    assert files.fetch() == found  # nothing is new

    produce(settings, names.topics.served, [batch([5, 6], 1)])
    with transaction(settings) as producer:  # whose marker is the last record that there is
        producer.produce(names.labels, **label(6, 10, delay=0))
    assert ranges_of(files.fetch(), names.topics.served) == {0: (0, 4), 1: (0, 2)}
    second = joined(files)
    assert second.table["label"].to_pylist() == [1, 1, 1, 1, 1, 1, 0]
    assert sorted(path.name for path in files.folder.glob("served*")) == [
        "served-00000-000000000000000-000000000000004-0.arrow",
        "served-00000-000000000000000-000000000000004-1.arrow",
        "served-00001-000000000000000-000000000000001-0.arrow",
        "served-00001-000000000000001-000000000000002-0.arrow",
    ]
    assert not list(files.folder.glob("*.draft"))


def test_small_records_become_large_batches(settings, tmp_path):
    apply(settings, PIPELINE, 1)
    names = Names(settings.prefix, PIPELINE)
    produce(settings, names.topics.served, [batch([n], 0) for n in range(500)])
    files = DatasetFiles(settings, names, tmp_path / "dataset")
    files.fetch()
    (found,) = read_stream_files(files.folder, "served*.arrow")
    assert found.column("id").to_pylist() == [f"e{n}" for n in range(500)]


def test_a_process_with_a_fraction_of_the_datasets_memory_builds_the_same_dataset(settings, tmp_path):
    rows = 1_300_000
    large, small = (settings.model_copy(update={"prefix": settings.prefixed(name)}) for name in ("large.", "small."))
    filled(small, 2_000)
    filled(large, rows)
    bounded = built(large, small, tmp_path / "bounded", LIMIT_BYTES)
    free = built(large, small, tmp_path / "free")
    assert (bounded.rows, free.rows) == (rows, rows)
    assert (bounded.in_memory, free.in_memory) == (False, True)
    assert bounded.sha256 == free.sha256
    assert bounded.dataset_bytes > 200_000_000
    assert bounded.peak_bytes < LIMIT_BYTES < free.peak_bytes
