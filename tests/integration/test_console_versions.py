"""The console's pages of versions in a real browser, on a real broker: look, compare, and move, seen on the topics."""

import re
from contextlib import contextmanager
from urllib.parse import urlencode

import msgspec
import pytest
from browser import PHONE, WIDE, accessible, fits, page_of, screenshot
from confluent_kafka import TopicPartition
from kit import DEADLINE, Facts, leading, linear, manifest, produce, read_all, transaction, wait_for
from test_moves import FILE
from test_serve import server_of
from test_source import worker_of
from test_swap import GOOD, PIPELINE, Publisher, predicted, predictions

from headrace.infra.api_keys import ApiKeys
from headrace.infra.artifacts import write_blob
from headrace.infra.kafka import admin
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.services.changes.moves import ask
from headrace.infra.services.compare.model_diff import compare
from headrace.infra.services.versions.event_times import timed
from headrace.infra.services.versions.timeline import served
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.durations import iso
from headrace.models.facts import Swapped
from headrace.models.findings import Finding
from headrace.models.records import FIRST_OFFSET_HEADER, Finished, Promoted, Published, Switched
from headrace.streams.codec import clock_ms

AT = 1_372_935_600_000  # 2013-07-04T11:00:00Z; the events are a minute apart
MINUTE = 60_000
EACH = 400  # events that each version serves
VERSIONS = "/console/p/delay/versions"
HOSTILE = '<script>alert("why")</script> & <b>Söhne</b> ' + "very-long-" * 40
MANY = 10_000
VERDICT = "roc_auc 0.71 against 0.7 of version 1: not worse by more than 0.01"


@pytest.fixture
def publisher(settings):
    apply(settings, PIPELINE, 2)
    return Publisher(settings)


@pytest.fixture
def origin(tmp_path):
    path = tmp_path / "delay.py"
    path.write_text(FILE)
    file = read_pipelines(str(path))
    return Origin(file=file, pipeline=file.pipelines["delay"], by="alice")


@contextmanager
def console(settings, browser, *, origins=None, viewport=None):
    with server_of(settings, PIPELINE, origins=origins) as (server, client):
        options = {"viewport": viewport} if viewport else {}
        with page_of(browser, f"http://127.0.0.1:{server.port}", **options) as page:
            page.set_default_timeout(1000 * DEADLINE)
            yield page, client


def send(publisher, first, last):
    events = [
        {"value": msgspec.json.encode({"id": f"e{n}", "at": AT + MINUTE * n, "distance": n % 7, "wind": n % 3})}
        | {"partition": n % 2}
        for n in range(first, last)
    ]
    produce(publisher.settings, publisher.names.events, events)


def label(publisher, first, last):
    labels = [
        {"value": msgspec.json.encode({"id": f"e{n}", "at": AT + MINUTE * n + 1_000, "late": n % 7 > 3})}
        for n in range(first, last)
    ]
    produce(publisher.settings, publisher.names.labels, labels)


def told(publisher, version, **said):
    """What its run says, and its manifest."""
    done = Finished(
        run=f"run-{version}",
        pipeline="delay",
        at=iso(clock_ms()),
        outcome="promoted",
        reason=VERDICT,
        version=version,
        rows=1_000 * version,
        metrics={"roc_auc": 0.7 + version / 100, "log_loss": 0.5},
        champion_metrics={"roc_auc": 0.7, "log_loss": 0.49},
    )
    produce(publisher.settings, publisher.names.of(RUNS), [{"value": msgspec.json.encode(done)}])
    more = {
        "run": f"run-{version}",
        "verdict": VERDICT,
        "parent": version - 1,
        "trained_through": iso(AT - 60 * MINUTE),
        "metrics": done.metrics,
        "champion_metrics": done.champion_metrics,
        "numbers": {"gain": 0.01},
        "hyperparameters": {"epochs": 2},
        "libraries": {"numpy": "2.0"},
        "git_commit": "0123456789abcdef" * 2,
        "source": FILE,
        "findings": (Finding(name="drift", severity="warning", text="wind lies otherwise"),),
    }
    return lambda made: msgspec.structs.replace(made, **more | said)


