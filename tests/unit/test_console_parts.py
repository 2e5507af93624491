"""Sessions, addresses, routes, charts: what the console's pages are made of."""

import re
from xml.etree import ElementTree as ET

import pytest

from headrace.infra.api_keys import ApiKeys
from headrace.infra.console.charts import At, Axes, Line, Mark, over_time, sparkline, ticks, time_ticks
from headrace.infra.console.pages.signing_in import _ours
from headrace.infra.console.sessions import COOKIE, Sessions
from headrace.infra.console.site import Route, here
from headrace.infra.serve.access import Access
from headrace.infra.serve.http import Bodies, Request
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import RequestRefused

DAY = 86_400_000.0


def request(path, query=b""):
    scope = {"headers": [], "method": "GET", "path": path, "query_string": query}
    return Request(scope, None, Bodies(Limits()))


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def cookie(set_cookie):
    return set_cookie.partition(";")[0].encode()


def test_a_session_stands_for_its_key_until_it_ends():
    now = [0.0]
    sessions = Sessions(8080, lambda: now[0])
    held = cookie(sessions.begin("hr_key"))
    assert sessions.authorization(held) == "Bearer hr_key"
    now[0] = 12 * 3600 + 1
    assert sessions.authorization(held) is None
    assert sessions.authorization(held) is None


def test_signing_out_ends_the_session_and_takes_the_cookie_away():
    sessions = Sessions(8080)
    held = cookie(sessions.begin("hr_key"))
    assert "Max-Age=0" in sessions.end(held)
    assert sessions.authorization(held) is None


def test_a_cookie_is_read_by_no_script_and_sent_by_no_other_site():
    said = Sessions(8080).begin("hr_key")
    assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in said.split(";")}
    assert "hr_key" not in said


def test_a_cookie_of_a_page_behind_tls_is_sent_by_tls_alone(tmp_path):
    given = Access(ApiKeys(tmp_path / "keys"), required=False, hosts=(), origins=("https://Models.example", "http://x"))
    for origin, is_secure in (
        (b"https://models.example", True),
        (b"https://other.example", False),  # not given: anybody may say so
        (b"http://x", False),
        (b"", False),
    ):
        assert given.is_by_https({b"origin": origin, b"x-forwarded-proto": b"https"}) == is_secure, origin
        said = Sessions(8080).begin("hr_key", secure=is_secure)
        assert ("Secure" in [part.strip() for part in said.split(";")]) == is_secure
    assert not given.is_by_https({b"forwarded": b"proto=https"})


@pytest.mark.parametrize(
    "cookies", [b"", b"x=1", COOKIE.encode(), f"{COOKIE}=made-up".encode(), b"\xff\xfe=;;;=", b'a="']
)
def test_any_other_cookie_stands_for_nothing(cookies):
    assert Sessions(8080).authorization(cookies) is None


@pytest.mark.parametrize("other", ['{"a": "b c"}', 'x="', "ünsinn", "a=b=c", "[1,2]"])
def test_what_others_on_this_host_set_hides_no_session(other):
    sessions = Sessions(8080)
    held = cookie(sessions.begin("hr_key")).decode()
    for cookies in (f"theirs={other}; {held}", f"{held}; theirs={other}"):
        assert sessions.authorization(cookies.encode()) == "Bearer hr_key"


def test_sessions_are_bounded_and_the_oldest_goes():
    sessions = Sessions(8080)
    first = cookie(sessions.begin("hr_first"))
    for n in range(1_000):
        newest = cookie(sessions.begin(f"hr_{n}"))
    assert sessions.authorization(first) is None
    assert sessions.authorization(newest) == "Bearer hr_999"


# ── addresses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_keeps_its_parameters_but_those_that_change():
    asked = request("/console/p/a b", b"q=x%26y&page=3&notice=k")
    assert here(asked) == "/console/p/a%20b?q=x%26y&page=3"
    assert here(asked, page="4") == "/console/p/a%20b?q=x%26y&page=4"
    assert here(asked, page="", q="") == "/console/p/a%20b"


def test_too_many_parameters_are_the_askers_mistake():
    with pytest.raises(RequestRefused):
        here(request("/console", "&".join(f"a{n}=1" for n in range(1_000)).encode()))


