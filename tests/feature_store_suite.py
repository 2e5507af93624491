"""What a feature store promises, whatever it is made of: who runs the suite gives the fixture `store`."""

import random
from struct import pack

from headrace.models.features import Aggregate, Lookup, Topic
from headrace.streams.rings import TRIM_FROM, Appended, rings_of

SIDE = Topic("side", time="at")
(COUNTED,) = rings_of([Aggregate(SIDE, "x", "sum", over="10s", by="who", lateness="5s")])  # keeps 15 s
(LATEST,) = rings_of([Lookup(SIDE, by="who", fields=["x", "y"], lateness="15s")])  # keeps 15 s and the last before
EPOCH = 253_402_300_000_000  # Unix ms; 15 digits, one more than a Lua number prints


def rows(*of, ring=COUNTED):
    """Packed rows of (seconds, value)."""
    return b"".join(pack(f"<q{len(ring.fields)}d", EPOCH + 1_000 * at, *[x] * len(ring.fields)) for at, x in of)


def append(store, *of, ring=COUNTED, who="a", **how):
    """A chunk of one message after another, for one entity: (seconds, value)."""
    topic, partition = how.get("topic", "side"), how.get("partition", 0)
    start = store.positions(topic).get(partition)
    return store.append(
        topic,
        partition,
        expected=start,
        next_position=(start or 0) + len(of),
        rows={ring: {ring.key((who,)): rows(*of, ring=ring)}} if of else {},
        newest=max((EPOCH + 1_000 * at for at, _ in of), default=None),
    )


