"""The console's Explain page: a real worker's predictions, looked at in a real browser."""

import re

import msgspec
import numpy as np
import pytest
from browser import PHONE, accessible, fits, page_of, screenshot
from delays import AT, DELAY, EVIL, event, serve, settings_in
from kit import Facts, produce, read_all, wait_for
from test_serve import server_of

from headrace.infra.names import Names
from headrace.infra.services.data.explain import explain
from headrace.infra.services.data.label_of import label_of
from headrace.infra.topics import apply
from headrace.models.drift import reference_of
from headrace.models.durations import iso
from headrace.models.manifest import OffsetRange

PAGE = "/console/p/delay/explain"


def label(number, after, late):
    value = {"id": f"e{number}", "at": AT + 1_000 * number + after, "late": late}
    return {"value": msgspec.json.encode(value), "partition": 0}


def trained(manifest):
    """On a hundred rows of distances from 0 to 99, three quarters of them of UA."""
    carriers = np.array(["UA"] * 75 + ["DL"] * 25, object)
    columns = {"distance": np.arange(100.0), "carrier": carriers}
    return msgspec.structs.replace(
        manifest,
        reference=reference_of(DELAY.schema, columns, np.linspace(0, 1, 100)),
        ranges=(OffsetRange(topic="delay.served", partition=0, first=17, end=4711),),
        run="2013-07-01-run",
        git_commit="abc123",
        source="delay = Pipeline(…)",
        dataset_sha256="d" * 64,
        trained_from=iso(AT),
        trained_through=iso(AT + 1),
    )


class World:
    """The baseline served e0 to e9, version 1 those to e19 and odd ones; one is a dead letter, one not served."""

    def __init__(self, settings):
        self.settings = settings
        odd = [
            event(20, distance=1_000, carrier=f"{EVIL}{'x' * 3_000}"),
            event(21, carrier=None) | {"headers": [("trace", EVIL.encode()), ("raw", b"\xff\x00")], "key": b"\xfe"},
            {"value": b"\x00\xff" + EVIL.encode(), "partition": 0},
        ]
        first, last = [event(n) for n in range(10)], [event(n) for n in range(10, 20)]
        self.names = serve(settings, first, [*last, *odd], weight=0.01, change=trained)
        labels = [label(12, 2_000, late=False), label(12, 1_000, late=True), label(13, 3_600_001, late=True)]
        produce(settings, self.names.labels, labels)
        produce(settings, self.names.events, [event(23)])  # nobody comes to it


@pytest.fixture(scope="module")
def world(servers, tmp_path_factory):
    return World(settings_in(servers, tmp_path_factory.mktemp("explained")))


@pytest.fixture(scope="module")
def base(world):
    with server_of(world.settings, DELAY) as (server, _):
        yield f"http://127.0.0.1:{server.port}"


def explained(page, wanted):
    page.goto(PAGE)
    page.get_by_label("Event id").fill(wanted)
    page.get_by_role("button", name="Explain").click()
    page.wait_for_selector(".chain")
    page.wait_for_selector("main [hx-get]", state="detached")  # label and all
    return page.locator("main")


def row(page, feature):
    return page.locator("#features tr", has=page.get_by_role("cell", name=feature, exact=True)).inner_text()


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["wide", "phone"])
def test_the_way_of_a_prediction_is_read_from_its_event_to_its_training_data(world, base, browser, viewport):
    with page_of(browser, base, **({"viewport": viewport} if viewport else {})) as page:
        said = explained(page, "e12").inner_text()
        for text in (
            "flights/0/6",  # where it is
            '"distance": 12',
            "Partition 0 switched to it at offset 5",
            "by test: test",  # who promoted it, and why
            "equal to the bit",
            "1 trained on, 1 held out",
            "d" * 64,
            "abc123",
        ):
            assert text in said, text
        assert "75% of training rows are like it" in row(page, "carrier")
        assert "10% to 20% of training rows are as low" in row(page, "distance")
        score = explain(world.settings, world.names, "e12", look_back=100).served.score
        assert f"{score:.4g}" in page.locator("#score").inner_text()
        accessible(page)
        fits(page)
        page.get_by_text("1 offset range").click()
        assert page.get_by_role("cell", name="4711").is_visible()
        page.locator("summary", has_text="as it was").click()
        assert page.get_by_text("delay = Pipeline(…)").is_visible()
        fits(page)
        version, run = page.locator("#version a"), page.get_by_role("link", name="The run that made it")
        assert version.get_attribute("href") == "/console/p/delay/versions/1"
        assert run.get_attribute("href") == "/console/p/delay/runs/2013-07-01-run"


def test_the_newest_predictions_are_examples_that_open_by_a_click(base, browser):
    with page_of(browser, base) as page:
        page.goto(PAGE)
        accessible(page)
        fits(page)
        page.get_by_role("link", name="e21", exact=True).click()
        page.wait_for_selector(".chain")
        assert "missing" in row(page, "carrier")
        assert "event=flights/1/10" in page.url
        screenshot(page, "explain", full=True)