def test_a_route_takes_parts_by_name_and_no_empty_ones():
    route = Route("GET", "/p/{pipeline}/versions/{version}", None)
    assert route.matches(["p", "delay", "versions", "7"]) == {"pipeline": "delay", "version": "7"}
    for parts in (["p", "", "versions", "7"], ["p", "delay", "runs", "7"], ["p", "delay", "versions"], []):
        assert route.matches(parts) is None


# ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(svg):
    return ET.fromstring(str(svg))  # noqa: S314  our own


def test_a_line_over_time_has_a_point_with_its_interval_and_a_word_for_each_value():
    points = [At(time=n * DAY, value=0.5 + n / 10, low=0.4, high=0.9, note=f"day {n}") for n in range(3)]
    svg = drawn(over_time([Line(name="auc", points=points)], Axes(label="AUC", marks=[Mark(time=DAY, name="swap")])))
    assert svg.get("aria-label") == "AUC"
    titles = [one.text for one in svg.iter("title")]
    assert titles == ["swap", "auc: 0.5, day 0", "auc: 0.6, day 1", "auc: 0.7, day 2"]


def test_a_missing_value_breaks_the_line():
    points = [At(time=n * DAY, value=None if n == 2 else 1.0 + n) for n in range(5)]
    (path,) = [
        one.get("d")
        for one in drawn(over_time([Line(name="x", points=points)], Axes(label="x"))).iter("path")
        if one.get("class") == "stroke"
    ]
    assert len(re.findall("M", path)) == 2


def test_nothing_to_draw_is_nothing_and_one_value_is_drawn():
    assert over_time([Line(name="x", points=[At(time=0, value=None)])], Axes(label="x")) == ""
    assert drawn(over_time([Line(name="x", points=[At(time=0, value=1.0)])], Axes(label="x"))) is not None


def test_a_users_text_in_a_chart_is_text():
    hostile = '"><script>alert(1)</script>'
    svg = str(over_time([Line(name=hostile, points=[At(time=0, value=1.0, note=hostile)])], Axes(label=hostile)))
    assert "<script" not in svg
    assert "<script" not in str(sparkline([1.0, 2.0], hostile))
    drawn(svg)


@pytest.mark.parametrize("values", [[], [None], [None, None], [0.0, 0.0], [1.0], [float("nan"), 1.0, 2.0]])
def test_any_history_is_a_sparkline(values):
    drawn(sparkline(values, "x"))


def test_ticks_are_round_and_within():
    assert ticks(0.47, 0.83) == [0.5, 0.6, 0.7, 0.8]
    assert ticks(0, 95_000) == [0, 50_000]
    assert ticks(-1, 1, 4) == [-1.0, -0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("days", [0.01, 0.5, 3, 40, 400, 4_000])
def test_time_ticks_are_few_round_and_within(days):
    found = time_ticks(1.0e12, 1.0e12 + days * DAY)
    assert len(found) <= 12
    assert all(1.0e12 <= at <= 1.0e12 + days * DAY for at, _ in found)


# ── signing in ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "place", ["/console/p/delay", "/console/p/a%20b/runs?q=x%20y&page=2", "/console/p/a?x=http://y"]
)
def test_whoever_signs_in_comes_back_to_the_page_that_was_asked_for(place):
    assert _ours(place) == place


@pytest.mark.parametrize(
    "place",
    [
        *("", "https://evil.example/", "//evil.example/console/", "/console//evil.example", "/console/\\evil.example"),
        *(
            "/console/\r\nSet-Cookie: a=b",
            "/console/\n",
            "/console/a b",
            "/console/ü",
            "/console/" + "x" * 5_000,
            "/docs",
        ),
    ],
)
def test_a_link_that_leads_elsewhere_or_breaks_a_header_leads_to_the_first_page(place):
    assert _ours(place) == "/console/pipelines"


def test_two_consoles_on_one_host_do_not_take_each_others_cookie():
    one, other = Sessions(8080), Sessions(8090)
    both = cookie(one.begin("hr_one")) + b"; " + cookie(other.begin("hr_other"))
    assert (one.authorization(both), other.authorization(both)) == ("Bearer hr_one", "Bearer hr_other")
