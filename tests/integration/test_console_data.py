"""The console's Data pages: a real worker's topics in a real browser, and dead letters that are redriven by clicks."""

import os
import re
import subprocess
import sys
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
from browser import PHONE, accessible, fits, page_of, screenshot
from delays import AT, DELAY, EVIL, event, serve, settings_in
from kit import produce, read_all
from playwright.sync_api import expect
from test_dead_letters import SEND_BAD_HEADER
from test_redrive import park
from test_serve import server_of

from headrace.infra.api_keys import ApiKeys
from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letters import letters
from headrace.infra.services.dead_letters.redrive import redrive_all
from headrace.infra.topics import apply
from headrace.models.drift import reference_of
from headrace.models.features import Lookup, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline

WITH_SIDE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Lookup(Topic("weather", time="at"), by="origin", fields=["temp"], max_age="3h")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)
DATA = "/console/p/delay/data"
LETTERS = f"{DATA}?topic=delay.dead-letters"
POISON = b"\x00\xff\xfe" + EVIL.encode()
EVENTS = 130


def trained(manifest):
    """On distances from 1,000 to 1,999, which the events have not, and on their carrier."""
    columns = {"distance": np.arange(1_000.0, 2_000), "carrier": np.array(["UA"] * 1_000, object)}
    return msgspec.structs.replace(manifest, reference=reference_of(DELAY.schema, columns, np.linspace(0.5, 1, 1_000)))


class World:
    """130 events, the last ten of them by version 1; two labels; an event that is poison and one with hostile text."""

    def __init__(self, settings):
        self.settings = settings
        hostile = event(500, carrier=f"{EVIL}{'x' * 3_000}") | {"key": b"\xfe", "headers": [(EVIL, b"\xff\x00")]}
        poison = {"value": POISON, "partition": 1, "key": EVIL.encode()}
        first, last = [event(n) for n in range(EVENTS - 10)], [event(n) for n in range(EVENTS - 10, EVENTS)]
        self.names = serve(settings, first, [*last, hostile, poison], weight=0.001, change=trained)
        labels = [{"id": "e3", "at": AT + 4_000, "late": True}, {"id": "e4", "at": AT + 5_000, "late": False}]
        produce(settings, self.names.labels, [{"value": msgspec.json.encode(one)} for one in labels])
        self.poison_place = next(m.offset() for m in read_all(settings, self.names.events) if m.value() == POISON)


@pytest.fixture(scope="module")
def world(servers, tmp_path_factory):
    return World(settings_in(servers, tmp_path_factory.mktemp("browsed")))


@pytest.fixture(scope="module")
def base(world):
    with server_of(world.settings, DELAY) as (server, _):
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=[None, PHONE], ids=["wide", "phone"])
def page(request, base, browser):
    with page_of(browser, base, **({"viewport": request.param} if request.param else {})) as found:
        yield found


def presentable(page):
    lazy = "main [hx-get]:not([hx-preserve]), main [hx-preserve] > [role=status]"
    page.wait_for_selector(lazy, state="detached")  # all parts are there
    accessible(page)
    fits(page)
    assert page.evaluate("window.hacked") is None


def shown(page):
    """Texts of the first column."""
    return page.locator("main tbody tr td:first-child").all_inner_texts()


# ── topics ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_are_listed_newest_first_fifty_a_page_to_the_beginning_and_back(page):
    page.goto("/console/p/delay")
    page.get_by_role("link", name="Data", exact=True).click()
    page.get_by_role("heading", name="Data").wait_for()
    presentable(page)
    pages = [shown(page)]
    while page.get_by_role("link", name="Older").count():
        page.get_by_role("link", name="Older").click()
        page.wait_for_load_state()
        pages.append(shown(page))
    assert [len(one) for one in pages] == [50, 50, 32]
    assert len({place for one in pages for place in one}) == EVENTS + 2
    for number in (0, 1):
        offsets = [int(one.split("/")[1]) for rows in pages for one in rows if one.startswith(f"{number}/")]
        assert offsets == list(reversed(range(66)))
    assert "The topic begins here" in page.locator("main").inner_text()
    page.get_by_role("link", name="Newer").click()
    page.wait_for_load_state()
    assert shown(page) == pages[1]
    page.get_by_role("link", name="Newest").click()
    page.wait_for_load_state()
    assert shown(page) == pages[0]