def promotions(settings):
    records = [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]
    return [record for record in records if isinstance(record, Promoted)]


def answered(publisher, facts):
    """Three versions in turn, each on its events, all of which have a label."""
    with worker_of(publisher.settings, PIPELINE, facts):
        for version in (1, 2, 3):
            weights = linear([0.1 * version, -0.2], bias=-0.5)
            publisher.publish(weights, change=told(publisher, version))
            facts.wait(Swapped, lambda fact, version=version: fact.version == version)
            send(publisher, EACH * (version - 1), EACH * version)
            wait_for("its events", lambda version=version: predicted(facts) == EACH * version)
    label(publisher, 0, 3 * EACH)


def test_from_the_list_to_a_version_to_the_same_comparison_as_model_diff(settings, publisher, browser):
    answered(publisher, Facts())
    with console(settings, browser) as (page, _):
        page.goto(VERSIONS)
        page.wait_for_selector("#v3 .badge.good")
        bars = page.locator("svg.timeline a[aria-label*='served from']")
        assert [bars.nth(at).get_attribute("aria-label") for at in range(bars.count())] == [
            f"version 3 served from {iso(AT + MINUTE * 2 * EACH)} on",
            f"version 2 served from {iso(AT + MINUTE * EACH)} to {iso(AT + MINUTE * (2 * EACH + 1))}",
            f"version 1 served from {iso(AT)} to {iso(AT + MINUTE * (EACH + 1))}",
        ]
        assert page.locator("#v2 td").nth(6).inner_text() == "0.72"  # the gate's metric, beside its champion's
        assert page.locator("#v2 td").nth(8).inner_text() == "+0.02"
        accessible(page)
        fits(page)
        screenshot(page, "versions")

        page.locator("svg.timeline").get_by_role("link", name="version 1", exact=True).click()
        page.wait_for_url(f"**{VERSIONS}/1")
        text = page.locator("main").inner_text()
        for shown in (VERDICT, "run-1", "wind lies otherwise", "epochs", "numpy", "0123456789ab…", "distance"):
            assert shown in text
        assert "baseline" in page.locator("section", has_text="Lineage").inner_text()
        assert page.locator("td", has_text=f"{settings.prefix}flights/0").count() == 1
        page.get_by_text("Pipeline file, as it was").click()
        assert "Pipeline(" in page.locator("details pre").inner_text()
        accessible(page)
        screenshot(page, "version")

        page.get_by_role("link", name="Compare with champion").click()
        page.wait_for_selector("#result .tiles")
        report = compare(settings, publisher.names, "3", "1")
        tiles = page.locator("#result .tile b").all_inner_texts()
        assert tiles[0] == f"{report.difference.tau:.4g}"
        assert tiles[1] == f"{report.difference.changed_decisions:.2%}"
        auc = next(one for one in report.difference.metrics if one.metric == "roc_auc")
        row = page.locator("#result tr", has=page.locator("td", has_text=re.compile("^roc_auc$"))).first.inner_text()
        assert f"{auc.first.value:.4g}" in row
        assert f"{auc.difference.value:+.3g}" in row
        assert f"{3 * EACH:,} served rows" in page.locator("#result").inner_text()
        screenshot(page, "comparison")
        for size in (WIDE, PHONE):
            page.set_viewport_size(size)
            accessible(page)
            fits(page)


