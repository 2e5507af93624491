"""How numbers, times and sizes are written for people."""

from datetime import UTC, datetime

import pytest

from headrace.infra.console.view import age, short, when
from headrace.infra.services.written import number, percent, rate, seconds, signed, size


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (number, 1_234_567, "1,234,567"),
        (number, 0.71614, "0.7161"),
        (number, 12_345.678, "1.235e+04"),
        (number, 1e-9, "1e-09"),
        (number, None, "–"),  # noqa: RUF001
        (number, float("nan"), "–"),  # noqa: RUF001
        (number, float("inf"), "–"),  # noqa: RUF001
        (signed, 0.0052, "+0.0052"),
        (signed, -0.5, "−0.5"),  # noqa: RUF001
        (percent, 0.0, "0%"),
        (percent, 0.0436, "4.36%"),
        (percent, 0.731, "73%"),
        (rate, 12_345.6, "12,346/s"),
        (rate, 0.36, "0.36/s"),
        (rate, 0.0, "0/s"),
        (rate, None, "–"),  # noqa: RUF001
        (seconds, 0.000_131, "131 µs"),
        (seconds, 0.0065, "6.5 ms"),
        (seconds, 59.5, "59.5 s"),
        (seconds, 605.0, "10.1 min"),
        (seconds, 7_300.0, "2.03 h"),
        (seconds, 86_400.0 * 15.3, "15.3 d"),
        (seconds, 0.0, "0 s"),
        (size, 900, "900 B"),
        (size, 33_200, "32.4 KiB"),
        (size, 5 << 30, "5 GiB"),
    ],
)
def test_a_value_is_written_so(write, value, text):
    assert write(value) == text


def test_a_time_is_an_element_in_utc_whatever_its_offset():
    found = str(when("2013-07-04T07:00:00-04:00"))
    assert found == '<time datetime="2013-07-04T11:00:00Z">2013-07-04 11:00:00</time>'


def test_what_is_no_time_is_shown_as_text_and_runs_nothing():
    assert str(when("<b>now</b>")) == "&lt;b&gt;now&lt;/b&gt;"
    assert str(when("")) == "–"  # noqa: RUF001


def test_an_age_is_by_the_clock_that_is_given():
    now = datetime(2013, 7, 4, 12, tzinfo=UTC)
    assert age("2013-07-04T11:50:00Z", now) == "10 min"
    assert age("no time", now) == "–"  # noqa: RUF001


def test_a_long_text_is_cut_with_a_mark():
    assert short("a" * 100, 10) == "aaaaaaaaa…"
    assert short("a", 10) == "a"
