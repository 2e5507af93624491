"""Who served when by event time, and how it is drawn: partitions that switch apart, rollbacks, windows, gone rows."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.console.timeline_chart import Lane, timeline
from headrace.infra.services.runs.run_words import beside
from headrace.infra.services.versions.book import VersionFacts
from headrace.infra.services.versions.spells import spells, window
from headrace.infra.services.versions.timeline import Served
from headrace.infra.services.versions.version_search import matching
from headrace.models.durations import iso
from headrace.models.records import Promoted

HOUR = 3_600_000
HOSTILE = '"><script>alert(1)</script>'


def line(seq, version, partition, first, end):
    return Served(
        topic="flights",
        partition=partition,
        first=first,
        end=end,
        version=version,
        seq=seq,
        since="2026-01-01T00:00:00Z",
        until="",
        workers=("w",),
        late=0,
    )


def promoted(seq, version, move="promote"):
    return Promoted(pipeline="delay", seq=seq, version=version, at=iso(0), by="alice", why=HOSTILE, move=move)


class At:
    """Offset n of partition p happened n hours and p minutes after 1970; what `knows` refuses is `gone`, or to come."""

    def __init__(self, knows=lambda _: True, *, gone=True, of=lambda place: place[1] * HOUR + place[0] * 60_000):
        self.knows, self.of, self.of_gone = knows, of, gone

    def __call__(self, place):
        return self.of(place) if self.knows(place) else None

    def gone(self, place):
        return self.of_gone and not self.knows(place)


at = At()


LINES = [
    *[line(0, 0, partition, 0, 10) for partition in (0, 1)],
    line(2, 1, 0, 10, 20),
    line(2, 1, 1, 10, 25),
    line(4, 0, 0, 20, None),
    line(4, 0, 1, 25, None),
]


def test_a_spell_tells_its_first_and_its_last_partition_apart():
    newest, middle, oldest = spells(LINES, [promoted(2, 1), promoted(4, 0, "rollback")], {}, at)
    assert (oldest.version, oldest.move, oldest.begin) == (0, "", 0)
    assert (middle.version, middle.partitions, middle.serves) == (1, 2, False)
    assert (middle.begin, middle.begin_everywhere) == (10 * HOUR, 10 * HOUR + 60_000)
    assert (middle.end_anywhere, middle.end) == (20 * HOUR, 25 * HOUR + 60_000)
    assert (newest.version, newest.move, newest.serves, newest.end) == (0, "rollback", True, None)


def test_where_rows_are_gone_a_promotion_begins_at_its_runs_tick_and_a_rollback_nowhere():
    promotions = [promoted(2, 1), promoted(4, 0, "rollback")]
    newest, middle, _ = spells(LINES, promotions, {1: iso(9 * HOUR), 0: iso(0)}, At(lambda _: False))
    assert (middle.begin, middle.by_tick) == (9 * HOUR, True)
    assert (newest.begin, newest.by_tick) == (None, False)


@given(st.integers(1, 60), st.integers(1, 25))
def test_windows_one_after_the_other_show_every_spell_once_there_and_back(count, size):
    lines = [line(2 * seq, seq, partition, seq * 10, seq * 10 + 10) for seq in range(count) for partition in (0, 1)]
    shown, before, visited = [], 0, []
    while True:
        found = window(lines, before, size)
        shown += sorted({one.seq for one in found.lines}, reverse=True)
        visited.append(before)
        if found.older is None:
            break
        before = found.older
    assert shown == [2 * seq for seq in reversed(range(count))]
    back = []
    while (found := window(lines, before, size)).newer is not None:
        before = found.newer
        back.append(before)
    assert back == visited[-2::-1]


def lanes(found, aliases=()):
    of = {}
    for spell in found:
        of.setdefault(spell.version, []).append(spell)
    return [
        Lane(version=version, href=f"/v/{version}", aliases=aliases, spells=ones, trained_through=5 * HOUR)
        for version, ones in of.items()
    ]


def test_a_version_that_served_twice_has_one_lane_with_two_bars_and_pale_ends_where_partitions_differ():
    found = spells(LINES, [promoted(2, 1), promoted(4, 0, "rollback")], {}, at)
    svg = ET.fromstring(timeline(lanes(found, ("champion", HOSTILE)), 40 * HOUR, "who served"))  # noqa: S314  ours
    links = [one for one in svg.iter("a") if one.find("rect") is not None]
    assert [one.get("href") for one in links] == ["/v/0", "/v/0", "/v/1"]
    assert len([rect for rect in svg.iter("rect") if "some" in rect.get("class")]) == 2
    assert not list(svg.iter("script"))
    for rect in svg.iter("rect"):
        assert float(rect.get("width")) > 0
        assert 0 <= float(rect.get("x")) <= float(rect.get("x")) + float(rect.get("width")) <= 1120
    assert HOSTILE in "".join(svg.itertext())
    assert not re.search(r"nan|inf", ET.tostring(svg, encoding="unicode").split("<title>")[0])


def test_what_has_no_time_is_not_drawn():
    found = spells(LINES, [], {}, At(lambda _: False))
    assert timeline(lanes(found), None, "who served") == ""


def labels_of(found, newest):
    svg = ET.fromstring(timeline(lanes(found), newest, "who served"))  # noqa: S314  ours
    return [one.get("aria-label") for one in svg.iter("a") if one.find("rect") is not None]


def test_a_champion_that_no_event_came_to_since_stands_at_the_end():
    found = spells(LINES, [], {}, At(lambda place: place[1] < 20, gone=False))
    assert found[0].waits
    assert labels_of(found, 19 * HOUR)[0] == "baseline serves, and no event came since"


def test_a_champion_whose_first_rows_are_gone_is_drawn_from_the_left():
    found = spells(LINES, [], {}, At(lambda _: False))
    assert not found[0].waits
    assert labels_of(found, 30 * HOUR) == ["baseline served from before the oldest row on"]
    found = spells(LINES, [], {}, At(lambda place: place[1] >= 20))
    assert labels_of(found, 30 * HOUR)[1] == f"version 1 served from before the oldest row to {iso(25 * HOUR + 60_000)}"


@given(st.lists(st.integers(0, 1 << 42), min_size=6, max_size=6))
def test_any_times_are_drawn_within_the_picture(times):
    found = spells(LINES, [], {}, At(of=lambda place: times[(place[0] * 7 + place[1]) % 6]))
    for rect in ET.fromstring(timeline(lanes(found), max(times), "x")).iter("rect"):  # noqa: S314  ours
        assert float(rect.get("x")) >= 0
        assert float(rect.get("x")) + float(rect.get("width")) <= 1120


VERSIONS = [
    VersionFacts(version=12, aliases=("challenger",), run="run-a", why="Better at Newark", by="alice"),
    VersionFacts(version=2, promoted_at="2026-01-01T00:00:00Z", why="12 of 13", state="archived"),
    VersionFacts(version=0, aliases=("champion",), why="computed"),
]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [12, 2, 0]),
        ({"text": " 12 "}, [12]),
        ({"text": "newark"}, [12]),
        ({"text": "ALICE"}, [12]),
        ({"text": "run-"}, [12]),
        ({"text": "of 13"}, [2]),
        ({"text": "7"}, []),
        ({"kind": "promoted"}, [2]),
        ({"kind": "unpromoted"}, [12]),
        ({"kind": "archived"}, [2]),
        ({"alias": "champion"}, [0]),
    ],
)
def test_a_version_is_found_by_number_or_by_what_is_said_of_it(wanted, numbers):
    assert [one.version for one in matching(VERSIONS, **wanted)] == numbers


def test_the_gates_metric_comes_first_and_less_loss_is_better():
    own, champion = {"log_loss": 0.4, "roc_auc": 0.7, "profit": 3.0}, {"log_loss": 0.5, "roc_auc": 0.71}
    verdicts = [(one.metric, one.verdict) for one in beside(own, champion, first="roc_auc")]
    assert verdicts == [("roc_auc", "worse"), ("log_loss", "better"), ("profit", "")]
