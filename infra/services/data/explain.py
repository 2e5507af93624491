"""an event's place, or its id → what was served for it and why: event, features, version, who made and promoted it.

Of an event that was asked for on demand there are features, version and score; the event itself is on no topic.
"""

from contextlib import closing, suppress
from re import compile as pattern
from typing import Any

import msgspec
import pyarrow.compute as pc
from confluent_kafka import Consumer, TopicPartition

from headrace.infra.history import switches
from headrace.infra.kafka import consumer_config
from headrace.infra.names import Names
from headrace.infra.row_format import readable
from headrace.infra.seek import Seeker
from headrace.infra.served_log import Batch, newest_first, predicted_with, served_with, source_of
from headrace.infra.services.dead_letters.letters import Letter, letters
from headrace.infra.services.scores.rerun import Rerun, impossible, run_again
from headrace.infra.services.scores.scoring import Scoring
from headrace.infra.services.versions.catalog import known_versions
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.models.drift import SCORE
from headrace.models.durations import iso
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.manifest import Manifest
from headrace.models.pipeline import SERVED_FIELDS
from headrace.models.records import Promoted, Switched
from headrace.models.standing import Standing, standing
from headrace.streams.dead_letters import headers_of_each
from headrace.streams.group_offsets import positions_of_group
from headrace.streams.served import ROWS, on_demand_place

_on_demand = pattern(r"(?P<topic>.+)/(?P<partition>\d{1,9})/(?P<offset>\d{1,10})/(?P<row>\d{1,4})")

_LONG = 20  # numbers of a tensor


