"""The console's frame and overview in a real Chromium, on a real broker with a real worker and leader."""

import http.client
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgspec
import pytest
from browser import PHONE, WIDE, accessible, fits, page_of
from kit import Facts, linear, produce, wait_for
from playwright.sync_api import Error, expect
from test_serve import server_of
from test_source import worker_of
from test_swap import PIPELINE, Publisher, send
from typer.testing import CliRunner

from headrace.infra.api_keys import ApiKeys
from headrace.infra.cli.app import app
from headrace.infra.names import Names
from headrace.infra.observe import Metrics, serving
from headrace.infra.processes.registered import registered
from headrace.infra.topics import apply
from headrace.models.facts import LiveMetric, Refused
from headrace.models.features import Topic

HOSTILE = "<img src=x onerror=document.title='taken'>"


@contextmanager
def console_of(settings, browser, *pipelines, viewport=WIDE, **options):
    with server_of(settings, *pipelines, **options) as (server, client):
        base = f"http://127.0.0.1:{server.port}"
        with page_of(browser, base, viewport=viewport) as page:
            yield page, client


@pytest.fixture
def publisher(settings):
    apply(settings, PIPELINE, 2)
    return Publisher(settings)


# ── overview ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_overview_shows_what_flows_and_what_serves_and_keeps_itself_up_to_date(settings, browser, publisher):
    with console_of(settings, browser, PIPELINE) as (page, _):
        page.goto("/")
        expect(page).to_have_url(f"{page.url.split('/console')[0]}/console/p/delay")
        expect(page.get_by_text("No worker runs.")).to_be_visible()
        expect(page.get_by_role("link", name="registry: baseline")).to_be_visible()
        accessible(page)
        fits(page)
        page.evaluate("window.stayed = true")
        with worker_of(settings, PIPELINE, Facts()):
            send(publisher, 0, 40)
            expect(page.get_by_text("40 so far")).to_be_visible()
            expect(page.locator(".tile", has_text="events wait").locator("b")).to_have_text("0")
            publisher.publish(linear([0.5, -0.25]))
            expect(page.get_by_role("link", name="registry: version 1")).to_be_visible()
        assert page.evaluate("window.stayed")  # by push: nobody loaded the page again
        expect(page.locator("#live")).to_have_attribute("data-state", "live")


def test_a_page_is_usable_on_a_phone_and_by_keyboard(settings, browser, publisher):
    with console_of(settings, browser, PIPELINE, viewport=PHONE) as (page, _):
        page.goto("/console/p/delay")
        expect(page.get_by_text("No worker runs.")).to_be_visible()
        accessible(page)
        fits(page)
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to content")
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()


def test_times_are_shown_in_utc_and_in_the_readers_timezone_and_the_choice_stays(settings, browser, publisher):
    publisher.publish(linear([0.5, -0.25]))
    with server_of(settings, PIPELINE) as (server, _):
        context = browser.new_context(timezone_id="America/New_York", base_url=f"http://127.0.0.1:{server.port}")
        page = context.new_page()
        page.goto("/console/p/delay/versions/1")
        first = page.locator("time").first
        moment = page.evaluate("document.querySelector('time').dateTime")
        expect(first).to_have_text(moment[:19].replace("T", " "))
        page.get_by_role("button", name="UTC").click()
        local = page.evaluate(
            "new Date(document.querySelector('time').dateTime).toLocaleString('sv-SE', {timeZone: 'America/New_York'})"
        )
        expect(first).to_have_text(local)
        page.reload()
        expect(page.locator("time").first).to_have_text(local)
        context.close()


def test_the_theme_is_the_systems_until_one_is_chosen(settings, browser, publisher):
    with console_of(settings, browser, PIPELINE) as (page, _):
        page.emulate_media(color_scheme="dark")
        page.goto("/console/p/delay")
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        accessible(page)
        page.get_by_role("button", name="Auto").click()
        expect(page.get_by_role("button", name="Light")).to_be_visible()
        assert page.evaluate(ground) != dark
        page.reload()
        assert page.evaluate(ground) != dark


