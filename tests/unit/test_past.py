"""a cut of the whole past → the same rows, labels and order as a join as of then."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.models.features import Column
from headrace.models.windows import Anchor, Last, Rehearsal
from headrace.streams.served import served_batch, served_schema
from headrace.trainer.dataset import LABELS
from headrace.trainer.past import Past
from headrace.trainer.past_file import APPENDED, write_past
from headrace.trainer.ready import ready_dataset
from headrace.trainer.snapshot import dataset_sha256

HOUR, START = 3_600_000, 1_372_939_200_000  # 2013-07-04T12:00Z
DAY = 24 * HOUR
WITHIN = 36 * HOUR
COLUMNS = (Column("distance", "number"), Column("carrier", "category"))


def write(path, batch):
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(batch)


def rows(random, count, partition, columns=COLUMNS):
    """Some of them twice, some ids with two events, a few hours' disorder."""
    times = START + np.sort(random.integers(0, 30 * DAY // 1000, count)) * 1000 + random.integers(0, 3, count) * HOUR
    numbers = random.integers(0, 2 * count, count)
    values = {"distance": random.normal(size=count), "carrier": random.choice(np.array(["UA", "B6"], object), count)}
    batch = served_batch(
        served_schema(columns),
        ids=[f"{partition}-{n}" for n in numbers],
        times=times,
        partition=partition,
        offsets=np.arange(count),
        version=0,
        scores=np.zeros(count),
        columns={column.name: values[column.name] for column in columns},
    )
    again = np.concatenate([np.arange(count), random.integers(0, count, 20)])
    return batch.take(pa.array(again)), times, numbers


def labels(random, times, numbers, partition):
    """Early, late, never, twice, and two at one time."""
    picked = random.integers(0, len(times), 2 * len(times))
    delays = random.integers(-4, 45, len(picked)) * HOUR
    ids = pa.array([f"{partition}-{numbers[at]}" for at in picked])
    values = random.integers(0, 2, len(picked)).astype(float)
    return pa.record_batch([ids, times[picked] + delays, values], schema=LABELS)


@pytest.fixture
def folder(tmp_path):
    random, place = np.random.default_rng(11), tmp_path / "dataset"
    place.mkdir()
    for partition, columns in ((0, COLUMNS[:1]), (1, COLUMNS)):
        batch, times, numbers = rows(random, 700, partition, columns)
        write(place / f"served-{partition}.arrow", batch)
        write(place / f"labels-{partition}.arrow", labels(random, times, numbers, partition))
    asked, _, _ = rows(random, 300, 0)  # on demand: some of what was served, and some that nobody else asked
    write(place / "served-2.arrow", asked.set_column(2, "partition", pa.array(np.full(len(asked), -2, np.int32))))
    return place


def past_of(folder):
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    write_past(folder, scratch, folder.parent / "past.arrow", WITHIN)
    return Past(folder.parent / "past.arrow")


@pytest.mark.parametrize("if_absent", ["drop", 0.0])
@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"window": Last("10d", holdout="3d")},
        {"window": Rehearsal("6d", 50, holdout="2d"), "anchor": Anchor(rows=40), "delays": True},
    ],
    ids=["all", "last", "rehearsal"],
)
def test_a_cut_is_what_a_join_as_of_then_gives(folder, tmp_path, if_absent, choice):
    past = past_of(folder)
    for at in [*range(START - DAY, START + 34 * DAY, 67 * HOUR), START + 10 * DAY + 1, START + 400 * DAY]:
        rules = {"within_ms": WITHIN, "if_absent": if_absent, "as_of_ms": at, "window_ms": 12 * DAY, **choice}
        cut, joined = past.joined(**rules), ready_dataset(folder, tmp_path, **rules)
        assert cut.table.equals(joined.table.combine_chunks()), at
        assert dataset_sha256(cut) == dataset_sha256(joined)
        assert (cut.anchor is None) == (joined.anchor is None)
        assert cut.anchor is None or cut.anchor.equals(joined.anchor.combine_chunks())
        for name in ("joined", "filled", "open", "held_back", "never_came", "same_id"):
            assert getattr(cut.counts, name) == getattr(joined.counts, name), (name, at)


