"""What a crontab(5) line means here: against croniter where it agrees with crontab(5), and by hand at clock changes."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from headrace.models.durations import iso
from headrace.models.errors import DeclarationError
from headrace.scheduler.cron import CronExpression

NEW_YORK, BERLIN, LORD_HOWE = "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"
MINUTE = 60_000
HOUR = 60 * MINUTE


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def fires(expr: str, timezone: str, after: str, until: str) -> list[str]:
    """Local times with their offsets, so that the two passes of a fold read differently."""
    cron, zone = CronExpression(expr, timezone), ZoneInfo(timezone)
    moment, found = cron.next_after(ms(after)), []
    while moment is not None and moment <= ms(until):
        found.append(datetime.fromtimestamp(moment / 1000, zone).strftime("%dT%H:%M%z"))
        moment = cron.next_after(moment)
    return found


# ── against croniter ──────────────────────────────────────────────────────────────────────────────────────────────────

WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def random_field(rng: random.Random, low: int, high: int, names: list[str]) -> str:
    """Any form but those where croniter is no oracle: it reads 3-3 as *, and 1-31 or 0-6 as an unrestricted day."""

    def value(number: int) -> str:
        index = number - low if low else number % len(names or [0])
        name = names[index] if names else ""
        return rng.choice([name, name.upper(), name.title()]) if name and rng.random() < 0.3 else str(number)

    def term() -> str:
        form = rng.random()
        start = rng.randint(low, high)
        if form < 0.5 or start >= high - 1:
            return value(start)
        end = rng.randint(start + 1, high - 1)
        step = f"/{rng.randint(2, high - low)}" if form < 0.7 else ""
        return f"{value(start) if not names else start}-{value(end)}{step}"

    form = rng.random()
    if form < 0.35:
        return "*"
    if form < 0.5:
        return f"*/{rng.randint(1, high - low)}"
    terms = [term() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return ",".join(terms)


def random_expressions(seed: int, count: int) -> Iterator[str]:
    rng = random.Random(seed)
    made = 0
    while made < count:
        fields = [
            random_field(rng, 0, 59, []),
            random_field(rng, 0, 23, []),
            random_field(rng, 1, 31, []),
            random_field(rng, 1, 12, MONTHS),
            random_field(rng, 0, 7, WEEKDAYS),
        ]
        expr = " ".join(fields)
        days, weekdays = croniter.expand(expr)[0][2], croniter.expand(expr)[0][4]
        unrestricted = (days == ["*"] and fields[2][0] != "*") or (weekdays == ["*"] and fields[4][0] != "*")
        if unrestricted or not croniter.is_valid(expr):
            continue
        made += 1
        yield expr


GIVEN = [
    "* * * * 1",
    "* * 1 * *",
    "0 0 * * 7",
    "0 0 * * 0",
    "0 0 * * 5-7",
    "0 3 * * mon",
    "30 4 1,15 * 5",
    "0 0 13 * FRI",
    "0 0 */2 * mon",
    "0 0 1-7 * */2",
    "*/15 9-17 * * mon-fri",
    "0 0 29 2 *",
    "0 22 31 dec *",
    "59 23 31 1-12/2 *",
    "5-55/10 */3 * jan,jul sat,sun",
]


def agrees_with_croniter(expr: str, start: datetime, *, steps: int) -> int:
    """How many of the next times were compared: those where croniter is an oracle.

    That is up to the next change of the offset, and not out of February into a day beyond 29.

    (From 10 February croniter takes day 31 to be 3 March, and so misses 1 March in `0 0 1,31 * *`.)
    """
    assert start.tzinfo is not None
    cron = CronExpression(expr, str(start.tzinfo))
    oracle = croniter(expr, start, ret_type=datetime, implement_cron_bug=True)
    beyond_february = any(day in oracle.expanded[2] for day in (30, 31))
    last = start
    for compared in range(steps):
        expected: datetime = oracle.get_next()
        if any(day.utcoffset() != start.utcoffset() for day in days_between(start, expected)):
            return compared
        leaves_february = last <= datetime(expected.year, 3, 1, tzinfo=UTC) <= expected
        if beyond_february and (leaves_february or expected.year != last.year):
            return compared
        moment = cron.next_after(int(last.timestamp() * 1000))
        assert moment == expected.timestamp() * 1000, f"{expr} after {last}"
        last = expected
    return steps


def days_between(start: datetime, end: datetime) -> Iterator[datetime]:
    """Through the day after `end`."""
    if start.tzinfo == ZoneInfo("UTC"):
        return
    while start < end + timedelta(days=1):
        start += timedelta(days=1)
        yield start


def test_a_thousand_random_expressions_mean_what_croniter_says_in_utc() -> None:
    rng, compared = random.Random(3), 0
    for expr in [*GIVEN, *random_expressions(seed=1, count=1000)]:
        start = datetime(2013, 1, 1, tzinfo=ZoneInfo("UTC")) + timedelta(seconds=rng.randrange(13 * 365 * 86_400))
        compared += agrees_with_croniter(expr, start, steps=4)
    assert compared > 3_000


def test_a_thousand_random_expressions_mean_what_croniter_says_in_new_york_between_clock_changes() -> None:
    rng, compared = random.Random(4), 0
    for expr in [*GIVEN, *random_expressions(seed=2, count=1000)]:
        year, month = rng.randrange(2013, 2026), rng.choice([4, 5, 6, 7, 12])
        start = datetime(year, month, rng.randint(2, 28), tzinfo=ZoneInfo(NEW_YORK))
        compared += agrees_with_croniter(expr, start + timedelta(seconds=rng.randrange(86_400)), steps=4)
    assert compared > 2_000


# ── crontab(5), by hand ───────────────────────────────────────────────────────────────────────────────────────────────


def first(expr: str, after: str, timezone: str = "UTC") -> str | None:
    moment = CronExpression(expr, timezone).next_after(ms(after))
    return None if moment is None else iso(moment)


@pytest.mark.parametrize("monday", ["1", "mon", "MON", "Mon"])
def test_weekday_one_is_monday(monday: str) -> None:
    assert first(f"0 0 * * {monday}", "2025-01-01T00:00Z") == "2025-01-06T00:00:00Z"


@pytest.mark.parametrize("sunday", ["0", "7", "sun"])
def test_weekdays_nought_and_seven_are_sunday(sunday: str) -> None:
    assert first(f"0 0 * * {sunday}", "2025-01-01T00:00Z") == "2025-01-05T00:00:00Z"


def test_either_of_two_restricted_day_fields_is_enough() -> None:
    found = fires("0 0 13 * fri", "UTC", "2025-01-01T00:00Z", "2025-01-31T00:00Z")
    assert [day[:2] for day in found] == ["03", "10", "13", "17", "24", "31"]


def test_a_day_field_that_starts_with_a_star_narrows_the_other() -> None:
    found = fires("0 0 */2 * mon", "UTC", "2025-01-01T00:00Z", "2025-01-31T00:00Z")
    assert [day[:2] for day in found] == ["13", "27"]


def test_day_31_is_skipped_in_february_and_day_1_after_it_is_not() -> None:
    assert first("0 0 1,31 * *", "2017-02-10T00:00Z") == "2017-03-01T00:00:00Z"


def test_the_29th_of_february_waits_for_a_leap_year() -> None:
    assert first("0 0 29 2 *", "2096-03-01T00:00Z") == "2104-02-29T00:00:00Z"


def test_next_is_strictly_after_and_counts_milliseconds() -> None:
    assert first("0 3 * * *", "2025-01-01T02:59:59.999Z") == "2025-01-01T03:00:00Z"
    assert first("0 3 * * *", "2025-01-01T03:00:00.000Z") == "2025-01-02T03:00:00Z"
    assert first("0 3 * * *", "2025-01-01T03:00:00.001Z") == "2025-01-02T03:00:00Z"


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("@hourly", "2025-01-01T13:00:00Z"),
        ("@daily", "2025-01-02T00:00:00Z"),
        ("@midnight", "2025-01-02T00:00:00Z"),
        ("@weekly", "2025-01-05T00:00:00Z"),
        ("@monthly", "2025-02-01T00:00:00Z"),
        ("@Yearly", "2026-01-01T00:00:00Z"),
        ("@annually", "2026-01-01T00:00:00Z"),
    ],
)
def test_macros_stand_for_their_five_fields(macro: str, expected: str) -> None:
    assert first(macro, "2025-01-01T12:30Z") == expected


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("", "five fields"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * mon", "no seconds"),
        ("@reboot", "@daily"),
        (3, "a string"),
        ("60 * * * *", "minute: expected values of 0-59"),
        ("0 24 * * *", "hour: expected values of 0-23"),
        ("0 0 0 * *", "day of month: expected values of 1-31"),
        ("0 0 * 13 *", "month: expected values of 1-12"),
        ("0 0 * * 8", "day of week: expected values of 0-7"),
        ("0 0 * * monday", "day of week"),
        ("0 0 * * fri-sun", "does not wrap"),
        ("0 22-2 * * *", "does not wrap"),
        ("mon 0 * * *", "minute"),
        ("*/90 * * * *", 'Every("90m")'),
        ("*/0 * * * *", "a step of 1 to 59"),
        ("5/15 * * * *", "low-high/step"),
        ("0 0 L * *", "day of month"),
        ("0 0 * * 5#2", "day of week"),
        ("0 0 ? * *", "day of month"),
        ("0,,5 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("٣ * * * *", "minute"),
        ("0 0 31 2 *", "a date that some year has"),
        ("0 0 30,31 2 *", "a date that some year has"),
        ("0 0 31 4,6 *", "a date that some year has"),
    ],
)
def test_a_wrong_expression_says_which_field_and_what_to_write(expr: str, says: str) -> None:
    with pytest.raises(DeclarationError) as error:
        CronExpression(expr, "UTC")
    assert says in str(error.value)


@pytest.mark.parametrize("timezone", ["", "America", "New_York", "../etc/passwd", "UTC+2", None])
def test_a_wrong_timezone_says_what_one_looks_like(timezone: str) -> None:
    with pytest.raises(DeclarationError, match="IANA timezone"):
        CronExpression("0 3 * * *", timezone)


# ── clock changes: expressions that name hours ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("timezone", "expr", "after", "until", "expected"),
    [
        # 2025-03-09: New York goes from 02:00 to 03:00
        (NEW_YORK, "30 2 * * *", "2025-03-08T12:00Z", "2025-03-10T12:00Z", ["09T03:00-0400", "10T02:30-0400"]),
        # 2025-03-30: Berlin goes from 02:00 to 03:00
        (BERLIN, "30 2 * * sun", "2025-03-25T12:00Z", "2025-04-07T12:00Z", ["30T03:00+0200", "06T02:30+0200"]),
        # 2025-10-05: Lord Howe goes from 02:00 to 02:30
        (LORD_HOWE, "10 2 * * *", "2025-10-04T12:00Z", "2025-10-06T12:00Z", ["05T02:30+1100", "06T02:10+1100"]),
        # 2011-12-30 was not in Samoa
        ("Pacific/Apia", "0 12 30 * *", "2011-12-20T00:00Z", "2012-01-01T00:00Z", ["31T00:00+1400"]),
    ],
)
def test_a_time_inside_a_spring_gap_fires_at_the_gaps_end(
    timezone: str, expr: str, after: str, until: str, expected: list[str]
) -> None:
    assert fires(expr, timezone, after, until) == expected


def test_several_times_inside_one_gap_are_one_fire_time_and_the_gaps_end_itself_is_not_fired_twice() -> None:
    found = fires("*/20 2-3 * * *", NEW_YORK, "2025-03-09T05:00Z", "2025-03-09T12:00Z")
    assert found == ["09T03:00-0400", "09T03:20-0400", "09T03:40-0400"]


def test_every_second_hour_is_at_the_gaps_end_too() -> None:
    found = fires("0 */2 * * *", NEW_YORK, "2025-03-09T04:59Z", "2025-03-09T09:00Z")
    assert found == ["09T00:00-0500", "09T03:00-0400", "09T04:00-0400"]


@pytest.mark.parametrize(
    ("timezone", "expr", "after", "until", "expected"),
    [
        # 2025-11-02: New York goes from 02:00 back to 01:00
        (NEW_YORK, "30 1 * * *", "2025-11-01T12:00Z", "2025-11-03T12:00Z", ["02T01:30-0400", "03T01:30-0500"]),
        # 2025-10-26: Berlin goes from 03:00 back to 02:00
        (BERLIN, "30 2 * * *", "2025-10-25T12:00Z", "2025-10-27T12:00Z", ["26T02:30+0200", "27T02:30+0100"]),
        # 2025-04-06: Lord Howe goes from 02:00 back to 01:30
        (LORD_HOWE, "45 1 * * *", "2025-04-05T12:00Z", "2025-04-06T18:00Z", ["06T01:45+1100", "07T01:45+1030"]),
    ],
)
def test_a_time_inside_an_autumn_fold_fires_once_in_its_first_pass(
    timezone: str, expr: str, after: str, until: str, expected: list[str]
) -> None:
    assert fires(expr, timezone, after, until) == expected


def test_steps_within_a_named_hour_fire_once_in_a_fold() -> None:
    found = fires("*/30 1 * * *", NEW_YORK, "2025-11-02T00:00Z", "2025-11-02T12:00Z")
    assert found == ["02T01:00-0400", "02T01:30-0400"]


def test_nothing_of_the_first_pass_fires_again_when_asked_in_the_second() -> None:
    second_pass = ms("2025-11-02T01:10-05:00")
    assert iso(CronExpression("30 1 * * *", NEW_YORK).next_after(second_pass) or 0) == "2025-11-03T06:30:00Z"


# ── clock changes: expressions that cover every hour ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hours", ["*", "*/1", "0-23"])
def test_an_every_hour_expression_fires_in_both_passes_of_a_fold(hours: str) -> None:
    found = fires(f"30 {hours} * * *", NEW_YORK, "2025-11-02T04:00Z", "2025-11-02T08:00Z")
    assert found == ["02T00:30-0400", "02T01:30-0400", "02T01:30-0500", "02T02:30-0500"]


def test_an_every_hour_expression_goes_on_through_a_gap_without_making_up_for_it() -> None:
    found = fires("15,45 * * * *", BERLIN, "2025-03-30T00:00Z", "2025-03-30T02:00Z")
    assert found == ["30T01:15+0100", "30T01:45+0100", "30T03:15+0200", "30T03:45+0200"]


def test_a_half_hour_fold_is_shown_twice_and_fires_twice() -> None:
    found = fires("*/15 * * * *", LORD_HOWE, "2025-04-05T14:29Z", "2025-04-05T15:30Z")
    assert found == ["06T01:30+1100", "06T01:45+1100", "06T01:30+1030", "06T01:45+1030", "06T02:00+1030"]


@pytest.mark.parametrize("timezone", [NEW_YORK, BERLIN, LORD_HOWE, "Pacific/Apia", "Africa/Cairo", "America/Havana"])
@pytest.mark.parametrize("expr", ["45 * * * *", "0,20 * * * *", "50 1-3 * * *", "*/25 0,2,23 * * *", "45 * 1 11 *"])
def test_the_next_time_does_not_depend_on_where_one_starts_to_look(timezone: str, expr: str) -> None:
    cron = CronExpression(expr, timezone)
    for around in clock_changes(timezone, 2024):
        start, end = around - 3 * HOUR, around + 4 * HOUR
        asked = [cron.next_after(at) for at in range(start, end, 5 * MINUTE)]
        assert all(earlier is not None and later is not None and earlier <= later for earlier, later in pairwise(asked))
        for at, next_one in zip(range(start, end, 5 * MINUTE), asked, strict=True):
            assert next_one is not None
            assert next_one > at
            assert cron.next_after(next_one - 1) == next_one


def clock_changes(timezone: str, year: int) -> list[int]:
    zone = ZoneInfo(timezone)
    hours = [ms(f"{year}-01-01T00:00Z") + hour * HOUR for hour in range(366 * 24)]
    offsets = [datetime.fromtimestamp(hour / 1000, zone).utcoffset() for hour in hours]
    return [hours[i] for i in range(1, len(hours)) if offsets[i] != offsets[i - 1]]


def test_the_newest_time_of_a_span_is_the_last_that_walking_it_finds() -> None:
    rng = random.Random(5)
    for expr in random_expressions(seed=6, count=60):
        cron = CronExpression(expr, NEW_YORK)
        after = ms("2025-01-01T00:00Z") + rng.randrange(300) * 24 * HOUR
        until = after + rng.randrange(1, 72) * HOUR
        walked = None
        moment = cron.next_after(after)
        while moment is not None and moment <= until:
            walked, moment = moment, cron.next_after(moment)
        assert cron.newest_in(after, until) == walked


def test_times_are_whole_seconds_of_unix_time_in_utc() -> None:
    moment = CronExpression("* * * * *", "Asia/Kathmandu").next_after(ms("2025-01-01T00:00:30Z"))
    assert moment == datetime(2025, 1, 1, 0, 1, tzinfo=UTC).timestamp() * 1000
