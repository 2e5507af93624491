"""A run on record → what commands and pages say of it; many runs → the ones that somebody looks for."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.infra.names import Names
from headrace.infra.services.runs.run_list import PAGE, going, one_of, past
from headrace.infra.services.runs.run_logs import newest_lines
from headrace.infra.services.runs.run_words import (
    compared,
    curve_in_a_line,
    curves_together,
    progress_of,
    rows_of,
    thinned,
    took,
)
from headrace.infra.services.versions.book import Book, RunFacts
from headrace.infra.settings import Settings
from headrace.infra.training import plain, run_folder
from headrace.models.errors import BadInput
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline

BEGAN = "2026-07-04T12:00:00Z"
LATER = datetime(2026, 7, 4, 12, 0, 30, tzinfo=UTC)
PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)


def run(number=0, state="promoted", **said):
    ends = "" if state in ("requested", "started", "scoring") else BEGAN
    return RunFacts(run=f"r{number}", state=state, finished_at=ends, **said)


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("facts", "share", "counted", "left"),
    [
        ({"epoch": 1.0, "epochs": 4.0, "loss": 0.5, "eta_seconds": 9.0}, 0.25, "epoch 1 of 4", {"loss": 0.5}),
        ({"eta_seconds": 90.0, "rows": 7.0}, 0.25, "", {"rows": 7.0}),
        ({"rows": 7.0}, None, "", {"rows": 7.0}),
        ({"epoch": 5.0, "epochs": 4.0}, None, "", {"epoch": 5.0, "epochs": 4.0}),
    ],
)
def test_progress_is_what_the_training_counts_else_the_time_it_took_of_what_it_takes(facts, share, counted, left):
    found = progress_of(run(state="started", started_at=BEGAN, facts=facts), LATER)
    assert (found.share, found.counted, found.facts) == (share, counted, left)
    assert (found.eta_seconds, found.late) == (facts.get("eta_seconds"), False)


def test_a_run_that_takes_longer_than_those_before_it_says_so_and_no_share():
    found = progress_of(run(state="started", started_at=BEGAN, facts={"eta_seconds": 0.0}), LATER)
    assert (found.share, found.eta_seconds, found.late) == (None, None, True)


def test_progress_is_between_nothing_and_all_whatever_the_clocks_say():
    for began in ("2030-01-01T00:00:00Z", BEGAN, "no time", ""):
        share = progress_of(run(state="started", started_at=began, facts={"eta_seconds": 1e-9}), LATER).share
        assert share is None or 0 <= share <= 1


def test_a_metric_is_better_by_the_way_that_is_better_for_it_and_neither_where_nobody_knows():
    ours = {"roc_auc": 0.7, "log_loss": 0.7, "brier": 0.2, "profit": 3.0, "accuracy": 0.5}
    champions = {"roc_auc": 0.6, "log_loss": 0.6, "brier": 0.2, "profit": 2.0}
    found = {one.metric: one.verdict for one in compared(run(metrics=ours, champion_metrics=champions))}
    assert found == {"roc_auc": "better", "log_loss": "worse", "brier": "", "profit": "", "accuracy": ""}


def test_a_long_curve_keeps_its_beginning_and_its_end():
    curve = [float(number) for number in range(1_000)]
    for most in (1, 2, 12, 400, 999, 5_000):
        picked = thinned(curve, most)
        assert picked[0] == (1, 0.0)
        assert picked[-1] == (1_000, 999.0)
        assert len(picked) <= most + 1
    assert thinned([], 12) == []
    assert curve_in_a_line([0.5, 0.25]) == "0.5 0.25"
    assert curves_together({"loss": curve, "validation_loss": curve, "auc": [1.0], "none": []}) == [
        ["loss", "validation_loss"],
        ["auc"],
    ]


def test_rows_and_seconds_of_a_training_and_of_a_scored_tick():
    trained = run(rows=1_000, holdout_rows=10, started_at="2026-07-04T11:59:58Z")
    scored = run(source="customers", rows=5, rejected=1, newer=2, seconds={"score": 1.5})
    assert (rows_of(trained), took(trained)) == ("1,000 trained on, 10 held out", 2.0)
    assert (rows_of(scored), took(scored)) == ("5 predicted, 1 dead letters, 2 newer than the tick", 1.5)
    assert took(run()) is None


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_past_runs_are_newest_first_a_page_at_a_time_and_what_was_not_due_only_where_it_is_asked_for():
    outcomes = ("promoted", "failed", "not_due")
    runs = [run(number, outcomes[number % 3]) for number in range(300)] + [run(300, "started")]
    found = past(runs)
    assert [one.run for one in found.runs[:3]] == ["r298", "r297", "r295"]
    assert (len(found.runs), found.pages, found.found) == (PAGE, 4, 200)
    assert found.counts == {"promoted": 100, "failed": 100, "not_due": 100}
    assert past(runs, page=4).runs[-1].run == "r0"
    assert [past(runs, page=page).page for page in (-1, 0, 5, 10**9)] == [1, 1, 4, 4]
    assert past(runs, every=True).found == 300
    assert {one.state for one in past(runs, outcome="not_due").runs} == {"not_due"}
    assert past([]).runs == []


def test_every_word_is_looked_for_in_all_that_is_on_record():
    runs = [
        run(0, reason="not worse by more than 0.005", by="Ada", version=12),
        run(1, "failed", reason="too few rows", why="Ada's wish"),
        run(2, "scored", source="customers"),
    ]
    texts = {
        "ada": 2,
        "ADA rows": 1,
        "v12": 1,
        "v1": 1,
        "v2": 0,
        "customers": 1,
        "failed": 1,
        "": 3,
        "ada customers": 0,
    }
    assert {text: past(runs, text=text).found for text in texts} == texts


def test_what_trains_goes_before_what_waits():
    runs = [run(0, "requested"), run(1), run(2, "started"), run(3, "requested"), run(4, "scoring")]
    assert [one.run for one in going(runs)] == ["r2", "r4", "r0", "r3"]


def test_a_run_is_found_by_its_id_by_its_beginning_and_by_the_name_of_an_id_that_is_no_plain_one(tmp_path):
    book, evil = Book(Settings(home=tmp_path), Names("", PIPELINE)), "../a/b?c#d"
    for one in ("2026-a", "2026-b", evil):
        book._runs[one] = RunFacts(run=one)
    assert [one_of(book, name).run for name in ("2026-a", "2026-b", plain(evil))] == ["2026-a", "2026-b", evil]
    assert one_of(book, "../a").run == evil
    for wanted in ("2026", "2027", "", "f" * 64):
        with pytest.raises(BadInput):
            one_of(book, wanted)


# ── logs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def logged(tmp_path):
    """Writes a run's logs, oldest first, and gives the newest lines of all."""
    settings, names = Settings(home=tmp_path), Names("", PIPELINE)
    folder: Path = run_folder(settings, names, "r0")
    folder.mkdir(parents=True)

    def newest(*texts, most=5):
        for number, text in enumerate(texts, 1):
            name = "run.log" if number == len(texts) else f"run-{number}.log"
            (folder / name).write_bytes(text)
        return newest_lines(settings, names, run(), most)

    return newest


def test_the_newest_lines_of_all_attempts_are_given_oldest_first(logged):
    found = logged(b"a\nb\n", b"c\r\nd\re")
    assert (found.lines, found.whole) == (["a", "b", "c", "d", "e"], True)
    found = logged(b"a\nb\n", b"c\nd\ne\nf\n")
    assert (found.lines, found.whole) == (["b", "c", "d", "e", "f"], False)


@pytest.mark.parametrize("text", [b"", b"\n", b"\xff\xfe\x00", b"x" * 3_000_000, b"line\n" * 1_000_000])
def test_a_log_is_read_from_its_end_whatever_it_holds_and_however_long_it_is(logged, text):
    found = logged(text)
    assert len(found.lines) <= 5
    assert sum(map(len, found.lines)) <= 1 << 20
    assert found.whole == (len(text) < 1_000)


def test_a_run_without_a_log_says_why_it_has_none(tmp_path):
    with pytest.raises(BadInput, match="expected a run that trains or has trained, its state is requested"):
        newest_lines(Settings(home=tmp_path), Names("", PIPELINE), run(state="requested"), 5)
