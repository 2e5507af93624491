"""served rows + labels: joined whatever their partitions, partitioners and order, live and for the trainer alike."""

import msgspec
import numpy as np
from kit import Facts, produce, read_all, wait_for
from test_source import worker_of

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.topics import apply
from headrace.models.durations import iso
from headrace.models.facts import Predicted
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.trainer.dataset import join, read_stream_files

HOUR, START = 3_600_000, 1_372_939_200_000  # 2013-07-04T12:00Z
ROWS = 3_000
PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(
        Topic("arrivals", id="id", time="at", partitions=2), "delay", at_least=15, within="36h", if_absent="drop"
    ),
)


def test_events_on_three_partitions_by_murmur2_meet_labels_on_two_by_crc32(settings, tmp_path):
    apply(settings, PIPELINE, 3)
    names, facts, random = Names(settings.prefix, PIPELINE), Facts(), np.random.default_rng(1)
    delays = random.integers(-20, 60, ROWS).tolist()
    events = [
        {
            "key": f"flight{n}".encode(),
            "value": msgspec.json.encode({"id": f"e{n}", "at": iso(START + n * 1_000), "distance": n}),
        }
        for n in range(ROWS)
    ]
    labels = [
        {
            "key": f"e{n}".encode(),
            "value": msgspec.json.encode({"id": f"e{n}", "at": START + n * 1_000 + HOUR, "delay": delays[n]}),
        }
        for n in range(ROWS)
    ]
    random.shuffle(labels)
    live = LiveLabels(settings, names, facts)
    produce(settings, names.labels, labels[:1_000], partitioner="consistent")  # before their events
    with worker_of(settings, PIPELINE, facts):
        produce(settings, names.events, events, partitioner="murmur2")
        wait_for("all predictions", lambda: sum(fact.rows for fact in facts.of(Predicted)) == ROWS)
    produce(settings, names.labels, labels[1_000:] + labels[:50], partitioner="consistent")  # some of them twice
    produce(settings, names.labels, [{"value": msgspec.json.encode({"id": "nobody's", "at": START, "delay": 1})}])

    where = {m.key(): m.partition() for m in read_all(settings, names.events)}
    assert {m.partition() for m in read_all(settings, names.labels)} == {0, 1}
    assert set(where.values()) == {0, 1, 2}
    assert where[b"flight0"] == _murmur2(b"flight0") % 3

    assert live.now().new_labels == ROWS
    assert (live.join.open, live.join.repeated, live.join.unknown) == (0, 50, 1)
    live.close()
    again = LiveLabels(settings, names, facts)  # the next leader builds it from the log
    assert again.now().new_labels == ROWS
    again.close()

    files = DatasetFiles(settings, names, tmp_path / "dataset")
    ranges = files.fetch()
    assert [(r.topic, r.partition, r.first) for r in ranges] == [
        *[(names.labels, number, 0) for number in range(2)],
        *[(names.topics.served, number, 0) for number in range(3)],
    ]
    joined = join(
        read_stream_files(files.folder, "served*.arrow"),
        read_stream_files(files.folder, "labels*.arrow"),
        within_ms=36 * HOUR,
        if_absent="drop",
        as_of_ms=START + 48 * HOUR,
        window_ms=1_000 * HOUR,
    )
    found = dict(zip(joined.table["id"].to_pylist(), joined.table["label"].to_pylist(), strict=True))
    assert found == {f"e{n}": float(delays[n] >= 15) for n in range(ROWS)}
    assert joined.table["event_time"].to_pylist() == sorted(joined.table["event_time"].to_pylist())


def _murmur2(key):
    """As Java's client: org.apache.kafka.common.utils.Utils.murmur2, made positive."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    value = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        piece = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        piece = (piece ^ piece >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ piece
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return (value ^ value >> 15) & 0x7FFFFFFF