@pytest.mark.parametrize("wanted", ["k77", "e77"])
def test_a_search_by_key_or_id_finds_its_record_which_opens_with_its_bytes_and_is_explained(page, wanted):
    page.goto(DATA)
    page.get_by_label("Key, id or text in the value").fill(wanted)
    page.get_by_role("button", name="Search").click()
    page.get_by_text("all there are").wait_for()
    assert {"1/38"} <= set(shown(page)) <= {"1/38", "1/65"}  # the poison, in hexadecimal numbers, has e77 in it
    assert "Looked at 132 records" in page.locator("main").inner_text()
    presentable(page)
    page.get_by_role("link", name="1/38").click()
    page.get_by_role("heading", name="flights/1/38").wait_for()
    assert '"distance": 77' in page.get_by_label("Value", exact=True).inner_text()
    assert "00000000  7b 22 69 64 22 3a 22 65  37 37 22" in page.get_by_label("Bytes of the value").inner_text()
    assert "6b 37 37" in page.get_by_label("Bytes of the key").inner_text()
    presentable(page)
    page.get_by_role("link", name="Explain this event").click()
    page.get_by_text("equal to the bit").first.wait_for()


def test_a_search_says_how_far_it_looked_and_goes_on_by_a_click(base, browser):
    with page_of(browser, base) as page:
        page.goto(f"{DATA}?search=k3&look_back=40")
        assert "Looked at 40 records" in page.locator("main").inner_text()
        assert "No record among those" in page.locator("main").inner_text()
        accessible(page)
        page.get_by_role("link", name="Look through 400 records").click()
        page.get_by_text("all there are").wait_for()
        assert {"1/1", "1/15"} <= set(shown(page))  # k3, and k31 with it


def test_every_topic_of_the_pipeline_has_a_tab(page):
    for tab, text in (("Labels", '"late"'), ("Predictions", '"prediction"'), ("Events", '"distance"')):
        page.goto(DATA)
        page.get_by_role("navigation", name="Topics").get_by_role("link", name=tab).click()
        page.locator(f"nav [aria-current]:text('{tab}')").wait_for()
        assert text in page.locator("main").inner_text()
        presentable(page)


@pytest.mark.parametrize(
    ("kind", "tab"),
    [
        ("events", "Events"),
        ("labels", "Labels"),
        ("served", "Served rows"),
        ("predictions", "Predictions"),
        ("dead-letters", "Dead letters"),
        ("profile", "Profile"),
    ],
)
def test_a_topic_is_linked_to_by_what_it_is(base, browser, kind, tab):
    with page_of(browser, base) as page:
        page.goto(f"{DATA}?topic={kind}")
        assert page.locator("nav.tabs [aria-current]").inner_text() == tab


def test_served_rows_have_their_features_and_are_found_by_id_and_by_version(page):
    page.goto(DATA)
    page.get_by_role("link", name="Served rows").click()
    page.locator("th:text('distance')").wait_for()
    assert len(shown(page)) == 50
    presentable(page)
    page.get_by_label("Version").fill("1")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("all there are").wait_for()
    assert len(shown(page)) == 11
    assert EVIL in page.locator("tbody").inner_text()
    presentable(page)
    page.get_by_label("Version").fill("")
    page.get_by_label("Event id").fill("e3")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="e3", exact=True).click()
    page.get_by_text("Version 0, the baseline").wait_for()


def test_hostile_text_and_poison_are_shown_as_text_and_as_bytes(world, page):
    page.goto(f"{DATA}/flights/0/65")
    assert EVIL in page.get_by_label("Value", exact=True).inner_text()
    assert EVIL in page.locator(".facts").last.inner_text()  # a header's name
    assert "fe" in page.get_by_label("Bytes of the key").inner_text()
    presentable(page)
    page.goto(f"{DATA}/flights/1/{world.poison_place}")
    assert "00 ff fe 3c 73 63 72 69" in page.get_by_label("Bytes of the value").inner_text()
    presentable(page)
    page.goto(f"{DATA}?search={quote(EVIL)}")
    assert len(shown(page)) == 2
    presentable(page)
    page.goto(f"{DATA}?search={quote(EVIL * 20)}")
    presentable(page)


def test_a_header_whose_name_is_no_text_hides_no_record(settings, browser):
    apply(settings, DELAY, 1)
    names = Names(settings.prefix, DELAY)
    sent = event(1)["value"].decode()
    command = [sys.executable, "-c", SEND_BAD_HEADER, settings.bootstrap_servers, names.events, sent]
    subprocess.run(command, env=os.environ | {"AIOKAFKA_NO_EXTENSIONS": "1"}, check=True)
    with server_of(settings, DELAY) as (server, _), page_of(browser, f"http://127.0.0.1:{server.port}") as page:
        page.goto(DATA)
        assert shown(page) == ["0/0"]
        page.get_by_role("link", name="0/0").click()
        page.get_by_role("heading", name="flights/0/0").wait_for()
        assert '"id": "e1"' in page.get_by_label("Value", exact=True).inner_text()