def test_a_promotion_with_a_reason_is_on_record_and_an_open_page_shows_it(settings, publisher, origin, browser):
    for version in (1, 2, 3):
        publisher.publish(change=told(publisher, version))
    with leading(settings, origin), console(settings, browser) as (page, _):
        other = page.context.new_page()
        other.goto(VERSIONS)
        other.wait_for_selector("#live[data-state=live]")
        other.evaluate("window.kept = true")
        other.locator("#first-2").check()
        page.goto(f"{VERSIONS}/1")
        page.get_by_role("link", name="Promote").click()
        accessible(page)
        assert "Version 1 serves from each worker's next chunk on; version 3 serves now." in page.inner_text("main")
        page.get_by_role("button", name="Promote version 1").click()
        assert page.url.endswith("/promote")  # a reason is required
        page.get_by_label("Reason").fill("better at Newark")
        page.get_by_role("button", name="Promote version 1").click()
        page.wait_for_selector(".badge.good:has-text('champion')")
        assert "Version 1 is the champion now." in page.inner_text(".notice")  # it is said, and stays
        newest = promotions(settings)[-1]
        assert (newest.version, newest.move, newest.why) == (1, "promote", "better at Newark")
        assert newest.by == "console: anybody on this machine"
        other.wait_for_selector("#v1 .badge.good")
        assert other.evaluate("window.kept")  # by push: the page was not loaded again
        assert other.locator("#first-2").is_checked()  # and what was chosen stays
        page.reload()
        assert page.locator(".notice").count() == 0
        assert len(promotions(settings)) == 4


def test_two_are_picked_in_the_list_and_compared(settings, publisher, browser):
    answered(publisher, Facts())
    with console(settings, browser) as (page, _):
        page.goto(VERSIONS)
        page.wait_for_selector("#v3")
        page.locator("#first-1").check()
        page.locator("#second-0").check()
        page.get_by_role("button", name="Compare the two").click()
        page.wait_for_selector("#result .tiles")
        assert "version 1 against the baseline" in page.inner_text("h1")
        page.goto("/console/p/delay/compare?first=1&second=1")
        assert "both are version 1" in page.inner_text(".problem")
        page.goto("/console/p/delay/compare?first=1&second=77")
        assert "expected one of 0, 1, 2, 3" in page.inner_text(".problem")
        accessible(page)


def test_a_comparison_without_served_rows_says_what_to_do(settings, publisher, browser):
    publisher.publish()
    with console(settings, browser) as (page, client):
        wait_for("the registry", lambda: client.get(f"{VERSIONS}/1")[0] == 200)
        page.goto("/console/p/delay/compare?first=0&second=1")
        page.wait_for_selector("#result .problem")
        assert "Run: headrace worker" in page.inner_text("#result .problem")


def test_the_event_times_of_switches_are_those_of_the_events_that_were_served(settings, publisher):
    answered(publisher, Facts())
    lines = timed(settings, publisher.names, served(settings, publisher.names))
    events = {tuple(answer["source"][1:]): answer["event_time"] for answer in predictions(publisher)}
    assert len(lines) >= 6
    for line in lines:
        first = min(offset for partition, offset in events if partition == line.partition and offset >= line.first)
        assert line.event_time == events[line.partition, first]


def test_a_switch_whose_rows_were_deleted_has_no_event_time_and_the_others_have_theirs(settings, publisher):
    answered(publisher, Facts())
    whole = timed(settings, publisher.names, served(settings, publisher.names))
    records = [one for one in read_all(settings, publisher.names.topics.served) if one.partition() == 0]
    places = {one.offset(): int(dict(one.headers())[FIRST_OFFSET_HEADER]) for one in records}
    second = next(line for line in whole if line.partition == 0 and line.version == 2)
    kept = next(place for place, first in places.items() if first >= second.first)
    client = admin(settings)
    deleted = client.delete_records([TopicPartition(publisher.names.topics.served, 0, kept)])
    [one.result(DEADLINE) for one in deleted.values()]
    left = timed(settings, publisher.names, served(settings, publisher.names))
    assert [line.event_time for line in left] == [
        "" if line.partition == 0 and line.first < second.first else line.event_time for line in whole
    ]
    assert "" in [line.event_time for line in left]


