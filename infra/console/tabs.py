"""a pipeline → the links between the pages of its data."""

from dataclasses import dataclass
from urllib.parse import quote

from headrace.infra.names import Names

SERVED, DEAD_LETTERS, PREDICTIONS = "served", "dead-letters", "predictions"
PROFILE = "profile"


@dataclass(frozen=True, kw_only=True)
class Tab:
    name: str
    href: str
    is_here: bool


def topic_of(names: Names, wanted: str) -> str:
    """Without the prefix. By its name, or by what it is: events, labels, served, predictions, dead-letters."""
    pipeline = names.pipeline
    known = {"": pipeline.events.name, "events": pipeline.events.name, "labels": pipeline.label.topic.name}
    known |= {kind: pipeline.topic(kind) for kind in (SERVED, PREDICTIONS, DEAD_LETTERS)}
    known |= {one.name: one.name for one in pipeline.inputs}  # whatever a user calls a topic, it is that one
    return known.get(wanted, wanted)


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
