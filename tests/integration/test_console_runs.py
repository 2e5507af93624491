"""The console's pages of runs in a real browser: real leaders, real trainings, and what they leave on the topics."""

from contextlib import contextmanager
from dataclasses import replace
from time import time_ns

import msgspec
import pytest
from browser import PHONE, WIDE, accessible, fits, page_of, screenshot
from kit import DEADLINE, leading, produce, wait_for
from test_crash_points import place
from test_leader import HOUR, finished, run_records
from test_serve import server_of
from test_swap import PIPELINE

from headrace import Cron, NewLabels, Score, Topic
from headrace.infra.api_keys import ApiKeys
from headrace.infra.names import RUNS, Names
from headrace.infra.topics import apply
from headrace.infra.training import plain, run_folder
from headrace.models.durations import iso
from headrace.models.records import Asked, Finished, Paused, Progressed, Requested, Scored, Scoring, Started
from headrace.trainer.run_folder import is_worked_on

assert place  # the fixture
NOW = time_ns() // 1_000_000
MOVES = ["/console/p/delay/retrain", "/console/p/delay/schedule/pause"]
HOSTILE = "<script>document.title = 'taken'</script>" + "x" * 900
EVIL_RUN = "../../<b>evil</b>?a=1#b" + "y" * 200
FORM = {"content-type": "application/x-www-form-urlencoded"}
RUNS_PAGE = "/console/p/delay/runs"


@pytest.fixture
def fresh(place):
    """A pipeline with labelled rows up to now, whose trainings wait while the file `hold` is there."""
    return place('Every("1h")', first=NOW - 400 * HOUR, end=NOW - 2 * HOUR)


@contextmanager
def console(browser, settings, *pipelines, origins=None):
    with (
        server_of(settings, *pipelines, origins=origins) as (server, client),
        page_of(browser, f"http://127.0.0.1:{server.port}") as page,
    ):
        page.set_default_timeout(1000 * DEADLINE)
        yield page, client


@contextmanager
def console_of(browser, settings, origin):
    with console(browser, settings, origin.pipeline, origins={origin.pipeline.name: origin}) as (page, _):
        yield page


def looks_well(page, name=""):
    """In a wide window and in a phone's."""
    for size in (PHONE, WIDE):
        page.set_viewport_size(size)
        fits(page)
        accessible(page)
    if name:
        screenshot(page, name)


def hold(origin):
    return origin.file.path.parent / "hold"


def put(settings, *records):
    names = Names(settings.prefix, PIPELINE)
    produce(settings, names.of(RUNS), [{"value": msgspec.json.encode(record)} for record in records])


def requested(run, at=NOW, **said):
    return Requested(run=run, pipeline="delay", at=at, **({"by": "test", "on_demand": True} | said))


def ended(run, outcome, **said):
    return Finished(run=run, pipeline="delay", at=iso(NOW), outcome=outcome, **({"reason": "so it is"} | said))


def retrain(page, why="the carriers merged"):
    """From the list of runs, by clicks; the page of the run is open then."""
    page.goto(RUNS_PAGE)
    page.get_by_role("link", name="Retrain now").click()
    page.get_by_label("Reason").fill(why)
    page.get_by_role("button", name="Retrain now").click()
    page.get_by_role("heading", name="On record").wait_for()
    page.evaluate("window.kept = true")  # for as long as nothing is loaded anew


def rows(page):
    return page.locator("[aria-label='Past runs'] tbody tr")


