"""Every page of the console on real flights, by real processes: nothing serious for axe-core, nothing too wide.

`make screens` keeps what they looked like in docs/console, and says how soon they were painted.
"""

import os

import pytest
from browser import PHONE, SCREENS, WIDE, accessible, fits, page_of, screenshot
from kit import produce, read_all, wait_for
from playwright.sync_api import expect

from headrace.infra.demo import run as demo
from headrace.infra.demo.data import START, load_flights
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.together import running, serve_beside
from headrace.infra.replay import Replay, Rows, feature_store
from headrace.infra.services.changes.moves import ask
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models.durations import to_ms

DAYS = 29  # three promotions; `make screens` takes more
FREEZE_AT = to_ms(START.replace(day=28))
HOME = "/console/p/flight-delay"
NEWEST = "{newest}"
PAGES = {  # a name for the picture → address, and what is there when the page is whole
    "overview": (HOME, "#lines svg"),
    "versions": (f"{HOME}/versions", "svg"),
    "version": (f"{HOME}/versions/champion", "text=Lineage"),
    "compare": (f"{HOME}/compare?first=1&second=champion", "text=Rows that moved most"),
    "rollback": (f"{HOME}/versions/1/rollback", "text=Reason"),
    "runs": (f"{HOME}/runs", "text=Schedule"),
    "run": (f"{HOME}/runs/{NEWEST}", "text=Curves"),
    "retrain": (f"{HOME}/retrain", "role=button[name=/Retrain/]"),
    "data": (f"{HOME}/data", "tbody tr"),
    "served": (f"{HOME}/data?topic=served", "tbody tr"),
    "dead-letters": (f"{HOME}/data?topic=dead-letters", "text=not_json"),
    "profile": (f"{HOME}/data?topic=profile", "svg"),
    "explain": (f"{HOME}/explain?event={{event}}", "text=Run again"),
}


@pytest.fixture(scope="module")
def shown():
    """Pages that were looked at, with the milliseconds to their first paint."""
    paints = {}
    yield paints
    if os.environ.get(SCREENS):
        for name, milliseconds in paints.items():
            print(f"{name}: first contentful paint after {milliseconds:.0f} ms")  # noqa: T201  `make screens` shows it


def test_every_page_is_fit_to_be_looked_at_on_real_flights(settings, browser, shown):
    days = 120 if os.environ.get(SCREENS) else DAYS
    flights = load_flights(days)
    file = read_pipelines(str(demo.FILE))
    pipeline = one_of(file, demo.FILE.name)
    names = Names(settings.prefix, pipeline)
    apply(settings, pipeline, 2)
    rows = Rows(events=flights["flights"], labels=flights["arrivals"], side=[flights["departures"], flights["weather"]])
    with running(settings, [file], clock=False, started=to_ms(START)) as children:
        base = serve_beside(children, [file])
        replay = Replay(settings, names, feature_store(settings, names), children.check)
        runs, frozen = [], 0
        for done in replay.run(rows, longest_ms=86_400_000, start=to_ms(START)):
            runs += [done.finished] if done.finished else []
            if not frozen and done.end >= FREEZE_AT:
                frozen = runs[-1].version
                why = "what a model that is never retrained would be worth"
                ask(settings, Origin(file=file, pipeline=pipeline), "alias", alias="frozen", version=frozen, why=why)
        replay.close()
        produce(settings, names.events, [{"key": b"UA1", "value": b'{"flight_id": "broken'}])
        wait_for("the poison to be parked", lambda: read_all(settings, names.topics.dead_letters))
        newest = runs[-1].run
        event = (
            f"{pipeline.events.name}/0/{len(flights['flights'].times) // 3}"  # of two partitions, so in the second half
        )
        for kind, viewport, dark in (("", WIDE, False), ("-phone", PHONE, False), ("-dark", WIDE, True)):
            with page_of(browser, base, viewport=viewport, dark=dark) as page:
                page.goto("/console")
                for name, (place, sign) in PAGES.items():
                    page.goto(place.replace(NEWEST, newest).replace("{event}", event))
                    expect(page.locator(sign).first).to_be_visible(timeout=180_000)  # some compute, on a busy machine
                    accessible(page)
                    fits(page)
                    if not kind or name == "overview":
                        screenshot(page, f"{name}{kind}")
                    if not kind:
                        shown[name] = page.evaluate(PAINT)
        assert {"promoted"} <= {run.outcome for run in runs}


PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
