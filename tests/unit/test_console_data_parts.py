"""What the console's Data and Explain pages are made of: JSON for people, fields of a query, small drawings, tabs."""

import pytest

from headrace.infra.console.fields import moment, whole_number
from headrace.infra.console.outlines import beside, outline
from headrace.infra.console.tabs import tabs, topic_of
from headrace.infra.console.view import pretty
from headrace.infra.names import Names
from headrace.infra.serve.http import Bodies, Request
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import RequestRefused
from headrace.infra.services.data.profiled import Bin
from headrace.models.column_stats import Bins
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline


def asked(query):
    scope = {"headers": [], "method": "GET", "path": "/console", "query_string": query.encode()}
    return Request(scope, None, Bodies(Limits()))


def bin_of(**said):
    return Bin(trained=1, found=1, trained_share=0.5, found_share=0.25, **said)


def test_json_has_a_line_for_each_value_and_keeps_its_numbers():
    assert pretty('{"a":1.50,"b":[123456789012345678901234567890]}').splitlines() == [
        "{",
        '  "a": 1.50,',
        '  "b": [',
        "    123456789012345678901234567890",
        "  ]",
        "}",
    ]


@pytest.mark.parametrize(
    "text", ["", "no json", '{"a":', "0x00ff", "[" * 50 + "]" * 50, "[" * 50_000, '"' + "x" * 200_000 + '"']
)
def test_what_is_no_json_or_would_become_much_longer_stays_as_it_is(text):
    assert pretty(text) == text


def test_times_of_a_query_are_in_utc_where_they_do_not_say_otherwise():
    assert moment(asked("since=1970-01-02"), "since") == 86_400_000
    assert moment(asked("since=1970-01-01T01:00:00%2B01:00"), "since") == 0
    assert moment(asked("since=+"), "since") is None


@pytest.mark.parametrize("text", ["yesterday", "2013-13-01", "1e999"])
def test_a_time_that_is_none_is_refused_with_what_was_expected(text):
    with pytest.raises(RequestRefused, match="since: expected a time as"):
        moment(asked(f"since={text}"), "since")


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "%D9%A3", "9" * 16])
def test_a_number_of_a_query_is_whole_and_from_0(text):
    assert whole_number(asked("rows=17"), "rows", 3) == 17
    assert whole_number(asked(""), "rows", 3) == 3
    with pytest.raises(RequestRefused, match="rows: expected a whole number"):
        whole_number(asked(f"rows={text}"), "rows", 3)


def test_a_drawing_says_its_bins_and_holds_no_markup_of_a_values():
    bins = [
        bin_of(kind="range", high=1.0),
        bin_of(kind="range", low=1.0, high=2.0),
        bin_of(kind="range", low=2.0),
        bin_of(kind="value", value="<script>"),
        bin_of(kind="missing"),
    ]
    drawn = beside(bins)
    for name in ("below 1", "1 to 2", "from 2", "&lt;script&gt;", "missing"):
        assert f"<title>{name}: training 50.0%, now 25.0%</title>" in drawn
    assert "<script>" not in drawn
    assert beside([]).startswith("<svg")


def test_an_outline_of_nothing_is_nothing():
    assert outline(Bins(edges=(), counts=())) == ""
    assert "<title>1 to 2: 1,500</title>" in outline(Bins(edges=(1.0, 2.0), counts=(1_500,)))


def pipeline(events="flights", labels="arrivals"):
    return Names(
        "t.",
        Pipeline(
            name="delay",
            events=Topic(events, id="id", time="at"),
            features=[Number("distance")],
            label=Binary(Topic(labels, id="id", time="at"), "late", within="1h", if_absent="drop"),
        ),
    )


def test_each_topic_has_one_tab_and_a_topic_is_what_a_user_calls_so():
    names = pipeline()
    found = tabs(names, "delay.served")
    assert [one.name for one in found if one.is_here] == ["Served rows"]
    assert [topic_of(names, kind) for kind in ("", "events", "labels", "served", "nobody's")] == [
        "flights",
        "flights",
        "arrivals",
        "delay.served",
        "nobody's",
    ]
    assert topic_of(pipeline(events="served", labels="events"), "served") == "served"
    assert topic_of(pipeline(events="served", labels="events"), "events") == "events"
