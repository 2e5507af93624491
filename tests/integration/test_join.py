"""served rows and labels join by event id, whatever their keys, partitions and partitioners."""

from contextlib import closing

import msgspec
from kit import Facts, produce, read_all, wait_for
from test_source import worker_of

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.topics import apply
from headrace.models.features import Category, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.trainer.dataset import join, read_stream_files

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Category("carrier", nullable=True)],
    label=Binary(Topic("arrivals", id="id", time="landed_at", partitions=2), "late", within="1h", if_absent="drop"),
)
ROWS = 600
T = 1_372_935_600_000  # 2013-07-04T11:00:00Z, Unix ms
WEEK = 7 * 86_400_000


def partitions(messages):
    return {message.partition() for message in messages}


def test_events_keyed_by_murmur2_on_3_partitions_join_with_labels_keyed_by_crc32_on_2(settings, tmp_path):
    names = Names(settings.prefix, PIPELINE)
    apply(settings, PIPELINE, 3)
    events = [{"id": f"e{n}", "at": T + n, "distance": n, "carrier": "UA"} for n in range(ROWS)]
    labels = [{"id": f"e{n}", "landed_at": T + n + 60_000, "late": n % 3 == 0} for n in reversed(range(ROWS))]
    keyed = [{"value": msgspec.json.encode(event), "key": f"k{n}".encode()} for n, event in enumerate(events)]
    produce(settings, names.events, keyed, partitioner="murmur2")
    by_id = [{"value": msgspec.json.encode(label), "key": label["id"].encode()} for label in labels]
    produce(settings, names.labels, by_id, partitioner="consistent")  # CRC32, librdkafka's own
    assert partitions(read_all(settings, names.events)) == {0, 1, 2}
    assert partitions(read_all(settings, names.labels)) == {0, 1}

    with worker_of(settings, PIPELINE, Facts()):
        wait_for("every prediction", lambda: len(read_all(settings, names.topics.predictions)) == ROWS)

    files = DatasetFiles(settings, names, tmp_path / "dataset")
    ranges = files.fetch()
    served, known = (read_stream_files(files.folder, f"{kind}-*.arrow") for kind in ("served", "labels"))
    joined = join(
        served, known, within_ms=PIPELINE.label.within_ms, if_absent="drop", as_of_ms=T + WEEK, window_ms=2 * WEEK
    )
    assert (joined.counts.joined, joined.counts.labels_unknown) == (ROWS, 0)
    assert joined.table["id"].to_pylist() == [event["id"] for event in events]  # by event time
    assert sum(found.end - found.first for found in ranges if found.topic == names.labels) == ROWS
    assert files.fetch() == ranges  # nothing new: nothing is read again, nothing is lost

    with closing(LiveLabels(settings, names, Facts())) as live:
        assert live.count() == ROWS
        assert (live.join.open, live.join.unknown) == (0, 0)
