"""The page of a comparison, whatever is compared: well-formed, finite, and users' data as text alone."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.services.compare.diff_page import page
from headrace.infra.services.compare.model_diff import Moved, Report, Side
from headrace.models.difference import Scored, difference

OURS = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "div", "b", "span", "table", "thead"}
OURS |= {"tbody", "tr", "th", "td", "br", "figure", "figcaption", "footer", "svg", "path", "rect", "circle", "text"}
_numbers = st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.floats(0, 1), st.floats(-1e12, 1e12))
_texts = st.one_of(
    st.none(), st.text(max_size=8), st.sampled_from(["<b onload=x()>", "</td></svg><script>", "\"&amp;'"])
)
_rows = st.lists(st.tuples(_numbers, _numbers, st.sampled_from([0.0, 1.0, np.nan]), _texts), min_size=1, max_size=12)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.open = set(), set(), []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def report(rows, *, decide_at, name="delay"):
    first, second, labels = np.array([row[:3] for row in rows], np.float64).T
    texts = [row[3] for row in rows]
    task = "regression" if decide_at is None else "binary"
    metric = "rmse" if decide_at is None else "roc_auc"
    scored = Scored(task=task, first=first, second=second, labels=labels, categories={"<i>carrier": texts})
    found = difference(scored, metric=metric, decide_at=decide_at, segment_rows=1, rounds=5)
    moved = [
        Moved(
            id=texts[at] or "e1",
            source="flights/0/1",
            event_time="2013-07-04T11:00:00Z",
            first=first[at],
            second=second[at],
            label=None,
            served_version=1,
            features={"carrier": texts[at], "distance": first[at]},
        )
        for at in found.moved
    ]
    return Report(
        pipeline=name,
        task=task,
        first=Side(version=0, aliases=()),
        second=Side(version=3, aliases=("champion", "own")),
        event_times=("2013-07-04T11:00:00Z", "2013-07-04T12:00:00Z"),
        metric=metric,
        decide_at=decide_at,
        difference=found,
        moved=tuple(moved),
        lacking={"version 3 needs <u>": 7},
        unanswered=2,
        segment_rows=1,
    )


@given(_rows, st.sampled_from([None, 0.5]))
def test_any_comparison_is_a_page_of_our_tags_alone_with_finite_plots(rows, decide_at):
    html = page(report(rows, decide_at=decide_at))
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    assert tags.seen <= OURS
    assert not [name for name in tags.attributes if name.startswith("on") or name in ("src", "href")]
    for plot in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        for mark in ET.fromstring(plot).iter():  # noqa: S314  made by us a line above
            numbers = " ".join(value for name, value in mark.attrib.items() if name != "class")
            assert not re.search(r"nan|inf", numbers), mark.attrib