class FeatureStoreSuite:
    def test_at_first_there_is_nothing(self, store):
        assert store.positions("side") == {}
        assert store.watermark("side") is None
        assert store.read([COUNTED.key(("a",))]) == [None]
        assert store.read([]) == []

    def test_rows_position_and_watermark_move_together(self, store):
        done = store.append(
            "side",
            3,
            expected=None,
            next_position=2**53 + 1,  # as text: a Lua number would lose the 1
            rows={
                COUNTED: {COUNTED.key(("a",)): rows((1, 1.5))},
                LATEST: {LATEST.key(("b",)): rows((2, 7), ring=LATEST)},
            },
            newest=EPOCH + 2_000,
        )
        assert done == Appended(applied=True, position=2**53 + 1, watermark=EPOCH + 2_000)
        assert store.positions("side") == {3: 2**53 + 1}
        assert store.watermark("side") == EPOCH + 2_000
        assert store.read([LATEST.key(("b",)), COUNTED.key(("c",)), COUNTED.key(("a",))]) == [
            rows((2, 7), ring=LATEST),
            None,
            rows((1, 1.5)),
        ]

    def test_a_chunk_that_is_not_the_next_changes_nothing_and_says_where_to_go_on(self, store):
        append(store, (1, 1.0), (2, 2.0))
        new = {COUNTED: {COUNTED.key(("a",)): rows((9, 9.0))}}
        for expected in (None, 0, 1, 3):
            refused = store.append("side", 0, expected=expected, next_position=4, rows=new, newest=EPOCH + 9_000)
            assert refused == Appended(applied=False, position=2, watermark=EPOCH + 2_000)
        assert store.read([COUNTED.key(("a",))]) == [rows((1, 1.0), (2, 2.0))]
        assert store.watermark("side") == EPOCH + 2_000

    def test_a_chunk_that_is_sent_twice_is_applied_once(self, store):
        chunk = {"expected": None, "next_position": 1, "rows": {COUNTED: {COUNTED.key(("a",)): rows((1, 1.0))}}}
        assert store.append("side", 0, **chunk, newest=EPOCH + 1_000).applied
        assert store.append("side", 0, **chunk, newest=EPOCH + 1_000).position == 1
        assert store.read([COUNTED.key(("a",))]) == [rows((1, 1.0))]

    def test_a_position_that_was_lost_means_a_rebuild(self, store):
        lost = store.append("side", 0, expected=7, next_position=8, rows={}, newest=None)
        assert lost == Appended(applied=False, position=None, watermark=None)
        assert store.positions("side") == {}

    def test_a_chunk_without_rows_moves_the_position(self, store):
        assert store.append("side", 0, expected=None, next_position=5, rows={}, newest=None).applied
        assert store.append("side", 0, expected=5, next_position=9, rows={}, newest=None) == Appended(
            applied=True, position=9, watermark=None
        )

    def test_partitions_have_positions_of_their_own_and_share_rings_and_the_watermark(self, store):
        append(store, (5, 5.0), partition=0)
        done = append(store, (3, 3.0), partition=1)
        assert done.watermark == EPOCH + 5_000
        assert store.positions("side") == {0: 1, 1: 1}
        assert store.read([COUNTED.key(("a",))]) == [rows((5, 5.0), (3, 3.0))]

    def test_topics_have_positions_and_watermarks_of_their_own(self, store):
        append(store, (5, 5.0), topic="side")
        append(store, (3, 3.0), (4, 4.0), topic="other")
        assert (store.positions("side"), store.positions("other")) == ({0: 1}, {0: 2})
        assert (store.watermark("side"), store.watermark("other")) == (EPOCH + 5_000, EPOCH + 4_000)

    def test_any_text_names_an_entity(self, store):
        names = ["", " ", "a:b", "{a}", "*", "\n", "é", "\x00", "\ud800", "x" * 2_000]
        for position, name in enumerate(names):
            store.append(
                "side",
                0,
                expected=position or None,
                next_position=position + 1,
                rows={COUNTED: {COUNTED.key((name,)): rows((1, position))}},
                newest=EPOCH + 1_000,
            )
        found = store.read([COUNTED.key((name,)) for name in names])
        assert found == [rows((1, position)) for position in range(len(names))]

    def test_a_ring_stays_within_about_twice_what_its_readers_need(self, store):
        for second in range(300):
            append(store, (second, float(second)))
            (ring,) = store.read([COUNTED.key(("a",))])
            assert len(ring) <= (2 * 15 + TRIM_FROM) * COUNTED.width
            needed = range(max(0, second - 15), second + 1)
            assert ring.endswith(rows(*[(at, float(at)) for at in needed]))

    def test_rows_are_trimmed_by_the_watermark_of_the_topic_and_not_by_the_clock(self, store):
        append(store, *[(at, float(at)) for at in range(TRIM_FROM)])
        append(store, (500, 500.0), who="b", partition=1)  # moves the watermark; the ring of a did not grow
        assert store.read([COUNTED.key(("a",))]) == [rows(*[(at, float(at)) for at in range(TRIM_FROM)])]
        append(store, (490, 490.0))
        assert store.read([COUNTED.key(("a",))]) == [rows((490, 490.0))]

    def test_a_late_row_that_no_event_can_see_does_no_harm(self, store):
        append(store, (500, 500.0))
        assert append(store, (1, 1.0)).watermark == EPOCH + 500_000
        (ring,) = store.read([COUNTED.key(("a",))])
        assert ring.startswith(rows((500, 500.0)))

    def test_a_ring_whose_rows_are_all_too_old_is_as_good_as_none(self, store):
        append(store, (500, 500.0), who="b")
        append(store, *[(at, float(at)) for at in range(TRIM_FROM)])
        assert store.read([COUNTED.key(("a",))]) == [None]

    def test_a_lookup_without_max_age_keeps_the_newest_of_the_rows_that_it_lets_go(self, store):
        old = [(at, float(at)) for at in (3, 9, 1, 9, 2, 4, 5, 6)]
        append(store, *old, ring=LATEST)
        append(store, (500, 500.0), ring=LATEST)
        kept = [row for row in old if row[0] == 9]  # both: the reader decides between rows of one time
        assert store.read([LATEST.key(("a",))]) == [rows(*kept, (500, 500.0), ring=LATEST)]

    def test_two_agents_on_one_partition_cannot_both_apply_a_chunk(self, store):
        chunk = {"expected": None, "rows": {}, "newest": None}
        assert [store.append("side", 0, next_position=at, **chunk).applied for at in (10, 20)] == [True, False]
        assert store.positions("side") == {0: 10}

    def test_thousands_of_rings_are_one_chunk(self, store):
        many = {COUNTED.key((f"user-{number}",)): rows((1, number)) for number in range(12_000)}
        assert store.append("side", 0, expected=None, next_position=12_000, rows={COUNTED: many}, newest=EPOCH).applied
        assert store.read(list(many)) == list(many.values())


def histories(seed):
    """A random life of a store: the arguments of one append after another, late rows and all."""
    chance = random.Random(seed)
    position, second = None, 0
    for _ in range(60):
        second += chance.randrange(8)
        chunk = {}
        times = []
        for ring in (COUNTED, LATEST):
            for who in chance.sample("abc", chance.randrange(4)):
                of = [(max(0, second - chance.choice([0, 0, 1, 3, 40])), chance.random()) for _ in range(4)]
                times += [at for at, _ in of]
                chunk.setdefault(ring, {})[ring.key((who,))] = rows(*of, ring=ring)
        newest = max((EPOCH + 1_000 * at for at in times), default=None)
        following = (position or 0) + chance.randrange(1, 5)
        yield {"expected": position, "next_position": following, "rows": chunk, "newest": newest}
        position = following


ALL_KEYS = [ring.key((who,)) for ring in (COUNTED, LATEST) for who in "abc"]