@pytest.mark.parametrize("if_absent", ["drop", 0.0])
def test_rows_are_joined_live_when_their_label_came_or_silence_became_one(folder, if_absent):
    past = past_of(folder)
    joins = past.live_joins(WITHIN, if_absent)
    assert (np.diff(joins.at) >= 0).all()
    came = past.came[joins.rows] < past.times[-1] + WITHIN
    assert (joins.at == np.where(came, past.came[joins.rows], past.times[joins.rows] + WITHIN)).all()
    assert (joins.labels == np.where(came, past.labels[joins.rows], 0.0)).all()
    assert came.all() == (if_absent == "drop")
    for at in (START, START + 5 * DAY, START + 40 * DAY):
        counts = past.joined(within_ms=WITHIN, if_absent="drop", as_of_ms=at, window_ms=400 * DAY).counts
        assert int(came[joins.between(0, at)].sum()) == counts.joined


def live(folder, late_rows, late_labels):
    """Ten rows an hour apart, each with a label an hour later by its own time; appended so much later."""
    times = START + np.arange(10) * HOUR
    ids = [f"e{n}" for n in range(10)]
    batch = served_batch(
        served_schema(COLUMNS[:1]),
        ids=ids,
        times=times,
        partition=0,
        offsets=np.arange(10),
        version=0,
        scores=np.zeros(10),
        columns={"distance": np.zeros(10)},
    )
    write(folder / "served-0.arrow", batch.append_column(APPENDED, pa.array(times + late_rows)))
    found = pa.record_batch([pa.array(ids), times + HOUR, np.ones(10)], schema=LABELS)
    write(folder / "labels-0.arrow", found.append_column(APPENDED, pa.array(times + HOUR + late_labels)))
    return past_of(folder)


def seen(past, at):
    return len(past.joined(within_ms=WITHIN, if_absent="drop", as_of_ms=at, window_ms=9 * DAY).table)


def test_a_label_of_a_row_that_was_served_live_is_seen_when_it_was_appended(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    past = live(folder, late_rows=2_000, late_labels=5 * HOUR)
    last = START + 9 * HOUR
    assert [seen(past, at) for at in (last + HOUR, last + 6 * HOUR - 1, last + 6 * HOUR)] == [5, 9, 10]


def test_a_row_is_seen_when_it_was_appended(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    past = live(folder, late_rows=HOUR // 2, late_labels=-HOUR)
    assert [seen(past, START + late) for late in (HOUR - 1, HOUR)] == [0, 1]


def test_what_was_replayed_is_seen_from_its_own_time_on(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    past = live(folder, late_rows=300 * DAY, late_labels=300 * DAY)
    assert [seen(past, START + late) for late in (HOUR - 1, HOUR, 10 * HOUR)] == [0, 1, 10]


def test_the_hash_of_what_a_training_depends_on_changes_with_what_it_sees_and_with_nothing_later(folder):
    past = past_of(folder)
    days = [past.sha256(START + day * DAY, 5 * DAY) for day in (10, 11, 12)]
    assert len(set(days)) == 3
    for kind, name in (("served", "served-0.arrow"), ("labels", "labels-0.arrow")):
        with pa.ipc.open_stream(str(folder / name)) as stream:
            table = stream.read_all()
        times = table["event_time" if kind == "served" else "time"].cast(pa.int64()).to_numpy()
        write(folder / name, table.filter(pa.array(times < START + 20 * DAY)).combine_chunks().to_batches()[0])
    (folder.parent / "scratch" / "ranked").rename(folder.parent / "old")
    write_past(folder, folder.parent / "scratch", folder.parent / "past.arrow", WITHIN)
    shorter = Past(folder.parent / "past.arrow")
    assert len(shorter) < len(past)
    assert [shorter.sha256(START + day * DAY, 5 * DAY) for day in (10, 11, 12)] == days
    assert shorter.sha256(START + 20 * DAY, 5 * DAY) != past.sha256(START + 20 * DAY, 5 * DAY)