# ── what a click does ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_retrain_by_a_click_and_its_page_follows_it_without_a_reload_to_its_version(settings, browser, fresh):
    hold(fresh).touch()
    with leading(settings, fresh), console_of(browser, settings, fresh) as page:
        retrain(page)
        page.get_by_text("epoch 1 of 3").wait_for()
        page.get_by_text("it trains in").wait_for()
        assert page.locator("progress").get_attribute("value") == "0.3333"
        assert "the carriers merged" in page.locator("main").inner_text()
        looks_well(page, "run-trains")
        (other := page.context.new_page()).goto(RUNS_PAGE)
        other.get_by_text("epoch 1 of 3").wait_for()
        looks_well(other, "runs")
        hold(fresh).unlink()
        page.get_by_role("link", name="version 1").wait_for()
        other.get_by_text("Nothing trains").wait_for()
        assert rows(other).count() == 1
        assert page.evaluate("window.kept")
        assert page.locator("main .badge").first.inner_text() == "promoted"
        assert page.locator("figure svg[aria-label='loss by epoch']").count() == 1
        assert page.locator("#log pre").inner_text().startswith("it trains in")
        assert page.locator("#log").get_attribute("hx-trigger") == "never"
        with page.expect_response("**/log"):
            page.evaluate("htmx.trigger('#log', 'never')")  # as a poll that was on its way
        looks_well(page, "run")
    (asked,) = [one for one in run_records(settings) if isinstance(one, Requested)]
    assert (asked.on_demand, asked.by, asked.why) == (True, "console: anybody on this machine", "the carriers merged")
    (outcome,) = finished(settings)
    assert (outcome.run, outcome.outcome) == (asked.run, "promoted")


def test_the_log_of_a_training_is_followed_at_its_end_and_not_where_its_reader_scrolled_up(settings, browser, fresh):
    hold(fresh).touch()
    with leading(settings, fresh), console_of(browser, settings, fresh) as page:
        retrain(page)
        page.get_by_text("it trains in").wait_for()
        (started,) = [one for one in run_records(settings) if isinstance(one, Started)]
        log = run_folder(settings, Names(settings.prefix, fresh.pipeline), started.run) / "run.log"
        at = "box => Math.round(box.scrollHeight - box.clientHeight - box.scrollTop)"
        with log.open("a") as file:
            file.write("".join(f"{HOSTILE[:50]} {number}\n" for number in range(3_000)))
        page.get_by_text(" 2999").wait_for()
        wait_for("its end to be seen", lambda: abs(page.locator("#log pre").evaluate(at)) <= 2)
        shown = page.locator("#log pre").inner_text().splitlines()
        assert len(shown) == 2_000
        assert shown[0] == f"{HOSTILE[:50]} 1000"
        assert "The newest 2,000 lines" in page.locator("#log").inner_text()
        page.locator("#log pre").evaluate("box => { box.scrollTop = 40; }")
        with log.open("a") as file:
            file.write("one more line\n")
        page.get_by_text("one more line").wait_for(state="attached")
        assert page.locator("#log pre").evaluate("box => box.scrollTop") == 40
        assert page.evaluate("window.kept")
        hold(fresh).unlink()
        page.get_by_role("link", name="version 1").wait_for()


def test_cancel_by_a_click_ends_the_training(settings, browser, fresh):
    hold(fresh).touch()
    with leading(settings, fresh), console_of(browser, settings, fresh) as page:
        retrain(page)
        page.get_by_text("it trains in").wait_for()
        page.get_by_role("link", name="Cancel").click()
        looks_well(page)
        page.get_by_label("Reason").fill("the wrong rows")
        page.get_by_role("button", name="Cancel the run").click()
        page.locator("main .badge", has_text="cancelled").wait_for()
        (started,) = [one for one in run_records(settings) if isinstance(one, Started)]
        folder = run_folder(settings, Names(settings.prefix, fresh.pipeline), started.run)
        wait_for("its process to end", lambda: not is_worked_on(folder))
    (outcome,) = finished(settings)
    assert (outcome.run, outcome.outcome) == (started.run, "cancelled")
    assert outcome.reason == "by console: anybody on this machine: the wrong rows"


def test_what_the_leader_refuses_is_shown_with_its_reason(settings, browser, fresh):
    hold(fresh).touch()
    with leading(settings, fresh), console_of(browser, settings, fresh) as page:
        retrain(page)
        page.get_by_text("it trains in").wait_for()
        page.get_by_role("link", name="Cancel").click()
        hold(fresh).unlink()
        wait_for("its outcome", lambda: finished(settings))
        page.get_by_label("Reason").fill("too late")
        page.get_by_role("button", name="Cancel the run").click()
        page.get_by_role("alert").wait_for()
        assert "is promoted since" in page.get_by_role("alert").inner_text()
        looks_well(page)