def test_roll_back_pin_refused_unpin_name_and_archive_by_clicks(settings, publisher, origin, browser):
    for version in (1, 2, 3):
        publisher.publish(change=told(publisher, version))

    def moved(link, button, why):
        page.get_by_role("link", name=link, exact=True).click()
        page.get_by_label("Reason").fill(why)
        page.get_by_role("button", name=button).click()
        page.wait_for_selector(".notice")

    with leading(settings, origin), console(settings, browser) as (page, _):
        page.goto(VERSIONS)
        page.wait_for_selector("#v3 .badge.good")
        moved("Roll back to version 2", "Roll back to version 2", "false alarms")
        assert page.url.split("?")[0].endswith("/versions/2")
        moved("Pin", "Pin version 2", "audit until Friday")
        page.wait_for_selector(".badge:has-text('pinned')")

        page.goto(f"{VERSIONS}/3/promote")
        assert "version 2 is pinned" in page.inner_text(".problem")
        accessible(page)
        fits(page)
        page.get_by_role("link", name="Unpin version 2").click()
        page.get_by_label("Reason").fill("audit over")
        page.get_by_role("button", name="Unpin version 2").click()
        page.wait_for_selector(".notice")

        page.goto(f"{VERSIONS}/1")
        moved("Name it", "Give the name", "look at it")
        page.wait_for_selector(".badge:has-text('challenger')")
        page.goto(f"{VERSIONS}/1/archive")
        assert "version 1 is challenger: move that first" in page.inner_text(".problem")
        page.goto(f"{VERSIONS}/3")
        moved("Archive", "Archive version 3", "broken feed")
        page.wait_for_selector(".badge:has-text('archived')")
        assert page.get_by_role("link", name="Promote").count() == 0

        page.goto(f"{VERSIONS}?show=archived")
        assert page.locator("tbody tr").count() == 1
        page.goto(f"{VERSIONS}?alias=challenger")
        assert page.locator("tbody tr").first.get_attribute("id") == "v1"
    records = [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))][6:]
    assert [(type(record).__name__, record.why) for record in records] == [
        ("Promoted", "false alarms"),
        ("Promoted", "audit until Friday"),
        ("Unpinned", "audit over"),
        ("Aliased", "look at it"),
        ("Archived", "broken feed"),
    ]
    assert [record.move for record in records[:2]] == ["rollback", "pin"]


def test_a_promotion_is_refused_where_another_version_serves_by_then(settings, publisher, origin, browser):
    for version in (1, 2, 3):
        publisher.publish(change=told(publisher, version))
    with leading(settings, origin), console(settings, browser) as (page, _):
        page.goto(f"{VERSIONS}/1/promote")
        ask(settings, origin, "promote", version=2, why="meanwhile")
        page.get_by_label("Reason").fill("as of what I saw")
        page.get_by_role("button", name="Promote version 1").click()
        page.wait_for_selector(".problem")
        assert "it was asked for while version 3 served; 2 does now" in page.inner_text(".problem")
        assert "decide anew" in page.inner_text("main")
        accessible(page)
        assert page.get_by_role("link", name="Ask anew").count() == 1
    assert promotions(settings)[-1].why == "meanwhile"


def test_a_form_that_is_sent_twice_moves_once(settings, publisher, origin):
    for version in (1, 2):
        publisher.publish(change=told(publisher, version))
    with leading(settings, origin), server_of(settings, PIPELINE) as (_, client):
        wait_for("the registry", lambda: client.get(f"{VERSIONS}/1/promote")[0] == 200)
        body = urlencode({"why": "twice", "champion": "2", "once": "the-form's-own"}).encode()
        answers = [client("POST", f"{VERSIONS}/1/promote", body) for _ in range(2)]
        assert [status for status, _, _ in answers] == [303, 303]
        assert {headers["location"].split("?")[0] for _, _, headers in answers} == {f"{VERSIONS}/1"}
        status, page, _ = client("POST", f"{VERSIONS}/2/promote", urlencode({"why": "  "}).encode())
        assert (status, b"reason: expected" in page) == (400, True)
    assert [promotion.why for promotion in promotions(settings)] == ["test", "test", "twice"]


