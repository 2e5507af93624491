"""Which tick of scheduled scoring is due, or goes on; and which rows of a topic count at it."""

from datetime import UTC, datetime
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import AnyOf, Binary, Cron, DeclarationError, Every, NewLabels, Number, Pipeline, Score, Topic
from headrace.infra.services.runs.upcoming import upcoming
from headrace.models.durations import iso
from headrace.models.records import Paused, Scored, Scoring
from headrace.scheduler.score_ticks import ScoreTicks
from headrace.streams.codec import EventDecoder
from headrace.streams.latest_rows import LatestRows

CUSTOMERS = Topic("customers", id="id", time="at")
EVENTS = Topic("events", id="id", time="at")
LABEL = Binary(Topic("labels", id="id", time="at"), "y", within="1h", if_absent="drop")


def pipeline(**fields):
    return Pipeline(**{"name": "clicks", "events": EVENTS, "features": [Number("x")], "label": LABEL, **fields})


def ms(text):
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def scored(tick, outcome="", **said):
    common = {"run": f"r{tick}", "pipeline": "clicks", "source": "customers", "at": "", "by": "test"}
    return Scored(tick=iso(tick), outcome=outcome, **common | said)


def scoring(tick, **said):
    common = {"run": f"r{tick}", "pipeline": "clicks", "source": "customers", "at": "", "by": "test", "trigger": ""}
    return Scoring(tick=iso(tick), **{"version": 1, "ends": {0: 1}, "identity": ""} | common | said)


def ticks(*records):
    known = ScoreTicks("clicks")
    for record in records:
        known.apply(record)
        known.apply(record)
    return known


DAILY = Score(CUSTOMERS, at=Cron("0 6 * * *", timezone="UTC"))
DAY = 86_400_000
SIX = ms("2025-07-01T06:00")


def test_no_tick_is_due_until_it_is_on_record_since_when_they_count():
    assert ticks().due(DAILY, SIX) is None
    assert not ticks().known("customers")
    known = ticks(scored(SIX - 1, "declared"), scored(SIX + DAY, "declared"))
    assert known.due(DAILY, SIX - 1) is None
    assert known.due(DAILY, SIX).tick == SIX


def test_a_tick_is_due_once_and_several_missed_ones_are_the_newest():
    known = ticks(scored(SIX - 1, "declared"), scoring(SIX), scored(SIX, rows=5), scored(SIX, "scored", rows=9))
    assert known.due(DAILY, SIX + DAY - 1) is None
    late = known.due(DAILY, SIX + 3 * DAY + 5)
    assert late.tick == SIX + 3 * DAY
    assert "2" in late.text
    failed = ticks(scored(SIX - 1, "declared"), scored(SIX, "failed"))
    assert failed.due(DAILY, SIX + 5) is None


def test_what_was_begun_goes_on_from_its_last_part_before_anything_else():
    known = ticks(scored(SIX - 1, "declared"), scoring(SIX), scoring(SIX, run="other", version=2))
    assert known.due(DAILY, SIX + 9 * DAY) is None
    opened = known.open("customers")
    assert (opened.begun.run, opened.begun.version, opened.so_far, opened.tick) == (f"r{SIX}", 1, None, SIX)
    known.apply(scored(SIX, rows=5, partition=1, position=7))
    known.apply(scoring(SIX + DAY))
    assert (known.open("customers").so_far.position, known.open("customers").tick) == (7, SIX)
    known.apply(scored(SIX, "scored", rows=9))
    assert known.open("customers").tick == SIX + DAY


def test_sources_and_pipelines_have_ticks_of_their_own_and_a_pause_holds_them():
    other = scored(SIX, "scored", source="others")
    known = ticks(scored(SIX - 1, "declared"), other, scored(SIX, "scored", pipeline="else"))
    assert known.due(DAILY, SIX).tick == SIX
    paused = Paused(run="p", pipeline="clicks", paused=True, at="", by="", why="")
    known.apply(paused)
    assert known.due(DAILY, SIX) is None
    known.apply(msgspec.structs.replace(paused, paused=False))
    assert known.due(DAILY, SIX).tick == SIX


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2025-03-09", ["2025-03-09T07:00:00Z"]),  # 02:30 is not shown: at the gap's end
        ("2025-11-02", ["2025-11-02T07:30:00Z"]),  # after the fold
    ],
)
def test_a_named_hour_is_one_tick_on_the_days_on_which_clocks_change(day, expected):
    score = Score(CUSTOMERS, at=Cron("30 2 * * *", timezone="America/New_York"))
    begin = ms(f"{day}T00:00")
    known, found = ticks(scored(begin, "declared")), []
    for minute in range(24 * 60):
        if (due := known.due(score, begin + minute * 60_000)) is not None:
            found.append(iso(due.tick))
            known.apply(scored(due.tick, "scored"))
    assert found == expected


