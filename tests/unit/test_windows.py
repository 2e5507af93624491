"""What a training takes of the joined rows: the same rows in memory, on disk, in any order, and in every later run."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import Anchor, Everything, Last, LastRows, Pipeline, Rehearsal
from headrace.infra.demo.flights import flight_delay
from headrace.infra.names import Names
from headrace.infra.topics import wanted_topics
from headrace.models.draw import ALWAYS, NEVER, Lowest, hashes, random_priorities
from headrace.models.errors import DeclarationError
from headrace.trainer.buckets import join_in_buckets
from headrace.trainer.dataset import join, read_stream_files
from headrace.trainer.scratch import scratch_folder
from headrace.trainer.snapshot import dataset_sha256

START = 1_372_939_200_000  # 2013-07-04T12:00Z
MINUTE = 60_000
DAY = 86_400_000


# ── a draw ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    priorities=st.lists(st.one_of(st.integers(0, 6), st.sampled_from([ALWAYS, NEVER])), max_size=60),
    most=st.integers(0, 20),
    parts=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_the_lowest_are_the_same_in_whatever_parts_they_are_looked_at(priorities, most, parts, seed):
    given_ = np.array(priorities, np.int64)
    lowest = Lowest(most)
    for part in np.array_split(np.random.default_rng(seed).permutation(given_), parts):
        lowest.look(part)
    found = np.concatenate([lowest.among(part) for part in np.array_split(given_, parts)])
    competing = [(p, at) for at, p in enumerate(priorities) if p not in (ALWAYS, NEVER)]
    expected = {at for _, at in sorted(competing)[:most]} | {at for at, p in enumerate(priorities) if p == ALWAYS}
    assert set(np.flatnonzero(found).tolist()) == expected


def test_the_hash_is_splitmix64_and_spreads_evenly():
    assert hashes(np.array([0, 1]))[0] == 0xE220A8397B1DCDAF  # the first output of the reference for seed 0
    drawn = random_priorities(np.repeat(np.arange(8), 5_000), np.tile(np.arange(5_000), 8), 7)
    counts = np.histogram(drawn.astype(np.float64), bins=20, range=(0.0, 2.0**63))[0]
    assert ((counts - 2_000) ** 2 / 2_000).sum() < 44  # χ², 19 degrees of freedom, 0.1 %
    assert len(np.unique(drawn)) == 40_000


# ── in memory, on disk ────────────────────────────────────────────────────────────────────────────────────────────────


def written(folder, count, seed=0, *, label_delay=lambda _row: 5):
    """Rows a minute or so apart on three partitions, some at one time; two files of labels."""
    random = np.random.default_rng(seed)
    minutes = np.sort(random.integers(0, count, count))
    ids = [f"id{row}" for row in range(count)]
    rows = pa.RecordBatch.from_pydict(
        {
            "id": pa.array(ids),
            "event_time": pa.array(START + minutes * MINUTE, pa.timestamp("ms", "UTC")),
            "partition": pa.array(random.integers(0, 3, count), pa.int32()),
            "offset": pa.array(np.arange(count), pa.int64()),
            "version": pa.array([0] * count, pa.int32()),
            "score": pa.array([0.5] * count),
            "x": pa.array(random.normal(size=count)),
        }
    )
    came = START + (minutes + [label_delay(row) for row in range(count)]) * MINUTE
    labels = pa.RecordBatch.from_pydict({"id": ids, "time": pa.array(came, pa.int64()), "value": random.random(count)})
    shuffled = pa.array(random.permutation(count))
    for name, batch in (("served-0", rows.take(shuffled)), ("labels-0", labels)):
        with pa.ipc.new_stream(str(folder / f"{name}.arrow"), batch.schema) as stream:
            stream.write_batch(batch)
    return folder


def joined(folder, at_ms, window, anchor=None, *, reach_ms=1 << 50, delays=False):
    rules = {"within_ms": 30 * MINUTE, "if_absent": "drop", "as_of_ms": at_ms, "window_ms": reach_ms}
    served, labels = (read_stream_files(folder, pattern) for pattern in ("served*.arrow", "labels*.arrow"))
    return join(served, labels, **rules, window=window, anchor=anchor, delays=delays)


WINDOWS = st.one_of(
    st.builds(lambda hours: Last(f"{hours}h", holdout="30m"), st.integers(1, 6)),
    st.builds(lambda rows: LastRows(rows, holdout="1h", min_rows=1), st.integers(1, 400)),
    st.builds(lambda rows: LastRows(rows, holdout="1h", min_rows=1, reach="3h"), st.integers(1, 400)),
    st.just(Everything(holdout="1h")),
    st.builds(
        lambda rows, seed: Rehearsal("2h", rows, holdout="1h", seed=seed), st.integers(1, 300), st.integers(0, 3)
    ),
    st.just(Rehearsal("90m", 20, holdout="30m", reach="3h")),
)
SPAN = {"since": "2013-07-04T13:00Z", "until": "2013-07-04T14:30Z"}
ANCHORS = st.one_of(
    st.none(),
    st.builds(lambda rows: Anchor(rows=rows), st.integers(1, 120)),
    st.builds(lambda rows: Anchor(rows=rows, **SPAN), st.integers(1, 120)),
)


@given(
    window=WINDOWS,
    anchor=ANCHORS,
    count=st.integers(1, 300),
    at=st.integers(20, 400),
    buckets=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    delays=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_window_takes_the_same_rows_from_disk_as_from_memory(window, anchor, count, at, buckets, seed, delays):
    with tempfile.TemporaryDirectory() as made:
        folder = written(Path(made), count, seed)
        at_ms = START + at * MINUTE
        expected = joined(folder, at_ms, window, anchor, delays=delays)
        files = [[folder / f"{kind}-0.arrow"] for kind in ("served", "labels")]
        memory = sum(path.stat().st_size for (path,) in files) * 4 // buckets
        rules = {"within_ms": 30 * MINUTE, "if_absent": "drop", "as_of_ms": at_ms, "window_ms": 1 << 50}
        with scratch_folder(folder) as scratch:
            stored = join_in_buckets(
                *files, scratch, max(1, memory), **rules, window=window, anchor=anchor, delays=delays
            )
            assert stored.table.equals(expected.table)
            assert (stored.counts, stored.lacking) == (expected.counts, expected.lacking)
            assert dataset_sha256(stored) == dataset_sha256(expected)
            assert (stored.anchor is None) == (expected.anchor is None) == (anchor is None)
            if anchor is not None:
                assert stored.anchor.equals(expected.anchor)


# ── which rows ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("windows"), 1_000, 4)


def offsets(table):
    return table["offset"].to_pylist()


def minutes(table):
    return ((np.array(table["event_time"].cast(pa.int64())) - START) // MINUTE).tolist()


AT = START + 1_000 * MINUTE  # all but the last rows have their label by then


def test_the_last_rows_are_so_many_before_the_holdout(folder):
    all_rows = joined(folder, AT, Everything(holdout="100m")).table
    held = sum(minute >= 900 for minute in minutes(all_rows))
    some = joined(folder, AT, LastRows(250, holdout="100m")).table
    assert len(some) == 250 + held
    assert minutes(some) == minutes(all_rows)[-250 - held :]
    assert set(offsets(some)) < set(offsets(all_rows))
    near = joined(folder, AT, LastRows(250, holdout="100m", reach="3h")).table
    assert minutes(near) == [minute for minute in minutes(all_rows) if minute >= 820]


def test_rehearsal_keeps_all_that_is_fresh_and_a_uniform_draw_of_the_old(folder):
    all_rows = joined(folder, AT, Everything(holdout="1h")).table
    found = joined(folder, AT, Rehearsal("5h", 200, holdout="1h")).table
    fresh = [offset for offset, minute in zip(offsets(all_rows), minutes(all_rows), strict=True) if minute >= 700]
    old = offsets(found)[: -len(fresh)]
    assert offsets(found)[-len(fresh) :] == fresh
    assert len(old) == 200
    assert max(minutes(found)[:200]) < 700
    by_week = np.histogram(minutes(found)[:200], bins=7, range=(0, 700))[0]
    share = np.histogram(minutes(all_rows), bins=7, range=(0, 700))[0] / sum(m < 700 for m in minutes(all_rows))
    assert ((by_week - 200 * share) ** 2 / (200 * share)).sum() < 22.5  # χ², 6 degrees of freedom, 0.1 %


def test_a_reservoir_changes_little_between_two_runs_and_not_at_all_between_two_looks(folder):
    def old(at):
        window = Rehearsal("5h", 200, holdout="1h")
        return set(offsets(joined(folder, at, window).table)[:200])

    before, after = old(AT - 60 * MINUTE), old(AT)
    assert old(AT) == after
    # 60 of 700 rows have become old: as many, by expectation 17, of the reservoir are new ones
    assert 5 < len(after - before) < 35
    assert (
        joined(folder, AT, Rehearsal("5h", 200, holdout="1h", seed=8)).table
        != joined(folder, AT, Rehearsal("5h", 200, holdout="1h")).table
    )


# ── the anchor ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("anchor", [Anchor(rows=60), Anchor(rows=60, **SPAN)])
def test_an_anchor_is_the_same_rows_in_every_later_run_and_never_trained_on(folder, anchor):
    first = joined(folder, START + 400 * MINUTE, LastRows(100, holdout="1h"), anchor)
    later = joined(folder, AT, Rehearsal("5h", 300, holdout="1h"), anchor)
    everything = joined(folder, AT, Everything(holdout="1h"), anchor)
    assert len(first.anchor) == 60
    assert first.anchor.equals(later.anchor)
    assert first.anchor.equals(everything.anchor)
    for run in (first, later, everything):
        assert not set(offsets(run.anchor)) & set(offsets(run.table))
    all_rows = offsets(joined(folder, AT, Everything(holdout="1h")).table)
    assert sorted(offsets(everything.anchor) + offsets(everything.table)) == sorted(all_rows)
    if anchor.since is None:
        assert offsets(first.anchor) == all_rows[:60]
    else:
        assert {60 <= minute < 150 for minute in minutes(first.anchor)} == {True}


@given(
    window=WINDOWS,
    rows=st.integers(1, 120),
    ranged=st.booleans(),
    seed=st.integers(0, 2**32),
    first=st.integers(20, 250),
    later=st.integers(0, 150),
)
@settings(max_examples=60, deadline=None)
def test_no_row_is_trained_on_before_it_becomes_an_anchor(window, rows, ranged, seed, first, later):
    """Also while labels still come, up to half an hour late, and rows enter the order between others."""
    anchor = Anchor(rows=rows, **SPAN) if ranged else Anchor(rows=rows)
    with tempfile.TemporaryDirectory() as made:
        random = np.random.default_rng(seed)
        folder = written(Path(made), 250, seed, label_delay=lambda _row: int(random.integers(0, 31)))
        boundary = START + first * MINUTE - window.holdout_ms
        before = joined(folder, START + first * MINUTE, window, anchor)
        after = joined(folder, START + (first + later) * MINUTE, window, anchor)
        trained = {
            o
            for o, m in zip(offsets(before.table), minutes(before.table), strict=True)
            if START + m * MINUTE < boundary
        }
        assert not trained & set(offsets(after.anchor))


# ── declarations, retention ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: LastRows(0), "LastRows.rows"),
        (lambda: LastRows(50), "LastRows.rows"),
        (lambda: LastRows(500, reach="7d"), "LastRows.holdout"),
        (lambda: LastRows(500, reach="long"), "LastRows.reach"),
        (lambda: Everything(holdout="long"), "Everything.holdout"),
        (lambda: Everything(min_rows=True), "Everything.min_rows"),
        (lambda: Rehearsal("7d", 100), "Rehearsal.holdout"),
        (lambda: Rehearsal("8w", 100, reach="4w"), "Rehearsal.fresh"),
        (lambda: Rehearsal("8w", 0), "Rehearsal.old_rows"),
        (lambda: Rehearsal("8w", 100, seed=-1), "Rehearsal.seed"),
        (lambda: Anchor(rows=0), "Anchor.rows"),
        (lambda: Anchor(since="2013-01-01"), "Anchor: expected since and until"),
        (lambda: Anchor(since="2013-01-02", until="2013-01-01"), "Anchor.until"),
        (lambda: Anchor(since="2013-01-01T00:00", until="2013-02-01"), "Anchor.since"),
        (lambda: Anchor(since="May", until="2013-02-01"), "Anchor.since"),
        (lambda: piped(train_on=Last), "Pipeline.train_on"),
        (lambda: piped(anchor=5_000), "Pipeline.anchor"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_by_its_field(make, where):
    with pytest.raises(DeclarationError, match=where):
        make()


def piped(**fields):
    own = {name: getattr(flight_delay, name) for name in ("name", "events", "features", "label")}
    return Pipeline(**own, **fields)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"train_on": Last("4w")}, 28 * DAY + 36 * 3_600_000 + 7 * DAY),
        ({"train_on": LastRows(5_000, reach="8w")}, 56 * DAY + 36 * 3_600_000 + 7 * DAY),
        ({"train_on": Rehearsal("4w", 500, reach="8w")}, 56 * DAY + 36 * 3_600_000 + 7 * DAY),
        ({"train_on": LastRows(5_000)}, -1),
        ({"train_on": Rehearsal("4w", 500)}, -1),
        ({"train_on": Everything()}, -1),
        ({"train_on": Last("4w"), "anchor": Anchor()}, -1),
    ],
)
def test_served_rows_are_kept_for_as_long_as_a_training_may_want_them(fields, kept):
    table = {wanted.name: wanted for wanted in wanted_topics(Names("", piped(**fields)), 3)}
    assert table["flight-delay.served"].config["retention.ms"] == str(kept)
