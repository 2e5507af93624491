"""Where the artifacts log is cut: what is freed has to be worth the copies."""

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.infra.needed_artifacts import Entry, Log, Needed, _is_there
from headrace.infra.services.changes.artifact_gc import best_cut
from headrace.models.manifest import Blob


def log(*sizes):
    return [Entry(offset, size, 0) for offset, size in enumerate(sizes)]


def needed(offset, size):
    return Needed(Blob(sha256=f"{offset}", size=size, partition=0, offset=offset, chunks=1), offset)


def test_dead_bytes_at_the_beginning_go_without_a_copy():
    assert best_cut(0, 4, log(10, 10, 10, 10), [needed(2, 10), needed(3, 10)]) == 2


def test_a_small_manifest_is_copied_so_that_the_graphs_around_it_go():
    assert best_cut(0, 5, log(1_000, 3, 1_000, 3, 1_000), [needed(1, 3), needed(3, 3), needed(4, 1_000)]) == 3


def test_a_large_artifact_that_is_needed_is_not_copied_for_little():
    assert best_cut(0, 3, log(10, 1_000, 100), [needed(1, 1_000)]) == 1
    assert best_cut(0, 3, log(0, 1_000, 900), [needed(1, 1_000)]) == 0


def test_nothing_young_is_cut_and_nothing_is_cut_in_an_empty_log():
    assert best_cut(0, 2, log(10, 10, 10, 10), []) == 2
    assert best_cut(0, 4, log(10, 10, 10, 10), []) == 4
    assert best_cut(7, 7, [], []) == 7


def test_offsets_need_not_be_dense():
    entries = [Entry(3, 10, 0), Entry(9, 10, 0), Entry(20, 10, 0)]
    assert best_cut(3, 30, entries, [needed(20, 10)]) == 20
    assert best_cut(3, 20, entries, []) == 20
    assert best_cut(3, 30, entries, []) == 30


@given(
    st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=30),
    st.integers(0, 30),
)
@example([(1, False), (1, False), (1, True), (2, False)], 3)  # the last record is too young to go
def test_no_other_cut_gains_more(records, latest):
    entries = log(*[size for size, _ in records])
    latest = min(latest, len(entries))
    live = [needed(offset, size) for offset, (size, is_needed) in enumerate(records) if is_needed]

    def gain(cut):
        freed = sum(entry.size for entry in entries if entry.offset < cut)
        return freed - 2 * sum(one.blob.size for one in live if one.reachable < cut)

    found = best_cut(0, latest, entries, live)
    assert 0 <= found <= latest
    assert gain(found) == max(gain(cut) for cut in range(latest + 1))


def test_a_copy_counts_where_its_chunks_are_and_not_where_a_record_says():
    keys = {3: b"a/0", 5: b"b/0", 6: b"a/1", 7: b"a/2"}
    there = Log(begin=3, end=8, entries=[], keys=keys)

    def copy(sha256, offset, chunks):
        return Blob(sha256=sha256, size=1, partition=0, offset=offset, chunks=chunks)

    assert _is_there(there, copy("a", 3, 3))
    assert _is_there(there, copy("b", 5, 1))
    for absent in (copy("a", 6, 1), copy("a", 3, 4), copy("b", 3, 1), copy("a", 1 << 60, 1), copy("a", -1, 1)):
        assert not _is_there(there, absent)