def test_the_hour_that_a_fold_shows_twice_is_one_tick():
    score = Score(CUSTOMERS, at=Cron("30 1 * * *", timezone="America/New_York"))
    begin = ms("2025-11-02T00:00")
    known, found = ticks(scored(begin, "declared")), []
    for minute in range(24 * 60):
        if (due := known.due(score, begin + minute * 60_000)) is not None:
            found.append(iso(due.tick))
            known.apply(scored(due.tick, "scored"))
    assert found == ["2025-11-02T05:30:00Z"]


def test_scoring_is_among_the_upcoming_times():
    found = upcoming(pipeline(retrain=[Every("1d")], score=[DAILY]), SIX, 2)
    assert [(one.does, one.source) for one in found] == [("train", ""), ("score", "customers")]
    assert found[1].utc == ("2025-07-02T06:00:00Z", "2025-07-03T06:00:00Z")


WRONG = {
    "no list": lambda: pipeline(score=DAILY),
    "a topic without an id": lambda: Score(Topic("t", time="at"), at=Every("1h")),
    "no source": lambda: Score("", at=Every("1h")),
    "a password in the URL": lambda: Score("ftp://me:secret@host/x.parquet", at=Every("1h")),
    "a trigger without a schedule": lambda: Score(CUSTOMERS, at=NewLabels(5)),
    "a schedule with something else": lambda: Score(CUSTOMERS, at=AnyOf(Every("1h"), NewLabels(5))),
    "a text as the schedule": lambda: Score(CUSTOMERS, at="0 6 * * *"),
    "one source twice": lambda: pipeline(score=[DAILY, Score(CUSTOMERS, at=Every("1h"))]),
    "one topic in two formats": lambda: pipeline(
        score=[Score(Topic("events", id="id", time="at", format="msgpack"), at=Every("1h"))]
    ),
    "a feature that reads its time": lambda: pipeline(
        score=[Score(Topic("customers", id="id", time="x"), at=Every("1h"))]
    ),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_what_cannot_be_scored_is_refused_when_it_is_declared(make):
    with pytest.raises(DeclarationError, match=r"^.+: expected .+, got .+\. .+") as caught:
        make()
    assert "secret" not in str(caught.value)


class Row:
    def __init__(self, offset, key, value):
        self._offset, self._key, self._value = offset, key, value

    def key(self):
        return self._key

    def value(self):
        return self._value

    def offset(self):
        return self._offset


KEYS = st.sampled_from([b"a", b"b", b"c", None])
TIMES = st.sampled_from([SIX - 5, SIX, SIX + 5])
WRITTEN = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.just(b"rubbish"), TIMES)), max_size=30)


@given(WRITTEN, st.integers(1, 7))
def test_the_latest_row_per_key_counts_as_compaction_keeps_it(written, together):
    """Held against the plain meaning: replay the log into a table."""
    rows, table, only_newer, offsets = [], {}, set(), count()
    for key, said in written:
        offset = next(offsets)
        value = msgspec.json.encode({"id": "a", "at": said}) if isinstance(said, int) else said
        rows.append(Row(offset, key, value))
        entity = key or (b"a" if isinstance(said, int) else offset)
        if said is None and key is not None:
            table.pop(entity, None)
            only_newer.discard(entity)
        elif not isinstance(said, int) or said <= SIX:
            table[entity] = offset
            only_newer.discard(entity)
        elif entity not in table:
            only_newer.add(entity)
    latest = LatestRows(EventDecoder(CUSTOMERS, (), 300_000), SIX)
    for first in range(0, len(rows), together):
        latest.take(rows[first : first + together], SIX + DAY)
    assert latest.offsets().tolist() == sorted(table.values())
    assert latest.newer == len(only_newer)