def test_pause_and_resume_by_clicks_where_nobody_leads_but_this_server(settings, browser, fresh):
    with console_of(browser, settings, fresh) as page:
        for button, why in (("Pause", "the labels are late"), ("Resume", "they came")):
            page.goto(RUNS_PAGE)
            page.get_by_role("link", name=button).click()
            looks_well(page)
            page.get_by_label("Reason").fill(why)
            page.get_by_role("button", name=button).click()
            page.get_by_role("link", name="Resume" if button == "Pause" else "Pause").wait_for()
            told = page.locator(".alerts").inner_text() if button == "Pause" else ""
            assert ("the labels are late" in told) == (button == "Pause")
            looks_well(page)
    switched = [(one.paused, one.by, one.why) for one in run_records(settings) if isinstance(one, Paused)]
    by = "console: anybody on this machine"
    assert switched == [(True, by, "the labels are late"), (False, by, "they came")]


def test_a_request_that_nobody_runs_says_so_and_waits_for_a_scheduler(settings, browser, fresh):
    with console_of(browser, settings, fresh) as page:
        page.goto("/console/p/delay/retrain")
        assert "headrace scheduler FILE" in page.locator("main").inner_text()
        looks_well(page)
        retrain(page)
        assert "No scheduler leads delay" in page.locator("main").inner_text()
        looks_well(page)
        page.goto(RUNS_PAGE)
        assert "No scheduler leads delay" in page.locator("main").inner_text()
        looks_well(page)
        with leading(settings, fresh):
            page.get_by_text("promoted", exact=True).wait_for()
    assert [one.outcome for one in finished(settings)] == ["promoted"]


def test_a_run_that_fails_shows_its_reason_and_what_it_printed_whatever_that_is(settings, browser, fresh):
    file = fresh.file.path
    file.write_text(file.read_text().replace("return Trained(", f"raise ValueError({HOSTILE!r})\n        Trained("))
    with leading(settings, fresh), console_of(browser, settings, fresh) as page:
        retrain(page, why=HOSTILE)
        page.locator(".problem").wait_for()
        assert HOSTILE[:60] in page.locator(".problem").inner_text()
        assert "it trains in" in page.locator("#log pre").inner_text()
        assert page.title().startswith("Run ")
        looks_well(page)
        page.goto(RUNS_PAGE)
        assert page.locator("main .badge", has_text="failed").count() == 1
        looks_well(page)


# ── who may, and who cannot ───────────────────────────────────────────────────────────────────────────────────────────


def test_moves_are_in_the_name_of_the_key_for_operators_alone_and_done_once_per_form(settings, fresh):
    keys = ApiKeys(settings.api_keys)
    tokens = {role: {"authorization": f"Bearer {keys.add(f'ada-{role}', role)[1]}"} for role in ("read", "operate")}
    with server_of(settings, fresh.pipeline, origins={"delay": fresh}) as (_, client):
        for role, token in tokens.items():
            _, page, _ = client("GET", RUNS_PAGE, headers=token)
            assert (b"/delay/retrain" in page) == (b"/schedule/pause" in page) == (role == "operate")
            said = {place: client("POST", place, b"why=because&once=a", FORM | token)[0] for place in MOVES * 2}
            assert set(said.values()) == ({303} if role == "operate" else {403}), said
    records = run_records(settings)
    assert {one.by for one in records if isinstance(one, Requested | Asked)} == {"console: ada-operate"}
    assert [type(one) for one in records if isinstance(one, Requested | Paused)] == [Requested, Paused]


def test_a_move_without_a_reason_or_without_anybody_who_may_lead_is_refused_in_words(settings):
    apply(settings, PIPELINE)
    put(settings, requested("a"))
    with server_of(settings, PIPELINE) as (_, client):
        wait_for("the run to be read", lambda: client("GET", f"{RUNS_PAGE}/a")[0] == 200)
        for place in ("/console/p/delay/schedule/pause", f"{RUNS_PAGE}/a/cancel"):
            status, page, _ = client("POST", place, b"why=+", FORM)
            assert (status, b"reason: expected 1 to 1,000 characters, got 0" in page) == (400, True)
            status, page, _ = client("POST", place, b"why=because", FORM)
            assert (status, b"no scheduler runs" in page) == (503, True)
        assert client("POST", "/console/p/delay/retrain", b"why=" + b"a" * 1_001, FORM)[0] == 400
        for place in (f"{RUNS_PAGE}/b", f"{RUNS_PAGE}/b/log", "/console/p/delay/schedule/stop", "/console/p/x/runs"):
            assert client("GET", place)[0] == 404
        assert client("GET", f"{RUNS_PAGE}?outcome=lost")[0] == 400
    assert not [one for one in run_records(settings) if isinstance(one, Asked)]


# ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_nothing_ever_ran_the_page_says_what_to_do(settings, browser):
    apply(settings, PIPELINE)
    with console(browser, settings, PIPELINE) as (page, _):
        page.goto(RUNS_PAGE)
        text = page.locator("main").inner_text()
        assert "No run has ended so far." in text
        assert "this pipeline is trained on demand alone" in text
        looks_well(page)


def test_the_schedule_is_in_the_pipelines_timezone_and_in_utc_and_names_what_only_counts(settings, browser):
    customers = Topic("customers", id="id", time="at")
    pipeline = replace(
        PIPELINE,
        retrain=[Cron("0 3 1 1 *", timezone="America/New_York"), NewLabels(20_000)],
        score=[Score(customers, at=Cron("30 6 1 1 *", timezone="Asia/Kolkata"))],
    )
    apply(settings, pipeline)
    with console(browser, settings, pipeline) as (page, _):
        page.goto(RUNS_PAGE)
        train, counted, score = page.locator("[aria-label='Schedule'] tbody tr").all_inner_texts()
        assert train.count("-01-01 03:00:00 -05:00") == train.count("-01-01 08:00:00") == 3
        assert "America/New_York" in train
        assert "NewLabels" in counted
        assert "it fires by what it counts" in counted
        assert score.startswith("score customers")
        assert score.count("-01-01 06:30:00 +05:30") == score.count("-01-01 01:00:00") == 3
        looks_well(page)


def test_ticks_of_scheduled_scoring_are_among_the_runs_and_marked(settings, browser):
    apply(settings, PIPELINE)
    tick = {"pipeline": "delay", "source": "customers", "tick": iso(NOW), "at": iso(NOW), "by": "scorer", "version": 3}
    counts = {"rows": 12_345, "rejected": 67, "seconds": 2.5}
    put(
        settings,
        Scoring(run="s1", trigger="cron", ends={0: 5}, identity="i", **tick),
        Scored(run="s1", outcome="scored", **tick, **counts),
        Scoring(run="s2", trigger="cron", ends={0: 5}, identity="i", **tick),
        Scored(run="s2", **tick | {"source": "others"}, rows=99),
    )
    with console(browser, settings, PIPELINE) as (page, _):
        page.goto(RUNS_PAGE)
        page.get_by_text("99 predicted").wait_for()
        (text,) = rows(page).all_inner_texts()
        for said in ("scored", "scoring", "customers", "12,345", "67 rejected", "2.5 s"):
            assert said in text
        assert page.get_by_role("link", name="Cancel").count() == 0
        page.get_by_role("link", name="s1").click()
        page.get_by_text("12,345 predicted, 67 dead letters").wait_for()
        looks_well(page)


def test_all_that_is_on_record_of_a_run_is_on_its_page(settings, browser):
    apply(settings, PIPELINE)
    begun = {"run": "a", "pipeline": "delay", "at": iso(NOW), "tick": iso(NOW), "trigger": "cron 0 3", "ranges": ()}
    again = "killed: ended by SIGKILL from outside"
    put(
        settings,
        requested("a", why="because", on_demand=False),
        Started(**begun, host="farm-1", limits={"seconds": 60, "cpus": 2}),
        Started(**begun, host="farm-2", attempt=2, after=again, overruns=iso(NOW + HOUR)),
        ended(
            "a",
            "rejected",
            reason="not better",
            rows=1_000,
            holdout_rows=100,
            metrics={"roc_auc": 0.7, "log_loss": 0.6},
            champion_metrics={"roc_auc": 0.8, "log_loss": 0.7},
            seconds={"join": 1.5, "train": 30.0},
            curves={"loss": [0.5, 0.25], "validation_loss": [0.6, 0.5], "auc": [0.5]},
        ),
    )
    with console(browser, settings, PIPELINE) as (page, _):
        page.goto(f"{RUNS_PAGE}/a")
        text = page.locator("main").inner_text()
        counts = "1,000 trained on, 100 held out"
        for said in ("rejected", "not better", "because", "cron 0 3", "farm-2", again, counts):
            assert said in text
        assert page.locator("td.worse").first.inner_text() == "−0.1"  # noqa: RUF001  a minus
        assert page.locator("td.better").first.inner_text() == "−0.1"  # noqa: RUF001
        labels = page.locator("figure svg").evaluate_all("drawn => drawn.map(one => one.getAttribute('aria-label'))")
        assert labels[0] == "Seconds by stage: join 1.5 s, train 30 s"
        assert labels[1:] == ["loss and validation_loss by epoch", "auc by epoch"]
        assert "it trained on farm-2" in page.locator("#log").inner_text()
        looks_well(page)


