"""Promotions, rollbacks, pins, aliases and archives as a fold; and what a leader makes of who asks for them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models import registry
from headrace.models.errors import RegistryRefused
from headrace.models.manifest import Blob
from headrace.models.records import Aliased, Archived, Asked, Promoted, Published, Unpinned
from headrace.scheduler.moves import expect_in_time, record_of

BLOB = Blob(sha256="", size=0, partition=0, offset=0, chunks=1)
NOW = 1_793_000_000_000


class Line:
    """A pipeline's registry, written as a leader does: through JSON."""

    def __init__(self, versions=0):
        self.versions = registry.Versions()
        for number in range(1, versions + 1):
            self.write(Published, version=number, manifest=BLOB)
            self.write(Promoted, version=number)

    def write(self, kind, **said):
        record = kind(pipeline="delay", seq=self.versions.seq + 1, at="", by="test", **said)
        self.versions.apply(registry.decode(msgspec.json.encode(record)))

    def ask(self, move, version=None, **said):
        asked = Asked(run="r", pipeline="delay", move=move, by="me", why="w", until=NOW, version=version, **said)
        record = record_of(asked, self.versions, NOW)
        self.versions.apply(registry.decode(msgspec.json.encode(record)))
        return record

    def refused(self, move, version=None, **said):
        before = msgspec.json.encode(vars(self.versions), enc_hook=sorted)
        with pytest.raises(RegistryRefused) as refused:
            self.ask(move, version, **said)
        assert msgspec.json.encode(vars(self.versions), enc_hook=sorted) == before
        return refused.value.reason

    @property
    def champion(self):
        return self.versions.aliases["champion"]


def test_two_rollbacks_go_back_two_versions_and_then_to_the_baseline():
    line = Line(3)
    assert [line.ask("rollback").version for _ in range(3)] == [2, 1, 0]
    assert line.refused("rollback") == "nothing_before"
    line.ask("promote", 3)
    assert line.ask("rollback").version == 0


def test_a_rollback_passes_over_what_is_archived_or_was_rolled_back():
    line = Line(4)
    line.ask("archive", 2)
    assert line.ask("rollback").version == 3
    assert line.ask("rollback").version == 1
    line.ask("promote", 4)
    assert line.ask("rollback").version == 1


def test_where_only_the_champion_itself_served_before_there_is_nothing_to_roll_back_to():
    line = Line(1)
    line.ask("promote", 0)
    line.ask("archive", 1)
    assert line.refused("rollback") == "nothing_before"


def test_a_rollback_may_name_its_version():
    line = Line(3)
    assert line.ask("rollback", 1).version == 1
    assert line.refused("rollback", 9) == "unknown_version"


def test_a_pinned_champion_stays_until_it_is_unpinned():
    line = Line(3)
    line.ask("pin", 2)
    assert (line.champion, line.versions.pinned) == (2, True)
    assert line.refused("promote", 3) == line.refused("rollback") == "pinned"
    line.ask("pin", 1)  # another pin says what is wanted
    line.ask("unpin")
    assert line.refused("unpin") == "not_pinned"
    assert line.ask("promote", 3).version == 3


def test_pin_without_a_version_holds_the_champion():
    line = Line(2)
    assert line.ask("pin").version == 2


def test_aliases_mean_one_version_each_until_they_are_moved_or_removed():
    line = Line(3)
    line.ask("alias", 1, alias="challenger")
    line.ask("alias", 2, alias="challenger")
    line.ask("alias", 1, alias="eu-west")
    assert line.versions.aliases == {"champion": 3, "challenger": 2, "eu-west": 1}
    line.ask("alias", None, alias="challenger")
    assert line.versions.aliases == {"champion": 3, "eu-west": 1}
    assert line.refused("alias", None, alias="challenger") == "unknown_alias"
    assert [move.version for move in line.versions.moves("challenger")] == [1, 2, None]


@pytest.mark.parametrize("name", ["champion", "", "Eins", "a.b", "a/b", "-a", "ä", "a" * 41, "a b", "a\n"])
def test_an_alias_is_a_part_of_a_topic_name_and_never_champion(name):
    assert Line(1).refused("alias", 1, alias=name) == "bad_alias"


def test_what_is_in_use_cannot_be_archived_and_what_is_archived_cannot_be_used():
    line = Line(3)
    line.ask("alias", 1, alias="challenger")
    assert line.refused("archive", 3) == line.refused("archive", 1) == "in_use"
    assert line.refused("archive", 0) == "baseline"
    line.ask("archive", 2)
    assert line.refused("promote", 2) == line.refused("alias", 2, alias="x") == line.refused("archive", 2) == "archived"


def test_a_promotion_of_the_champion_and_a_move_that_came_too_late_are_refused():
    line = Line(2)
    assert line.refused("promote", 2) == "champion"
    late = Asked(run="r", pipeline="delay", move="promote", by="me", why="", until=NOW - 1, version=1)
    with pytest.raises(RegistryRefused, match="too_late"):
        expect_in_time(late, NOW)
    expect_in_time(late, NOW - 1)


MOVES = st.one_of(
    st.builds(lambda v: (Promoted, {"version": v}), st.integers(0, 6)),
    st.builds(lambda v: (Promoted, {"version": v, "move": "rollback"}), st.integers(0, 6)),
    st.builds(lambda v: (Promoted, {"version": v, "move": "pin"}), st.integers(0, 6)),
    st.builds(lambda v: (Published, {"version": v, "manifest": BLOB}), st.integers(0, 6)),
    st.just((Unpinned, {})),
    st.builds(lambda a, v: (Aliased, {"alias": a, "version": v}), st.sampled_from("ab"), st.none() | st.integers(0, 6)),
    st.builds(lambda v: (Archived, {"version": v}), st.integers(0, 6)),
)


@given(st.lists(MOVES, max_size=40))
def test_whatever_is_written_every_alias_means_a_version_that_is_there_and_not_archived(moves):
    line, applied = Line(), 0
    for kind, said in moves:
        try:
            line.write(kind, **said)
            applied += 1
        except RegistryRefused:
            pass
    versions = line.versions
    assert versions.seq == applied
    for meant in versions.aliases.values():
        assert meant == 0 or meant in versions.published
        assert meant not in versions.archived
    previous = versions.previous
    assert previous is None or (previous != versions.aliases["champion"] and previous not in versions.archived)