class NotAmongServed(BadInput):
    """An event id that was looked for in vain: there may be older rows."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    written_at: str
    key: str | None
    headers: dict[str, str | None]
    value: Any  # decoded by the topic's format, else its text


class Served(msgspec.Struct, frozen=True, kw_only=True):
    place: str  # of the batch on the served topic
    at: str
    event_time: str
    version: int
    score: float
    features: dict[str, Any]
    rows: int  # in its batch
    times: int  # that the event was served: more than once only after a crash


class Explanation(msgspec.Struct, kw_only=True):
    source: str  # topic/partition/offset; of what was asked for on demand, of its row on the served topic, /row
    id: str = ""
    event: Event | None = None
    no_event: str = ""  # why
    on_demand: bool = False
    dead_letter: Letter | None = None
    served: Served | None = None
    prediction: Any = None  # as published, where it is still on the topic
    promotion: Promoted | None = None  # the one that was being served
    promotions: tuple[Promoted, ...] = ()  # all of the version
    switched: Switched | None = None  # when the partition's owner switched to it
    manifest: Manifest | None = None
    rerun: Rerun | None = None


def explain(settings: Settings, names: Names, wanted: str, *, look_back: int) -> Explanation:
    """`wanted` is topic/partition/offset of an event, or an event id, which is looked for in the newest `look_back`
    served rows. Raises BadInput for an event that is not there or was not served, BrokerUnavailable."""
    partition, offset = _place(settings, names, wanted, look_back)
    found = Explanation(source=source_of(names.events, names, partition, offset), on_demand=partition < 0)
    if found.on_demand:
        found.no_event = "asked for on demand: it is on no topic"
    else:
        _read_event(settings, names, found, partition, offset)
    batches = served_with(settings, names.topics.served, partition, offset)
    if not batches:
        found.dead_letter = next((one for one in letters(settings, names) if one.source == found.source), None)
        if found.dead_letter is None:
            raise BadInput(f"{found.source}: {_why_not_served(settings, names, found, partition, offset)}")
        return found
    batch = batches[0]  # what trainings take, too, is what was served first
    row = batch.row(offset) or 0
    found.served = _served(batch, row, len(batches))
    found.id = batch.rows.column("id")[row].as_py()
    known = known_versions(settings, names)
    found.promotions = tuple(one for one in known.promotions if one.version == found.served.version)
    if not found.on_demand:
        predictions = predicted_with(settings, names.topics.predictions, partition, offset)
        decoded = [msgspec.json.decode(message.value()) for message in predictions]
        found.prediction = next((one for one in decoded if one["version"] == found.served.version), None)
        _read_moves(settings, names, found, partition, offset)
    with closing(Scoring(settings, names, known)) as scoring:
        try:
            found.manifest = scoring.manifest(found.served.version)
            version = scoring.version(found.served.version)
        except (BadInput, RegistryRefused) as error:
            found.rerun = impossible(found.served.score, str(error))
        else:
            found.rerun = run_again(version, batch, row)
    return found


def standings(found: Explanation) -> dict[str, Standing]:
    """Of each feature, and of the score, where it lies among what the version was trained on, as its manifest says."""
    if found.served is None or found.manifest is None or found.manifest.reference is None:
        return {}
    known = found.manifest.reference.columns
    values = found.served.features | {SCORE: found.served.score}
    made = {
        name: standing(known[name], value)
        for name, value in values.items()
        if name in known and not isinstance(value, list)
    }
    return {name: one for name, one in made.items() if one is not None}


def feature_text(value: Any) -> str:
    """As served, for people."""
    if value is None:
        return "missing"
    if isinstance(value, list) and len(value) > _LONG:
        return f"{len(value):,} numbers from {min(value):.4g} to {max(value):.4g}"
    return str(value)


def _place(settings: Settings, names: Names, wanted: str, look_back: int) -> tuple[int, int]:
    topic, _, rest = wanted.rpartition("/")
    topic, _, partition = topic.rpartition("/")
    if topic in (names.events, names.pipeline.events.name) and partition.isdecimal() and rest.isdecimal():
        return int(partition), int(rest)
    if (place := _on_demand.fullmatch(wanted)) and place["topic"] in (
        names.topics.served,
        names.pipeline.topic("served"),
    ):
        if int(place["row"]) >= ROWS:
            raise BadInput(f"{wanted}: expected a row from 0 to {ROWS - 1:,}.")
        return on_demand_place(int(place["partition"]), int(place["offset"]), int(place["row"]))
    looked_at = 0
    for found in newest_first(settings, names.topics.served):
        hits = []
        for batch in found:
            if (row := int(pc.index(batch.rows.column("id"), wanted).as_py())) >= 0:
                partition_of, offset = (batch.rows.column(name)[row].as_py() for name in ("partition", "offset"))
                hits.append((batch.written_ms, offset, partition_of))
            looked_at += batch.rows.num_rows
        if hits:
            _, offset, number = max(hits)
            return number, offset
        if looked_at >= look_back:
            break
    raise NotAmongServed(
        f"expected {names.pipeline.events.name}/partition/offset of an event, or the id of one among the newest"
        f" {looked_at:,} served rows; got {wanted[:100]!r}. Dead letters have places alone."
    )


def _read_event(settings: Settings, names: Names, found: Explanation, partition: int, offset: int) -> None:
    with closing(Seeker(settings, names.events)) as seeker:
        if partition not in (there := _partitions(settings, names.events)):
            raise BadInput(f"{found.source}: expected a partition from 0 to {max(there)}.")
        first, end = seeker.bounds(partition)
        if offset >= end:
            raise BadInput(f"{found.source}: expected an offset from {first} to {end - 1}, as far as the topic goes.")
        if offset < first:
            found.no_event = f"no longer on the topic, which begins at {first}"
            return
        messages = [message for batch in seeker.between(partition, offset, offset + 1) for message in batch]
    if not messages:
        found.no_event = "nothing at this offset: the mark of a transaction, or an event that was taken back"
        return
    found.event = _event(messages[0], names)


def _event(message: Any, names: Names) -> Event:
    value: Any = None
    if message.value() is not None:
        value = readable(message.value(), names.pipeline.events.format)
        with suppress(msgspec.DecodeError, ValueError, RecursionError):  # then its text says what there is
            value = msgspec.json.decode(value)
    (headers,), _ = headers_of_each([message])
    return Event(
        written_at=iso(message.timestamp()[1]),
        key=None if message.key() is None else readable(message.key()),
        headers={name: None if held is None else readable(held) for name, held in headers or []},
        value=value,
    )


def _partitions(settings: Settings, topic: str) -> list[int]:
    client = Consumer(consumer_config(settings, "headrace.reader"))
    try:
        return partitions_of(client, topic)
    finally:
        client.close()


def _why_not_served(settings: Settings, names: Names, found: Explanation, partition: int, offset: int) -> str:
    if found.on_demand:
        return "expected a row that was asked for on demand; there is none at this place."
    if found.event is None:
        return found.no_event
    client = Consumer(consumer_config(settings, names.infer))  # asks, never joins
    try:
        (place,) = positions_of_group(client, [TopicPartition(names.events, partition)])
    finally:
        client.close()
    if place.offset < 0:
        return "not predicted yet: no worker has begun. Run: headrace worker"
    if offset >= place.offset:
        return f"not predicted yet: the workers have come to offset {place.offset}."
    return "no served row and no dead letter: retention has passed over them, or it lies before the first prediction."


def _served(batch: Batch, row: int, times: int) -> Served:
    (values,) = batch.rows.slice(row, 1).to_pylist()
    return Served(
        place=batch.place,
        at=iso(batch.written_ms),
        event_time=iso(round(values["event_time"].timestamp() * 1000)),
        version=values["version"],
        score=values["score"],
        features={name: value for name, value in values.items() if name not in SERVED_FIELDS},
        rows=batch.rows.num_rows,
        times=times,
    )


def _read_moves(settings: Settings, names: Names, found: Explanation, partition: int, offset: int) -> None:
    """Which promotion it was: a version may have been promoted more than once."""
    version = found.served.version if found.served else 0
    for switched in switches(settings, names.topics.history):
        here = (switched.topic, switched.partition) == (names.events, partition)
        if here and switched.first_offset <= offset:
            found.switched = switched
    if found.switched is not None and found.switched.version != version:
        found.switched = None  # a canary's row: the champion of that moment was another
    if found.switched is not None:
        seq = found.switched.seq
        found.promotion = next((one for one in found.promotions if one.seq == seq), None)
