"""an event's place or id → the way of its prediction, from the event to what its version was trained on."""

from datetime import datetime

import msgspec

from headrace.infra.console.fields import whole_number
from headrace.infra.console.site import Route, Site
from headrace.infra.serve.http import Request, Response
from headrace.infra.services.data.examples import examples
from headrace.infra.services.data.explain import Explanation, NotAmongServed, explain, feature_text, standings
from headrace.infra.services.data.label_of import label_of
from headrace.models.errors import HeadraceError
from headrace.streams.codec import unix_ms

_EXAMPLES = 8
_LOOK_BACK = 200_000  # served rows in which an id is looked for: about a second
_FURTHER = 10  # times as many, when asked to
_MOST = 100_000_000
_TEXT = 20_000  # characters of an event's value; the record's own page has its bytes


async def _page(site: Site, request: Request, pipeline: str) -> Response:
    names, wanted = site.place(pipeline), request.query("event").strip()
    given = [] if wanted else await site.ask(lambda: examples(site.settings, names, _EXAMPLES))
    return site.page(
        request,
        "explain.html",
        title="Explain",
        pipeline=pipeline,
        tab="Explain",
        event=wanted,
        look_back=whole_number(request, "look_back", _LOOK_BACK),
        examples=given[:_EXAMPLES],
        events=names.pipeline.events.name,
    )


async def _answer(site: Site, request: Request, pipeline: str) -> Response:
    names, wanted = site.place(pipeline), request.query("event").strip()
    look_back = min(_MOST, whole_number(request, "look_back", _LOOK_BACK))
    try:
        found = await site.ask(lambda: explain(site.settings, names, wanted, look_back=look_back))
    except HeadraceError as error:
        further = look_back * _FURTHER if isinstance(error, NotAmongServed) else 0
        return site.part("not_explained.html", pipeline=pipeline, event=wanted, text=str(error), further=further)
    return site.part(
        "explanation.html",
        pipeline=pipeline,
        found=found,
        place=found.source.removeprefix(names.prefix),
        value=_text(found),
        most=_TEXT,
        features=_features(found),
        standings=standings(found),
        prefix=names.prefix,
        event_ms=_ms(found.served.event_time) if found.served else 0,
        served_ms=_ms(found.served.at) if found.served else 0,
    )


async def _label(site: Site, request: Request, pipeline: str) -> Response:
    names, event = site.place(pipeline), request.query("id")
    at, served = whole_number(request, "at", 0), whole_number(request, "served", 0)
    try:
        found = await site.ask(lambda: label_of(site.settings, names, event, at, served))
    except HeadraceError as error:
        return site.part("label.html", found=None, text=str(error), label=names.pipeline.label, pipeline=pipeline)
    return site.part("label.html", found=found, text="", label=names.pipeline.label, pipeline=pipeline)


def _features(found: Explanation) -> list[tuple[str, str]]:
    return [(name, feature_text(value)) for name, value in (found.served.features if found.served else {}).items()]


def _text(found: Explanation) -> str:
    """The event's value for people."""
    value = found.event.value if found.event else None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _ms(text: str) -> int:
    return unix_ms(datetime.fromisoformat(text))


ROUTES = [
    Route("GET", "/p/{pipeline}/explain", _page),
    Route("GET", "/p/{pipeline}/explain/answer", _answer),
    Route("GET", "/p/{pipeline}/explain/label", _label),
]