def test_fifty_pipelines_fit_a_page_those_in_trouble_first_and_a_search_finds_one(settings, browser):
    pipelines = [
        replace(PIPELINE, name=f"delay-{n:02}", events=Topic(f"flights-{n:02}", id="id", time="at")) for n in range(50)
    ]
    for pipeline in pipelines:
        apply(settings, pipeline)
    names = Names(settings.prefix, pipelines[37])
    produce(settings, names.events, [{"value": b"{}"}] * 5)  # and no worker
    with console_of(settings, browser, *pipelines) as (page, _):
        page.goto("/")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(50)
        expect(page.get_by_text("not looked at yet")).to_have_count(0)
        expect(rows.first).to_contain_text("delay-37")
        expect(rows.first).to_contain_text("trouble")
        accessible(page)
        fits(page)
        page.get_by_role("searchbox").fill("delay-4")
        expect(rows).to_have_count(10)
        page.get_by_role("searchbox").fill("nothing")
        expect(page.get_by_text("No pipeline has such a name.")).to_be_visible()
        page.get_by_role("searchbox").fill("delay-49")
        page.get_by_role("link", name="delay-49").click()
        expect(page).to_have_title("delay-49 · headrace")


def test_a_live_metric_says_on_how_many_labelled_rows_it_stands(settings, browser, publisher, monkeypatch, tmp_path):
    metrics = Metrics()
    for version, rows in ((1, 1_234), (0, 2_000)):
        metrics(LiveMetric(pipeline="delay", version=version, metric="roc_auc", value=0.75, rows=rows))
        metrics(LiveMetric(pipeline="delay", version=version, metric="roc_auc", value=0.9, rows=150, segment="wind=3"))
    publisher.publish(linear([0.5, -0.25]))
    with (
        serving(metrics, 0) as port,
        registered(settings.home, role="scheduler", pipelines=["delay"], metrics_port=port),
        console_of(settings, browser, PIPELINE) as (page, _),
    ):
        page.goto("/console/p/delay")
        table = page.get_by_role("region", name="Live metrics by version")
        expect(table.get_by_role("columnheader", name="labelled rows")).to_be_visible()
        expect(table.get_by_role("row", name="champion")).to_contain_text("1,234")
        expect(table.get_by_role("row", name="baseline")).to_contain_text("2,000")
        accessible(page)
        fits(page)
        asked = command_line(settings, monkeypatch, tmp_path)
        found = CliRunner().invoke(app, [*asked, "--output", "json"])
        assert {one["version"]: one["rows"] for one in msgspec.json.decode(found.stdout)["live"]} == {
            1: 1_234,
            0: 2_000,
        }
        (said,) = [line for line in CliRunner().invoke(app, asked).stdout.splitlines() if "champion  1,234" in line]
        assert said.split() == ["1", "champion", "1,234", "0.75"]


def test_an_alert_of_a_refused_version_goes_with_the_next_promotion(settings, browser, publisher):
    metrics = Metrics()
    metrics(Refused(pipeline="delay", reason="graph", detail="it is none", version=1))
    publisher.publish(b"no graph")
    with (
        serving(metrics, 0) as port,
        registered(settings.home, role="worker", pipelines=["delay"], metrics_port=port),
        console_of(settings, browser, PIPELINE) as (page, _),
    ):
        page.goto("/console/p/delay")
        alert = page.get_by_text("Version 1 was refused by a process on this machine")
        expect(alert).to_be_visible()
        publisher.publish(linear([0.5, -0.25]))
        expect(alert).to_have_count(0)


def command_line(settings, monkeypatch, tmp_path):
    """`headrace status` of the same pipeline."""
    file = tmp_path / "delay.py"
    file.write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers),
        ("HEADRACE_PREFIX", settings.prefix),
        ("HEADRACE_HOME", str(settings.home)),
    ):
        monkeypatch.setenv(name, value)
    return ["status", str(file), "--seconds", "0.5"]


