"""When a version goes back, when a challenger takes over, and what is asked for then."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from headrace.models.errors import DeclarationError, RegistryRefused
from headrace.models.facts import Guarded
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.manifest import Blob
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import LiveLoss, Numbers, Paired
from headrace.models.records import Aliased, Archived, Promoted, Published
from headrace.models.registry import Versions
from headrace.scheduler.guard import Guard, Pairing, pairings
from headrace.scheduler.moves import record_of
from headrace.scheduler.rollback import Rollback, Shadow
from headrace.scheduler.triggers import Degraded

DAY = 86_400_000  # ms
NOW = 1_800_000_000_000  # Unix ms
AT = "2027-01-15T08:00:00Z"  # the same moment
PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    rollback=Rollback(),
    shadow=Shadow(),
)
WORSE = Paired(
    version=2,
    other=1,
    loss="brier",
    rows=900,
    mean=0.25,
    other_mean=0.2,
    low=0.02,
    high=0.08,
    scored=900,
    elapsed_ms=DAY,
)
BETTER = replace(WORSE, mean=0.15, low=-0.08, high=-0.01)
UNSURE = replace(WORSE, low=-0.01)
BLOB = Blob(sha256="", size=1, partition=0, offset=0, chunks=1)


def versions(*moves):
    """1, 2, … published, then the moves."""
    found = Versions()
    records = [
        Published(pipeline="delay", seq=0, at=AT, by="x", version=version, manifest=BLOB) for version in (1, 2, 3)
    ]
    for seq, record in enumerate([*records, *moves], 1):
        found.apply(changed(record, seq=seq))
    return found


def promoted(version, move="promote"):
    return Promoted(pipeline="delay", seq=0, at=AT, by="x", version=version, move=move)


def challenger(version):
    return Aliased(pipeline="delay", seq=0, at=AT, by="x", alias="challenger", version=version)


# ── taking back ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_that_is_surely_worse_goes_back_with_the_numbers_in_the_reason():
    why = Rollback().due(WORSE)
    assert why == (
        "its brier is 0.25 on 900 labelled rows, 0.2 for version 1: worse by at least 0.02, at most 0.01 allowed"
    )


@pytest.mark.parametrize("paired", [UNSURE, BETTER, replace(WORSE, elapsed_ms=31 * DAY)])
def test_one_that_may_be_as_good_or_has_long_proven_itself_stays(paired):
    assert Rollback().due(paired) is None


def test_how_much_worse_it_may_be_is_the_users_or_a_twentieth():
    assert Rollback(max_loss=0.05).due(WORSE) is None
    little = replace(WORSE, low=0.009)
    assert Rollback().due(little) is None
    assert Rollback(max_loss=0.0).due(little) is not None


def test_before_labels_come_only_both_signs_together_take_it_back():
    odd = replace(UNSURE, rows=0, disagreement=0.3, drift=0.9, other_drift=0.0)
    assert Rollback().due(odd).startswith("over 900 rows it answers 0.3 away from version 1")
    for other in [
        replace(odd, disagreement=0.05),
        replace(odd, drift=0.1),
        replace(odd, other_drift=0.9),
        replace(odd, other_drift=None),
        replace(odd, scored=100),
    ]:
        assert Rollback().due(other) is None
    assert Rollback(without_labels=False).due(odd) is None
    assert Rollback().due(replace(odd, loss="mae")) is None  # 0.3 of what?
    assert Rollback(max_disagreement=0.2).due(replace(odd, loss="mae")) is not None


def test_a_version_that_cannot_answer_what_the_other_answers_goes():
    deaf = replace(UNSURE, rows=0, scored=900, unanswered=50)
    assert Rollback().due(deaf) == "it cannot answer 50 of 950 rows that version 1 answers"
    assert not Shadow().decide(deaf).promote
    assert Rollback().due(replace(deaf, unanswered=5)) is None


# ── the shadow ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_challenger_is_promoted_dropped_or_waits():
    assert Shadow().decide(BETTER).promote
    assert not Shadow().decide(WORSE).promote
    assert Shadow().decide(UNSURE) is None
    assert Shadow().decide(replace(BETTER, rows=20)) is None


def test_what_is_no_gain_is_dropped_where_every_change_has_to_pay():
    assert Shadow(min_gain=0.005).decide(BETTER).promote
    assert not Shadow(min_gain=0.2).decide(replace(BETTER, low=-0.08)).promote


def test_undecided_for_too_long_it_goes_or_as_the_pipeline_says():
    late = replace(UNSURE, elapsed_ms=15 * DAY)
    assert "undecided after 14d" in Shadow().decide(late).reason
    assert not Shadow().decide(late).promote
    assert Shadow(undecided="promote").decide(late).promote


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Rollback, {"max_loss": -1}),
        (Rollback, {"max_disagreement": "much"}),
        (Rollback, {"min_rows": 0}),
        (Rollback, {"watch": "soon"}),
        (Shadow, {"max_loss": 0.1, "min_gain": 0.1}),
        (Shadow, {"undecided": "toss"}),
        (Shadow, {"within": "5m"}),
        (Degraded, {"by": -0.1}),
        (Degraded, {"rows": 0}),
    ],
)
def test_a_wrong_policy_fails_when_it_is_made(kind, wrong):
    with pytest.raises(DeclarationError):
        kind(**wrong)


# ── what is compared, and asked for ───────────────────────────────────────────────────────────────────────────────────


def test_a_champion_is_compared_with_its_predecessor_and_a_challenger_with_the_champion():
    known = versions(promoted(1), promoted(2), challenger(3))
    assert pairings(PIPELINE, known) == [
        Pairing(why="rollback", version=2, other=1, since=NOW),
        Pairing(why="shadow", version=3, other=2, since=NOW),
    ]


@pytest.mark.parametrize(
    "moves", [(), (promoted(1), promoted(2), promoted(1, "rollback")), (promoted(1), promoted(1, "pin"))]
)
def test_what_was_taken_back_or_pinned_or_never_served_is_compared_with_nothing(moves):
    assert pairings(PIPELINE, versions(*moves)) == []


def test_the_first_version_can_go_back_to_the_baseline():
    assert pairings(PIPELINE, versions(promoted(1))) == [Pairing(why="rollback", version=1, other=0, since=NOW)]


def test_a_rollback_is_asked_for_once_in_two_requests_that_the_leader_can_do_one_after_the_other():
    known, facts = versions(promoted(1), promoted(2)), []
    guard = Guard(PIPELINE, facts.append, lambda _now: f"run-{len(facts)}", lambda: NOW)
    (pairing,) = pairings(PIPELINE, known)
    assert guard.asks(known, {pairing: UNSURE}) == []
    back, out = guard.asks(known, {pairing: WORSE})
    assert [one.by for one in (back, out)] == ["guard", "guard"]
    for asked in (back, out):
        known.apply(record_of(asked, known, NOW))
    assert known.aliases == {"champion": 1}
    assert known.archived == {2}
    assert guard.asks(known, {pairing: WORSE}) == []
    (fact,) = facts
    assert isinstance(fact, Guarded)
    assert (fact.action, fact.version, fact.other, fact.rows) == ("rolled_back", 2, 1, 900)


def test_a_request_that_nobody_did_in_time_is_made_again_and_a_policy_that_raises_ends_nothing():
    known, facts, clock = versions(promoted(1), promoted(2)), [], [NOW]
    guard = Guard(PIPELINE, facts.append, lambda _now: "run", lambda: clock[0])
    measured = {pairings(PIPELINE, known)[0]: WORSE}
    assert len(guard.asks(known, measured)) == 2
    assert guard.asks(known, measured) == []
    clock[0] += 61_000
    assert len(guard.asks(known, measured)) == 2
    raising = replace(PIPELINE, rollback=Raising())
    assert Guard(raising, facts.append, lambda _now: "run", lambda: NOW).asks(known, measured) == []
    assert facts[-1].reason == "policy_raised"


class Raising:
    def due(self, paired):
        raise ZeroDivisionError(paired)


def test_a_champion_that_is_the_challenger_too_goes_from_both_places():
    known = versions(promoted(1), challenger(2), promoted(2))
    guard = Guard(PIPELINE, lambda _fact: None, lambda _now: "run", lambda: NOW)
    for asked in guard.asks(known, {pairings(PIPELINE, known)[0]: WORSE}):
        known.apply(record_of(asked, known, NOW))
    assert (known.aliases, known.archived) == ({"champion": 1}, {2})


def test_a_move_that_does_not_say_when_it_was_compares_nothing():
    assert pairings(PIPELINE, versions(promoted(1), changed(promoted(2), at=""))) == []


def test_the_barred_version_cannot_come_back():
    known = versions(promoted(1), promoted(2), promoted(1, "rollback"))
    known.apply(Archived(pipeline="delay", seq=7, at=AT, by="guard", version=2))
    with pytest.raises(RegistryRefused, match="archived"):
        known.check(changed(promoted(2), seq=8))


def test_a_rollback_that_comes_too_late_is_refused():
    known = versions(promoted(1), promoted(2))
    guard = Guard(PIPELINE, lambda _fact: None, lambda _now: "run", lambda: NOW)
    back, _ = guard.asks(known, {pairings(PIPELINE, known)[0]: WORSE})
    known.apply(changed(promoted(3), seq=6))
    with pytest.raises(RegistryRefused, match="it was asked for while version 2 served; 3 does now"):
        record_of(back, known, NOW)


def test_a_challenger_that_is_better_serves_and_is_challenger_no_more():
    known = versions(promoted(1), challenger(2))
    guard = Guard(PIPELINE, lambda _fact: None, lambda _now: "run", lambda: NOW)
    measured = {one: BETTER for one in pairings(PIPELINE, known) if one.why == "shadow"}
    for asked in guard.asks(known, measured):
        known.apply(record_of(asked, known, NOW))
    assert known.aliases == {"champion": 2}


def test_beside_a_pinned_champion_nothing_is_asked_for():
    known = versions(promoted(1), promoted(2), challenger(3))
    compared = pairings(PIPELINE, known)
    known.apply(changed(promoted(2, "pin"), seq=7))
    guard = Guard(PIPELINE, lambda _fact: None, lambda _now: "run", lambda: NOW)
    assert guard.asks(known, dict.fromkeys(compared, WORSE)) == []


# ── degraded ──────────────────────────────────────────────────────────────────────────────────────────────────────────

LIVE = LiveLoss(version=2, loss="brier", rows=5_000, mean=0.25, low=0.24, high=0.26, held_out=0.2, held_out_error=0.01)


def numbers(live, new_labels=1_000):
    return Numbers(last_tick=None, started=0, new_labels=new_labels, live=live)


def test_a_champion_that_loses_surely_more_than_on_its_holdout_makes_a_run():
    reason = Degraded(by=0.01).due(numbers(LIVE), NOW)
    assert reason.tick == NOW
    assert reason.text.startswith("version 2's brier is 0.25 on 5,000 live rows, at least 0.24, 0.2 on its holdout")


@pytest.mark.parametrize(
    "found",
    [
        numbers(None),
        numbers(LIVE, new_labels=100),
        numbers(replace(LIVE, low=0.229)),
        numbers(replace(LIVE, held_out_error=0.02)),
    ],
)
def test_what_may_be_chance_or_was_just_trained_on_makes_none(found):
    assert Degraded(by=0.01).due(found, NOW) is None


# ── a canary ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("alias", "share"), [("other", 0.1), ("challenger", 1.0), ("challenger", -0.1)])
def test_only_the_challenger_serves_a_share_and_not_all(alias, share):
    record = Aliased(pipeline="delay", seq=5, at=AT, by="x", alias=alias, version=2, share=share)
    with pytest.raises(RegistryRefused, match="bad_share"):
        versions(promoted(1)).check(record)