def test_where_nobody_leads_the_page_says_so_and_nothing_is_asked(settings, publisher):
    for version in (1, 2):
        publisher.publish(change=told(publisher, version))
    with server_of(settings, PIPELINE) as (_, client):
        wait_for("the registry", lambda: client.get(f"{VERSIONS}/1/promote")[0] == 200)
        status, page, _ = client("POST", f"{VERSIONS}/1/promote", urlencode({"why": "now"}).encode())
    assert status == 503
    assert b"no scheduler runs" in page
    assert b"headrace scheduler" in page
    asked = [m for m in read_all(settings, publisher.names.of(RUNS)) if b'"asked"' in m.value()]
    assert asked == []


def test_a_server_that_knows_the_pipelines_file_leads_for_the_one_move(settings, publisher, origin, browser):
    for version in (1, 2):
        publisher.publish(change=told(publisher, version))
    with console(settings, browser, origins={"delay": origin}) as (page, _):
        page.goto(f"{VERSIONS}/1/rollback")
        page.get_by_label("Reason").fill("alone")
        page.get_by_role("button", name="Roll back to version 1").click()
        page.wait_for_selector(".notice")
    assert (promotions(settings)[-1].version, promotions(settings)[-1].why) == (1, "alone")


def test_who_may_only_read_sees_no_button_and_moves_nothing(settings, publisher):
    publisher.publish(change=told(publisher, 1))
    _, token = ApiKeys(settings.api_keys).add("reader", "read")
    with server_of(settings, PIPELINE) as (_, client):
        bearer = {"authorization": f"Bearer {token}"}
        wait_for("the registry", lambda: client("GET", f"{VERSIONS}/1", headers=bearer)[0] == 200)
        page = client("GET", f"{VERSIONS}/1", headers=bearer)[1]
        assert b"Version 1" in page
        assert b"/versions/1/pin" not in page
        assert client("GET", f"{VERSIONS}/0/promote", headers=bearer)[0] == 403
        assert client("POST", f"{VERSIONS}/0/promote", b"why=x", headers=bearer)[0] == 403
    assert len(promotions(settings)) == 1


def test_the_baseline_an_empty_registry_and_what_is_not_there_have_pages_that_help(settings, publisher, browser):
    with console(settings, browser) as (page, client):
        page.goto(VERSIONS)
        assert "No version is published so far" in page.inner_text("main")
        assert "Nothing was served so far" in page.inner_text("main")
        accessible(page)
        fits(page)
        page.goto(f"{VERSIONS}/0")
        assert "computes it from the declaration" in page.inner_text("main")
        accessible(page)
        publisher.publish(change=told(publisher, 1))
        page.wait_for_selector("a:has-text('Promote')")  # by push: it is no longer the champion
        page.goto(f"{VERSIONS}/7")
        assert "expected one of 0, 1, or champion; got '7'" in page.inner_text(".problem")
        for place in ("versions/7", "versions/1/explode", "versions/x/pin"):
            assert client.get(f"/console/p/delay/{place}")[0] == 404
        assert client.get("/console/p/other/versions")[0] == 404