def test_the_bytes_of_a_large_value_are_read_piece_by_piece(settings, browser):
    apply(settings, DELAY, 1)
    deep = b"[" * 500 + b"]" * 500
    produce(settings, Names(settings.prefix, DELAY).events, [{"value": b"a" * 4_096 + b"b" * 100_000}, {"value": deep}])
    with server_of(settings, DELAY) as (server, _), page_of(browser, f"http://127.0.0.1:{server.port}") as page:
        page.goto(f"{DATA}/flights/0/0")
        assert "0 to 4,096 of 104,096 bytes" in page.locator("main").inner_text()
        assert "The value is longer than this" in page.locator("main").inner_text()
        accessible(page)
        fits(page)
        page.get_by_role("link", name="Later bytes").click()
        page.get_by_text("4,096 to 8,192 of").wait_for()
        assert page.get_by_label("Bytes of the value").inner_text().startswith("00001000  62 62")
        page.goto(f"{DATA}/flights/0/1")
        assert page.get_by_label("Value", exact=True).inner_text() == deep.decode()
        fits(page)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/data?topic=nobody.s", "topic: expected one of"),
        ("/data?topic=headrace.registry", "topic: expected one of"),
        ("/data/flights/0/99", "expected an offset that is still there, from 0 to 65"),
        ("/data/flights/7/0", "partition: expected 0 to 1"),
        ("/data/flights/0/x", "record: expected topic/partition/offset"),
        ("/data?before=x", "place: expected partition:offset"),
        ("/data?search=a&look_back=x", "look_back: expected a whole number"),
        (f"/data?topic={quote(EVIL)}", "topic: expected one of"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(base, browser, place, said):
    with page_of(browser, base) as page:
        answer = page.goto(f"/console/p/delay{place}")
        assert answer.status in (400, 404)
        assert said in page.locator(".problem").inner_text()
        assert page.evaluate("window.hacked") is None
        accessible(page)
        fits(page)


def test_empty_topics_say_how_records_come(settings, browser):
    apply(settings, WITH_SIDE, 2)
    with server_of(settings, WITH_SIDE) as (server, _), page_of(browser, f"http://127.0.0.1:{server.port}") as page:
        for tab, text in (
            ("Events", "headrace produce flights"),
            ("Labels", "headrace produce arrivals"),
            ("weather", "headrace produce weather"),
            ("Served rows", "Nothing was served yet"),
            ("Predictions", "Predictions come when a worker runs"),
            ("Dead letters", "There are no dead letters"),
            ("Profile", "There are no served rows in this range"),
        ):
            page.goto(DATA)
            page.get_by_role("navigation", name="Topics").get_by_role("link", name=tab).click()
            page.get_by_text(text).wait_for()
            presentable(page)


# ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dead_letter_is_listed_by_its_reason_and_opens_with_its_bytes(world, page):
    page.goto(DATA)
    page.get_by_role("link", name="Dead letters").click()
    page.get_by_role("link", name="not_utf8").wait_for()
    row = page.get_by_role("region", name="Reasons").locator("tbody tr").inner_text()
    assert re.split(r"\s+", row)[:4] == ["not_utf8", "flights", "1", "1"]
    presentable(page)
    screenshot(page, "dead-letters")
    page.get_by_role("link", name="not_utf8").click()
    page.get_by_text("With the reason").wait_for()
    page.get_by_role("region", name="Dead letters").locator("tbody a").first.click()
    page.get_by_text("delay.dead-letters/1/0").first.wait_for()
    said = page.locator("main").inner_text()
    assert f"flights/1/{world.poison_place}" in said
    assert "00 ff fe 3c 73 63 72 69" in page.get_by_label("Bytes of the value").inner_text()
    presentable(page)


@pytest.fixture
def parked(settings, browser):
    """A page of a pipeline with 60 letters for one reason and two for another."""
    apply(settings, DELAY, 2)
    names = Names(settings.prefix, DELAY)
    many = [{"value": b"%d" % n, "key": b"k%d" % n, "from": n % 2} for n in range(60)]
    park(settings, names, many, reason="future: it was")
    park(settings, names, [{"value": POISON}, {"value": b"other"}], reason=f"no_time: {EVIL}{'y' * 500}")
    with server_of(settings, DELAY) as (server, _), page_of(browser, f"http://127.0.0.1:{server.port}") as page:
        yield page, settings, names


def test_letters_come_onto_the_list_and_into_the_counts_by_push_and_a_ticked_one_stays(parked):
    page, settings, names = parked
    page.goto(LETTERS)
    future = page.get_by_role("region", name="Reasons").get_by_role("row", name="future")
    expect(future.get_by_role("cell").nth(2)).to_have_text("60")
    page.evaluate("window.stayed = true")
    for box in (page.get_by_role("checkbox").nth(1), page.get_by_role("checkbox").last):
        box.check()
    ticked = [box.get_attribute("value") for box in page.locator("input:checked").all()]
    more = [{"value": b"more %d" % n, "key": b"k%d" % n, "from": n % 2} for n in range(15)]
    park(settings, names, more, reason="future: it was")
    expect(future.get_by_role("cell").nth(2)).to_have_text("75")
    expect(page.locator("tbody").last).to_contain_text("more 14")
    assert [box.get_attribute("value") for box in page.locator("input:checked").all()] == ticked
    for place in ticked:
        expect(page.locator(f"tr[id='{place}'] input:checked")).to_have_attribute("name", f"letter.{place}")
    assert page.get_by_text("Counting them").count() == 0
    redrive_all(settings, names, reason="future", by="tess", why="clocks are right")
    expect(future.get_by_role("cell").nth(3)).to_have_text("0")
    expect(page.locator("tr.gone").first).to_be_visible()
    assert page.evaluate("window.stayed")
    presentable(page)
    page.goto("/console/p/delay")
    tile = page.locator(".tile", has_text="dead letters")
    expect(tile.locator("b")).to_have_text("77")  # 75 marks, and those of transactions, are none
    expect(tile).to_contain_text("2 not redriven")
    expect(page.get_by_role("link", name="dead letters: 77 parked")).to_be_visible()


def test_chosen_letters_go_back_by_clicks_and_no_others(parked):
    page, settings, names = parked
    page.goto(f"{LETTERS}&reason=no_time")
    assert EVIL in page.locator("tbody").last.inner_text()
    presentable(page)
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Redrive selected").click()
    page.get_by_role("heading", name="Redrive 1 dead letter").wait_for()
    accessible(page)
    fits(page)
    assert read_all(settings, names.events) == []  # asked first
    page.get_by_label("Reason").fill("the parser was mended")
    page.get_by_role("button", name="Redrive").click()
    page.get_by_text("Redriven: 1 (1 to flights).").wait_for()
    (back,) = read_all(settings, names.events)
    assert back.value() in (POISON, b"other")
    (letter,) = [one for one in letters(settings, names) if one.redriven_at]
    assert (letter.value, letter.redriven_why) == (back.value(), "the parser was mended")
    assert letter.redriven_by.startswith("console: ")
    page.goto(f"{LETTERS}&reason=no_time")
    assert page.get_by_role("checkbox").count() == 1  # the other one
    page.locator("tr.gone a").first.click()
    page.get_by_text("the parser was mended").wait_for()
    assert page.get_by_role("button", name="Redrive").count() == 0
    accessible(page)


def test_all_with_a_reason_go_back_by_clicks_each_once_however_often_it_is_asked(parked):
    page, settings, names = parked
    page.goto(LETTERS)
    page.get_by_role("row", name="future").get_by_role("link", name="Redrive all with this reason").click()
    page.get_by_text("60 letters were not redriven yet.").wait_for()
    accessible(page)
    fits(page)
    fields = {one.get_attribute("name"): one.input_value() for one in page.locator("form [name]").all()}
    page.get_by_label("Reason").fill("clocks are right")
    page.get_by_role("button", name="Redrive").click()
    page.get_by_text("Redriven: 60 (60 to flights).").wait_for()
    again = page.request.post(
        f"{DATA}/redrive", form=fields | {"why": "twice"}, headers={"origin": page.url.partition("/console")[0]}
    )
    assert "Redriven: 60 (60 to flights)." in again.text()  # what became of the first
    values = [message.value() for message in read_all(settings, names.events)]
    assert sorted(values) == sorted(b"%d" % n for n in range(60))
    page.goto(LETTERS)
    page.get_by_role("row", name="no_time").get_by_role("link", name="Redrive all").wait_for()
    assert page.get_by_role("row", name="future").get_by_role("link", name="Redrive all").count() == 0


def test_many_letters_are_paged_and_many_may_be_chosen_at_once(parked):
    page, settings, names = parked
    page.goto(LETTERS)
    presentable(page)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Redrive selected").click()
    page.get_by_role("heading", name="Redrive 50 dead letters").wait_for()
    page.get_by_label("Reason").fill("a page of them")
    page.get_by_role("button", name="Redrive").click()
    page.get_by_text("Redriven: 50 (50 to flights).").wait_for()
    assert len(read_all(settings, names.events)) == 50
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Newest").wait_for()
    assert page.get_by_role("checkbox").count() == 12


def test_what_cannot_be_redriven_is_said_where_it_was_asked(parked):
    page, settings, names = parked
    page.goto(f"{LETTERS}&reason=no_time")
    page.get_by_role("button", name="Redrive selected").click()
    assert "expected at least one" in page.locator(".problem").inner_text()
    page.goto(f"{LETTERS}&reason=no_time")
    box = page.get_by_role("checkbox").first
    box.evaluate("element => { element.value = 'delay.dead-letters/0/4711'; }")
    box.check()
    page.get_by_role("button", name="Redrive selected").click()
    page.get_by_label("Reason").fill("why not")
    page.get_by_role("button", name="Redrive").click()
    assert "Nothing was redriven" in page.get_by_role("alert").inner_text()
    accessible(page)
    fits(page)
    page.get_by_label("Reason").fill(" ")
    page.get_by_role("button", name="Redrive").click()
    assert "Expected a reason" in page.get_by_role("alert").inner_text()
    assert read_all(settings, names.events) == []


def test_who_may_only_read_is_offered_no_redrive_and_redrives_nothing(settings, browser):
    apply(settings, DELAY, 1)
    names = Names(settings.prefix, DELAY)
    park(settings, names, [{"value": POISON}])
    _, reader = ApiKeys(settings.api_keys).add("reader", "read")
    kind = {"content-type": "application/x-www-form-urlencoded", "authorization": f"Bearer {reader}"}
    with (
        server_of(settings, DELAY) as (server, client),
        page_of(browser, f"http://127.0.0.1:{server.port}") as page,
    ):
        page.goto(LETTERS)
        page.get_by_label("API key").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        for place in (LETTERS, f"{DATA}/delay.dead-letters/0/0"):
            page.goto(place)
            presentable(page)
            assert "future" in page.locator("main").inner_text()
            assert page.get_by_role("button", name="Redrive").count() == 0
            assert page.get_by_role("link", name="Redrive").count() == 0
            assert page.get_by_role("checkbox").count() == 0
        for place in (f"{DATA}/redrive", f"{DATA}/redrive/confirm"):
            assert client("POST", place, b"letter.1=delay.dead-letters/0/0&why=x", kind)[0] == 403
    assert read_all(settings, names.events) == []


# ── profile ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_columns_are_profiled_beside_the_champions_training_what_moved_most_first(page):
    page.goto(DATA)
    page.get_by_role("link", name="Profile").click()
    page.get_by_text("131 rows, event times").wait_for()
    presentable(page)
    first = page.locator("#answer tbody tr").first.inner_text()
    assert "distance" in first
    assert "moved" in first
    assert "131 rows beyond its range" in first
    carrier = page.locator("#answer tbody tr", has_text="carrier").inner_text()
    assert "UA (99%)" in carrier
    assert EVIL in carrier  # unseen in training
    drawing = page.locator("#answer tbody tr").first.locator("svg path.line-first, svg path.line-second")
    assert drawing.count() == 2


def test_a_range_and_a_version_are_profiled_as_asked(page):
    page.goto(f"{DATA}/profile")
    page.get_by_label("Served by").select_option("1")
    page.get_by_role("button", name="Profile").click()
    page.get_by_text("11 rows, event times").wait_for()
    page.get_by_label("Served by").select_option("")
    page.get_by_label("Event time from").fill("2013-07-04T11:00:10")
    page.get_by_label("and before").fill("2013-07-04T13:00:20+02:00")
    page.get_by_role("button", name="Profile").click()
    page.get_by_text("10 rows, event times").wait_for()
    presentable(page)
    page.get_by_label("and before").fill("yesterday")
    page.get_by_role("button", name="Profile").click()
    assert "until: expected a time as 2013-07-01" in page.get_by_role("alert").inner_text()
    presentable(page)
