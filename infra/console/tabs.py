"""a pipeline → the links between the pages of its data."""

from dataclasses import dataclass
from urllib.parse import quote

from headrace.infra.names import Names

SERVED, DEAD_LETTERS, PREDICTIONS = "served", "dead-letters", "predictions"
PROFILE = "profile"  # no topic is called so that has a tab: theirs are links with ?topic=


@dataclass(frozen=True, kw_only=True)
class Tab:
    name: str
    href: str
    is_here: bool


def tabs(names: Names, here: str) -> list[Tab]:
    """`here` is a topic without its prefix, or PROFILE."""
    pipeline = names.pipeline
    found = {pipeline.events.name: "Events"}
    found.setdefault(pipeline.label.topic.name, "Labels")
    for topic in (*pipeline.side_topics, *pipeline.scored_topics):
        found.setdefault(topic.name, topic.name)
    found[pipeline.topic(SERVED)] = "Served rows"
    found[pipeline.topic(PREDICTIONS)] = "Predictions"
    found[pipeline.topic(DEAD_LETTERS)] = "Dead letters"
    base = f"/console/p/{quote(pipeline.name)}/data"
    links = [
        Tab(name=name, href=f"{base}?topic={quote(topic)}", is_here=topic == here) for topic, name in found.items()
    ]
    return [*links, Tab(name="Profile", href=f"{base}/profile", is_here=here == PROFILE)]
