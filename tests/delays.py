"""Flights a second apart, some served by the baseline and the others by version 1: what the console's pages show."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from kit import Facts, linear, produce, read_all, wait_for
from test_source import worker_of
from test_swap import Publisher, predicted

from headrace.infra.local.servers import Addresses
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.models.facts import Swapped
from headrace.models.features import Category, Number, Topic
from headrace.models.labels import Binary
from headrace.models.manifest import Manifest
from headrace.models.pipeline import Pipeline

AT = 1_372_935_600_000  # 2013-07-04T11:00:00Z; the events are a second apart
EVIL = "<script>window.hacked = 1</script>"
DELAY = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Category("carrier", nullable=True)],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)


def event(number: int, **more: Any) -> dict[str, Any]:
    value = {"id": f"e{number}", "at": AT + 1_000 * number, "distance": number, "carrier": "UA"} | more
    return {"value": msgspec.json.encode(value), "key": f"k{number}".encode(), "partition": number % 2}


def settings_in(servers: Addresses, folder: Path) -> Settings:
    """For all tests of a module: its folder's name, which no other has, is the prefix."""
    return Settings(bootstrap_servers=servers.bootstrap_servers, prefix=f"{folder.name}.", home=folder / "home")


def serve(
    settings: Settings,
    first: Sequence[dict[str, Any]],
    then: Sequence[dict[str, Any]],
    *,
    weight: float,
    change: Callable[[Manifest], Manifest],
) -> Names:
    """`first` by the baseline, `then` by version 1; one of the latter is poison, and a dead letter at the end."""
    names = Names(settings.prefix, DELAY)
    apply(settings, DELAY, 2)
    publisher, facts = Publisher(settings, DELAY), Facts()
    with worker_of(settings, DELAY, facts):
        produce(settings, names.events, first)
        wait_for("the baseline's share", lambda: predicted(facts) == len(first))
        publisher.publish(linear([weight], categories=1), change=change)
        facts.wait(Swapped, lambda fact: fact.version == 1)
        produce(settings, names.events, then)
        wait_for("the others", lambda: predicted(facts) == len(first) + len(then) - 1)
        wait_for("a dead letter", lambda: read_all(settings, names.topics.dead_letters))
    return names
