"""one version → all that made it, what its gate said, who served it when, and what may be done with it."""

from typing import Any

from headrace.infra.console.site import Route, Site
from headrace.infra.names import Names
from headrace.infra.serve.http import Request, Response
from headrace.infra.serve.refusals import NotFound
from headrace.infra.services.changes.moves import refusal
from headrace.infra.services.runs.run_words import Compared, beside
from headrace.infra.services.versions.book import Book, Standing
from headrace.infra.services.versions.catalog import detail
from headrace.infra.services.versions.event_times import begins
from headrace.infra.services.versions.resolve import resolve
from headrace.models.durations import iso
from headrace.models.errors import BadInput
from headrace.models.manifest import Manifest
from headrace.models.records import Asking

_ANCESTORS = 20
_LINES = 100  # of who served it when: the newest
_LOOKING_SECONDS = 1.0
_MOVES: tuple[Asking, ...] = ("promote", "rollback", "pin", "archive")
_PAST = {"promote": "promoted", "rollback": "rolled back to", "pin": "pinned"}


async def _one(site: Site, request: Request, pipeline: str, version: str) -> Response:
    names = site.place(pipeline)
    with site.catalog.of(pipeline).book() as book:
        number, standing = number_of(book, version), book.standing()
        facts = next(one for one in book.versions() if one.version == number)
        possible = _possible(names, book, standing, number)
    shown = await site.ask(lambda: _shown(site, names, number))
    if shown.pop("looking"):
        site.hub.changed(f"times:{pipeline}")  # the page asks again, and more is found
    return site.page(
        request,
        "version.html",
        title=f"Version {number}" if number else "Baseline",
        pipeline=pipeline,
        tab="Versions",
        watch=[f"versions:{pipeline}", f"history:{pipeline}", f"times:{pipeline}"],
        facts=facts,
        standing=standing,
        possible=possible,
        past=_PAST,
        **shown,
    )


def number_of(book: Book, version: str) -> int:
    """Raises NotFound."""
    try:
        return resolve(book.known, version)
    except BadInput as error:
        raise NotFound(str(error)) from error


def _possible(names: Names, book: Book, standing: Standing, number: int) -> set[str]:
    """The moves that a leader would make now."""
    found = {str(move) for move in _MOVES if refusal(names, book.known, move, version=number) is None}
    if number not in (0, *(one.version for one in standing.promotions)):
        found.discard("rollback")  # there is nothing to go back to
    if standing.champion == number and standing.pinned:
        found = (found - {"pin"}) | {"unpin"}
    if refusal(names, book.known, "alias", version=number, alias="own") is None:
        found.add("alias")
    return found


def _shown(site: Site, names: Names, number: int) -> dict[str, Any]:
    followed, times = site.catalog.of(names.pipeline.name), site.event_times[names.pipeline.name]
    lines = [one for one in followed.served() if one.version == number]
    newest = sorted(lines, key=lambda one: (-one.seq, one.partition))[:_LINES]
    ours = [one for one in newest if one.topic == names.events]
    complete = times.find(begins(ours), _LOOKING_SECONDS)
    served = [(one, _when(times((one.partition, one.first)) if one in ours else None)) for one in newest]
    shown: dict[str, Any] = {"served": served, "more_served": len(lines) - len(newest), "looking": not complete}
    if number == 0:
        return shown | {"detail": None, "metrics": [], "anchor": [], "made": None}
    with followed.book() as book:
        known = book.known
    with followed.manifests() as manifest:
        found = detail(known, names, manifest, number, ancestors=_ANCESTORS)
    made = found.manifest
    metrics = beside(made.metrics, made.champion_metrics, first=names.pipeline.metric)
    return shown | {
        "detail": found,
        "made": made,
        "metrics": metrics,
        "anchor": _anchor(names, made),
        "numbers": [(name, f"{value:.4g}") for name, value in made.numbers.items()],
        "hyperparameters": [(name, str(value)) for name, value in made.hyperparameters.items()],
        "libraries": list(made.libraries.items()),
    }


def _anchor(names: Names, made: Manifest) -> list[Compared]:
    """As the holdout's metrics; versions with the same hash were judged on the same rows."""
    own = {name: made.numbers[f"anchor_{name}"] for name in made.metrics if f"anchor_{name}" in made.numbers}
    champion = {name: value for name in own if (value := made.numbers.get(f"anchor_champion_{name}")) is not None}
    return beside(own, champion, first=names.pipeline.metric)


def _when(ms: int | None) -> str:
    return "" if ms is None else iso(ms)


ROUTES = [Route("GET", "/p/{pipeline}/versions/{version}", _one)]