def test_status_says_the_same_in_a_terminal_and_fails_where_something_is_bad(
    settings, publisher, monkeypatch, tmp_path
):
    ask = [*command_line(settings, monkeypatch, tmp_path), "--output", "json"]
    found = CliRunner().invoke(app, ask)
    assert found.exit_code == 0, found.output
    quiet = msgspec.json.decode(found.stdout)
    assert (quiet["workers"], quiet["lag"], quiet["champion"]) == (0, 0, 0)
    assert [alert["text"] for alert in quiet["alerts"]] == ["No worker runs."]
    with worker_of(settings, PIPELINE, Facts()):
        send(publisher, 0, 10)
        wait_for("the worker's commit", lambda: _status(ask)["lag"] == 0)
    send(publisher, 10, 30)
    wait_for("its group to be empty", lambda: _status(ask)["workers"] == 0)
    found = CliRunner().invoke(app, ask)
    assert found.exit_code == 1
    bad = msgspec.json.decode(found.stdout)
    assert (bad["lag"], bad["events"], bad["alerts"][0]["level"]) == (20, 30, "bad")
    assert "20 events wait" in CliRunner().invoke(app, ask[:-2]).stdout


def _status(ask):
    return msgspec.json.decode(CliRunner().invoke(app, ask).stdout)


SOURCE = """
from headrace import Binary, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)
"""