def test_hostile_texts_and_ids_stay_texts_and_their_pages_are_found(settings, browser):
    apply(settings, PIPELINE)
    put(
        settings,
        requested(EVIL_RUN, by=HOSTILE, why=HOSTILE),
        Started(
            run=EVIL_RUN,
            pipeline="delay",
            at="no time",
            tick=HOSTILE,
            trigger=HOSTILE,
            ranges=(),
            host=HOSTILE,
            limits={HOSTILE: 1.0},
            after=HOSTILE,
            overruns=HOSTILE,
        ),
        Progressed(run=EVIL_RUN, pipeline="delay", at="", stage=HOSTILE, facts={HOSTILE: 1.0}, why=HOSTILE),
    )
    last = ended(
        EVIL_RUN,
        "failed",
        reason=HOSTILE,
        metrics={HOSTILE: 1e300},
        champion_metrics={HOSTILE: -1e300},
        seconds={HOSTILE: 1e9},
        curves={HOSTILE: [1e300, -1e300]},
    )
    with console(browser, settings, PIPELINE) as (page, _):
        page.goto(RUNS_PAGE)
        for state in ("started", "failed"):
            page.locator("main .badge", has_text=state).wait_for()
            looks_well(page)
            page.locator(f"a[href$='{plain(EVIL_RUN)}']").first.click()
            page.locator("main .badge", has_text=state).wait_for()
            looks_well(page)
            assert page.locator("h1 b").count() == 0
            assert "taken" not in page.title()
            if state == "started":
                page.goto(RUNS_PAGE)
                put(settings, last)


def test_of_ten_thousand_runs_a_page_has_fifty_and_any_is_found(settings, browser):
    apply(settings, PIPELINE)
    many = []
    for number in range(10_000):
        outcome = ("promoted", "rejected", "failed", "not_due")[number % 4]
        many += [requested(f"r{number}"), ended(f"r{number}", outcome, reason=f"reason {number}", version=number)]
    put(settings, *many)
    with console(browser, settings, PIPELINE) as (page, _):
        page.goto(RUNS_PAGE)
        page.get_by_text("7,500 runs, page 1 of 150").wait_for()
        assert rows(page).count() == 50
        assert rows(page).first.inner_text().startswith("r9998")  # r9999 was not due
        page.get_by_role("link", name="Older").click()
        page.get_by_text("page 2 of 150").wait_for()
        page.get_by_role("link", name="All 10,000").click()
        page.get_by_text("10,000 runs, page 1 of 200").wait_for()
        assert rows(page).first.inner_text().startswith("r9999")
        page.get_by_role("link", name="Rejected 2,500").click()
        page.get_by_text("2,500 runs, page 1 of 50").wait_for()
        looks_well(page)
        page.get_by_role("searchbox").fill("REASON 4321")
        page.get_by_role("button", name="Search").click()
        page.get_by_text("1 runs").wait_for()
        assert rows(page).all_inner_texts()[0].startswith("r4321")
        page.get_by_role("searchbox").fill("nobody says this")
        page.get_by_role("button", name="Search").click()
        page.get_by_text("No run says that.").wait_for()
        looks_well(page)
        assert page.goto(f"{RUNS_PAGE}?page=999999").status == 200
        assert rows(page).count() == 50