@pytest.mark.parametrize("viewport", [None, PHONE])
def test_whatever_stands_in_a_record_is_text_and_breaks_no_page(settings, publisher, browser, viewport):
    publisher.publish(
        change=told(
            publisher,
            1,
            verdict=HOSTILE,
            source=HOSTILE,
            trigger=HOSTILE,
            created_by=HOSTILE,
            platform=HOSTILE,
            hyperparameters={HOSTILE: HOSTILE},
            findings=(Finding(name="x", severity="error", text=HOSTILE),),
        )
    )
    publisher.producer.begin_transaction()
    publisher._write(Promoted(**publisher._record() | {"version": 0, "by": HOSTILE}, why=HOSTILE))
    publisher.producer.begin_transaction()
    publisher._write(Promoted(**publisher._record() | {"version": 1, "by": HOSTILE}, why=HOSTILE, move="rollback"))
    switched = Switched(
        pipeline="delay",
        seq=4,
        version=1,
        topic=publisher.names.events,
        partition=0,
        first_offset=0,
        worker=HOSTILE,
        at=iso(clock_ms()),
    )
    produce(settings, publisher.names.topics.history, [{"value": msgspec.json.encode(switched)}])
    with console(settings, browser, viewport=viewport) as (page, _):
        for place in (VERSIONS, f"{VERSIONS}/1", f"{VERSIONS}/1/pin", f"{VERSIONS}?q={'%3Cb%3E' * 40}"):
            page.goto(place)
            page.wait_for_selector("h1")
            assert page.locator("main script, main b >> text=Söhne").count() == 0
            accessible(page)
            fits(page)
        page.goto(f"{VERSIONS}/1")
        page.wait_for_selector("text=rolled back to")
        assert '<script>alert("why")</script>' in page.locator("td.long").first.inner_text()


def test_ten_thousand_versions_are_paged_searched_and_drawn_a_window_at_a_time(settings, publisher, browser):
    names = publisher.names
    with transaction(settings, "many") as producer:
        blob = write_blob(producer, names.of(ARTIFACTS), GOOD)
        made = manifests.encode(manifest(PIPELINE, 1, blob, trained_through=iso(AT)))
        pointer = write_blob(producer, names.of(ARTIFACTS), made)
        for version in range(1, MANY + 1):
            said = {"pipeline": "delay", "version": version, "at": iso(clock_ms()), "by": "test"}
            tick = iso(AT + version * 60 * MINUTE)
            published = Published(
                **said, seq=2 * version - 1, manifest=pointer, tick=tick, run=f"run-{version:05}", why=f"made {version}"
            )
            promoted = Promoted(**said, seq=2 * version, why=f"reason {version}")
            switched = Switched(
                pipeline="delay",
                seq=2 * version,
                version=version,
                topic=names.events,
                partition=0,
                first_offset=version * 10,
                worker="w",
                at=said["at"],
            )
            producer.produce(names.of(REGISTRY), msgspec.json.encode(published))
            producer.produce(names.of(REGISTRY), msgspec.json.encode(promoted))
            producer.produce(names.topics.history, msgspec.json.encode(switched))
            if version % 1_000 == 0:
                producer.poll(0)
    with console(settings, browser) as (page, client):
        page.goto(VERSIONS)
        page.wait_for_selector(f"#v{MANY} .badge.good")
        assert page.locator("tbody tr").count() == 50
        assert "10,001 of 10,001 versions, page 1 of 201" in page.inner_text("main")
        wait_for("the drawing", lambda: page.locator("svg.timeline a:has(rect)").count() == 20)
        assert len(client.get(VERSIONS)[1]) < 80_000
        accessible(page)
        fits(page)
        page.get_by_role("navigation", name="More rows").last.get_by_role("link", name="Older").click()
        page.wait_for_selector(f"#v{MANY - 50}")
        assert page.locator("tbody tr").count() == 50
        page.get_by_role("navigation", name="More rows").first.get_by_role("link", name="Older").click()
        page.wait_for_selector(f"svg.timeline a:has-text('version {MANY - 20}')")
        page.locator("#find").fill("reason 4711")
        page.get_by_role("button", name="Find", exact=True).click()
        page.wait_for_selector("#v4711")
        assert page.locator("tbody tr").count() == 1
        page.locator("#find").fill("77")
        page.get_by_role("button", name="Find", exact=True).click()
        page.wait_for_selector("#v77")
        assert page.locator("tbody tr").count() == 1
        page.goto(f"{VERSIONS}?page=201")
        assert page.locator("tbody tr").first.get_attribute("id") == "v0"
        page.goto(f"{VERSIONS}/{MANY}")
        page.wait_for_selector("h1:has-text('Version 10000')")
        assert len(client.get(f"{VERSIONS}/{MANY}")[1]) < 60_000
