"""The page of a plan, whatever came of it: well-formed, finite, and users' data as text alone."""

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from test_diff_page import Tags

from headrace.infra.services.compare.plan import Report, Row
from headrace.infra.services.compare.plan_page import page

_maybe = st.one_of(st.none(), st.floats(0, 1), st.floats(-1e9, 1e9))
_letters = st.characters(categories=["L", "N", "P", "S", "Zs"])
_texts = st.one_of(
    st.text(_letters, max_size=8), st.sampled_from(["<b onload=x()>", "</td></svg><script>", "0 3 * * *"])
)


@st.composite
def rows(draw):
    value = draw(_maybe)
    low, high = (None, None) if value is None or draw(st.booleans()) else (value - 0.1, value + 0.1)
    return Row(
        policy=draw(_texts),
        live_metric=value,
        ci_low=low,
        ci_high=high,
        trainings=draw(st.integers(1, 400)),
        training_seconds=draw(st.sampled_from([0.0, 0.3, 12.5, 4e6])),
        recommended=draw(st.booleans()),
        metric="roc_auc",
        rows=3,
        promotions=1,
        rejections=0,
        failures=0,
        failed="",
        behind=value,
        behind_low=low,
        behind_high=high,
        periods=tuple(draw(st.lists(_maybe, min_size=12, max_size=12))),
    )


@given(st.lists(rows(), min_size=1, max_size=8), st.booleans(), _texts)
def test_any_plan_is_a_page_with_finite_plots_and_no_markup_of_users(policies, higher_is_better, name):
    report = Report(
        pipeline=name,
        metric="roc_auc",
        higher_is_better=higher_is_better,
        tolerance=0.005,
        since="2013-02-01T05:00:00Z",
        until="2013-12-31T00:00:00Z",
        rows=3,
        found=0,
        policies=tuple(policies),
    )
    html = page(report)
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    assert "script" not in tags.seen
    assert not [name for name in tags.attributes if name.startswith("on") or name in ("src", "href")]
    for plot in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        for mark in ET.fromstring(plot).iter():  # noqa: S314  made by us a line above
            numbers = " ".join(value for name, value in mark.attrib.items() if name != "class")
            assert not re.search(r"nan|inf", numbers), mark.attrib