# ── who may look ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_browser_signs_in_with_a_key_and_may_do_what_the_key_may(settings, browser, publisher):
    publisher.publish(linear([0.5, -0.25]))
    keys = ApiKeys(settings.api_keys)
    _, reader = keys.add("reader", "read")
    entry, operator = keys.add("operator", "operate")
    with console_of(settings, browser, PIPELINE) as (page, client):
        page.goto("/console/p/delay")
        expect(page).to_have_title("Sign in · headrace")
        accessible(page)
        page.get_by_label("API key").fill("hr_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("no key of this server")
        page.get_by_label("API key").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("h1")).to_have_text("delay")
        assert page.evaluate("document.cookie") == ""  # no script reads it
        page.goto("/console/p/delay/versions/1")
        expect(page.get_by_role("link", name="Pin", exact=True)).to_have_count(0)
        page.goto("/console/p/delay/retrain")
        expect(page.get_by_text("expected the role operate; it has read")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("API key").fill(operator)
        page.get_by_role("button", name="Sign in").click()
        page.goto("/console/p/delay/retrain")
        expect(page.get_by_role("button", name="Retrain")).to_be_visible()
        ApiKeys(settings.api_keys).revoke(entry.id)
        wait_for("the revocation to be known", lambda: asked_to_sign_in(page))
        assert client.get("/console/p/delay", Authorization=f"Bearer {reader}")[0] == 200  # a program needs no session


def test_a_browser_that_came_by_https_is_given_a_cookie_for_https_alone(settings, publisher):
    _, reader = ApiKeys(settings.api_keys).add("reader", "read")
    origin = "https://models.example"
    with server_of(settings, PIPELINE, allow_origins=(origin,), allow_hosts=("models.example",)) as (server, client):
        for place, is_secure in ((origin, True), (f"http://127.0.0.1:{server.port}", False)):
            kind = {"content-type": "application/x-www-form-urlencoded", "x-forwarded-proto": "https", "origin": place}
            status, _, headers = client("POST", "/console/sign-in", f"key={reader}".encode(), kind)
            assert status == 303
            cookie = headers["set-cookie"]
            assert cookie.endswith("; Secure") == is_secure
            assert client.get("/console/p/delay", Cookie=cookie.partition(";")[0])[0] == 200


def asked_to_sign_in(page):
    with suppress(Error):  # the page goes there by itself as well, and may do so first
        page.goto("/console/p/delay")
        return "Sign in" in page.title()
    return False


def test_no_other_sites_page_moves_anything_and_no_rebound_name_reads(settings, publisher):
    with server_of(settings, PIPELINE) as (server, client):
        place, form = "/console/p/delay/retrain", b"why=x"
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert client("POST", place, form, {**kind, "origin": "https://evil.example"})[0] == 403
        assert client("POST", place, form, {**kind, "origin": "null"})[0] == 403
        assert client("POST", place, form, {**kind, "sec-fetch-site": "cross-site"})[0] == 403
        for method, path in (("GET", "/console/p/delay"), ("POST", place), ("GET", "/console/changes?watch=board")):
            assert client(method, path, None, {"host": "evil.example"})[0] == 403, path
        own = f"http://127.0.0.1:{server.port}"
        assert client("POST", place, form, {**kind, "origin": own})[0] in (303, 200)
        assert client("DELETE", place)[0] == 405


def test_what_a_page_loads_is_ours_and_its_rules_say_so(settings, publisher):
    with server_of(settings, PIPELINE) as (_, client):
        _, body, headers = client("GET", "/console/p/delay")
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        text = body.decode()
        assert "style=" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        sheet = text.partition('rel="stylesheet" href="')[2].partition('"')[0]
        status, css, headers = client("GET", sheet)
        assert (status, headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert "immutable" in headers["cache-control"]
        assert b"url(" not in css
        for path in ("/console/static/x/../../view.py", "/console/static/x/LICENSES", "/console/static", "/console/x"):
            assert client("GET", path)[0] == 404, path


def test_what_is_wrong_with_an_address_is_a_page_that_says_so_and_runs_nothing(settings, browser, publisher):
    with console_of(settings, browser, PIPELINE) as (page, client):
        for path in (f"/console/p/{HOSTILE}", "/console/p/nothing/versions", f"/console/p/delay/versions/{HOSTILE}"):
            page.goto(path)
            expect(page.locator(".problem")).to_contain_text("expected")
            assert "taken" not in page.title()
            accessible(page)
        page.goto("/console/p/delay/nothing")
        expect(page.get_by_text("There is no such page.")).to_be_visible()
        assert client("GET", "/console/p/delay?" + "&".join(f"a{n}=1" for n in range(1_000)))[0] < 500
        assert client("GET", "/console/p/delay?x=%FF%FE")[0] < 500
        assert client("GET", "/console/sign-in?next=https://evil.example/")[1].find(b"evil.example") == -1


# ── push ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listening_page_hears_of_a_change_and_of_the_servers_end(settings, publisher):
    with server_of(settings, PIPELINE) as (server, _):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/console/changes?watch=versions:delay")
        answer = connection.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        publisher.publish(linear([0.5, -0.25]))
        lines = iter(answer.readline, b"")
        assert any(line == b"event: changed\n" for line in lines)
        server.stop()
        assert not any(line.startswith(b"event") for line in iter(answer.readline, b""))
        connection.close()


def test_one_key_does_not_keep_the_others_pages_from_listening_and_a_page_without_a_line_says_so(
    settings, browser, publisher
):
    keys = ApiKeys(settings.api_keys)
    _, greedy = keys.add("reader", "read")
    _, other = keys.add("reader", "read")  # the name is no key
    with console_of(settings, browser, PIPELINE) as (page, client):

        def listening(key):
            connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
            connection.request("GET", "/console/changes?watch=board", headers={"Authorization": f"bEARER {key}"})
            return connection, connection.getresponse()

        lines = [listening(greedy) for _ in range(32)]
        assert {answer.status for _, answer in lines} == {200}
        over, refused = listening(greedy)
        assert (refused.status, refused.getheader("retry-after")) == (429, "30")
        assert b"32 pages listen with this API key already: close some" in refused.read()
        others = listening(other)
        assert others[1].status == 200
        page.goto("/console/p/delay")
        page.get_by_label("API key").fill(greedy)
        page.get_by_role("button", name="Sign in").click()
        said = page.get_by_text("This page does not keep itself up to date. 32 pages listen with this API key already")
        expect(said).to_be_visible()
        expect(page.locator("#live")).to_have_text("not live")
        accessible(page)
        fits(page)
        for connection, answer in lines:
            answer.close()
            connection.close()
        wait_for("a line to be free", lambda: freed(listening, greedy))
        page.reload()
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        expect(said).to_have_count(0)
        for connection, answer in ((over, refused), others):
            answer.close()
            connection.close()


def freed(listening, key):
    connection, answer = listening(key)
    answer.close()
    connection.close()
    return answer.status == 200


def test_new_records_come_onto_the_newest_page_by_push_and_not_onto_a_search(settings, browser, publisher):
    send(publisher, 0, 3)
    with console_of(settings, browser, PIPELINE) as (page, _):
        page.goto("/console/p/delay/data")
        expect(page.locator("tbody tr")).to_have_count(3)
        page.evaluate("window.stayed = true")
        send(publisher, 3, 5)
        expect(page.locator("tbody tr")).to_have_count(5)
        assert page.evaluate("window.stayed")
        page.goto("/console/p/delay/data?search=e1")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("body")).to_have_attribute("data-watch", "")