def test_a_label_counts_by_the_rule_of_trainings_the_earliest_within_the_horizon(base, browser):
    with page_of(browser, base) as page:
        explained(page, "e12")
        said = page.locator("#score").inner_text()
        assert re.search(r"\b1 1 s after the event", said)
        assert "arrivals/0/1" in said
        explained(page, "e13")
        assert "None among the 3 labels that were written since" in page.locator("#score").inner_text()


def test_how_far_a_label_was_looked_for_is_said(world):
    found = explain(world.settings, world.names, "e13", look_back=100)
    labelled = label_of(world.settings, world.names, found.id, AT + 13_000, AT, look_at=2)
    assert (labelled.value, labelled.whole, labelled.looked_at >= 2) == (None, False, True)


def test_what_was_unseen_in_training_is_flagged_and_hostile_text_is_text(base, browser):
    with page_of(browser, base) as page:
        explained(page, "flights/0/10")
        assert "above every row" in row(page, "distance")
        assert "unseen in training" in page.locator("#features tr", has_text="carrier").inner_text()
        assert EVIL in page.locator("#event pre").inner_text()
        assert EVIL in page.locator("#features").inner_text()
        accessible(page)
        fits(page)
        explained(page, "e21")
        assert EVIL in page.locator("#event").inner_text()
        assert "0xff00" in page.locator("#event").inner_text()
        assert "never missing in training" in row(page, "carrier")
        assert page.evaluate("window.hacked") is None
    with page_of(browser, base, viewport=PHONE) as page:
        explained(page, "flights/0/10")
        fits(page)


def test_the_baseline_s_predictions_have_no_training_data_and_say_so(base, browser):
    with page_of(browser, base) as page:
        explained(page, "e3")
        assert "Version 0, the baseline" in page.locator("#version").inner_text()
        assert "trained on nothing" in page.locator("#features").inner_text()
        assert page.locator("#training").count() == 0
        accessible(page)


def test_what_was_asked_for_on_demand_is_explained_without_an_event(settings, browser):
    apply(settings, DELAY, 2)
    asked = {"id": "asked", "at": iso(AT), "distance": 12.0, "carrier": "UA"}
    facts = Facts()
    with server_of(settings, DELAY, facts=facts, log_served=True) as (server, client):
        assert client.post("/v1/pipelines/delay/predict", [asked])[0] == 200
        served = Names(settings.prefix, DELAY).topics.served
        (message,) = wait_for("its served row", lambda: read_all(settings, served))
        with page_of(browser, f"http://127.0.0.1:{server.port}") as page:
            for wanted in ("asked", f"delay.served/{message.partition()}/{message.offset()}/0"):
                said = explained(page, wanted).inner_text()
                assert "asked for on demand: it is on no topic" in said
                assert "It was answered to who asked for it" in said
                assert "equal to the bit" in said
            accessible(page)
            fits(page)


def test_a_dead_letter_shows_its_reason_and_its_value_and_that_there_is_no_prediction(base, browser):
    with page_of(browser, base) as page:
        explained(page, "flights/0/11")
        assert "not_utf8" in page.locator("#letter").inner_text()
        assert "No prediction" in page.locator("#letter").inner_text()
        assert f"0x00ff{EVIL.encode().hex()}" in page.locator("#event pre").inner_text()
        assert page.locator("#score").count() == 0
        accessible(page)
        fits(page)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (EVIL, "expected flights/partition/offset of an event, or the id of one among the newest 22 served rows"),
        ("flights/0/99", "expected an offset from 0 to 11"),
        ("flights/7/0", "expected a partition from 0 to 1"),
        ("flights/1/11", "not predicted yet: the workers have come to offset 11"),
        ("y" * 3_900, "expected flights/partition/offset"),
    ],
    ids=["nobody's", "past the end", "no partition", "not yet", "long"],
)
def test_what_is_not_there_is_said_with_what_is(base, browser, wanted, said):
    with page_of(browser, base, viewport=PHONE) as page:
        page.goto(PAGE)
        page.get_by_label("Event id").fill(wanted)
        page.get_by_role("button", name="Explain").click()
        assert said in page.get_by_role("alert").inner_text()
        assert page.get_by_role("link", name="Look for this id").count() == ("/" not in wanted or wanted == EVIL)
        assert page.evaluate("window.hacked") is None
        accessible(page)
        fits(page)


def test_a_pipeline_without_predictions_says_how_they_come(settings, browser):
    apply(settings, DELAY, 1)
    with server_of(settings, DELAY) as (server, _), page_of(browser, f"http://127.0.0.1:{server.port}") as page:
        page.goto(PAGE)
        assert "There is no prediction yet" in page.locator("main").inner_text()
        accessible(page)
        fits(page)
