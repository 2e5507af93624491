"""a pipeline's runs → those that go on, and the past ones that somebody looks for, a page at a time. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from headrace.infra.services.versions.book import Book, RunFacts
from headrace.infra.training import plain
from headrace.models.errors import BadInput

NOT_DUE = "not_due"
OUTCOMES = ("promoted", "published", "rejected", "failed", "cancelled", "scored", NOT_DUE)
PAGE = 50  # runs
_HASH = 64  # hexadecimal digits of the name of a run whose id is no plain one


@dataclass(frozen=True, kw_only=True)
class Past:
    """One page of them, newest first."""

    runs: Sequence[RunFacts]
    page: int  # from 1
    pages: int
    found: int  # on all pages
    counts: Mapping[str, int]  # by outcome, of all that have ended


def due(runs: Iterable[RunFacts]) -> list[RunFacts]:
    """Without the requests for which nothing was due."""
    return [one for one in runs if one.state != NOT_DUE]


def going(runs: Iterable[RunFacts]) -> list[RunFacts]:
    """Those that have no end yet: what trains or scores first, then what waits, each oldest first."""
    found = [copy(one) for one in runs if not one.finished_at]
    return sorted(found, key=lambda one: one.state == "requested")


def past(runs: Sequence[RunFacts], *, outcome: str = "", every: bool = False, text: str = "", page: int = 1) -> Past:
    """With this outcome; without one, all that were due, or `every` one. Each word of `text` is somewhere in what is
    on record."""
    ended = [one for one in reversed(runs) if one.finished_at]
    counts = Counter(one.state for one in ended)
    words = text.casefold().split()
    if outcome:
        ended = [one for one in ended if one.state == outcome]
    elif not every:
        ended = due(ended)
    if words:
        ended = [one for one in ended if _says(one, words)]
    pages = max(1, -(-len(ended) // PAGE))
    number = min(max(1, page), pages)
    shown = [copy(one) for one in ended[(number - 1) * PAGE : number * PAGE]]
    return Past(runs=shown, page=number, pages=pages, found=len(ended), counts=counts)


def one_of(book: Book, wanted: str) -> RunFacts:
    """By its id, the beginning of it, or the name that stands for it in addresses. As it is now. Raises BadInput."""
    if len(wanted) == _HASH:
        for one in book.runs():
            if plain(one.run) == wanted:
                return copy(one)
    if not wanted:
        raise BadInput("run: expected its id, got none.")
    return copy(book.run(wanted))


def _says(run: RunFacts, words: Sequence[str]) -> bool:
    version = f"v{run.version}" if run.version else ""
    said = (run.run, run.tick, run.trigger, run.by, run.why, run.source, run.state, run.reason, version, run.host)
    text = "\n".join(said).casefold()
    return all(word in text for word in words)
