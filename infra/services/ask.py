"""a wish for a model → `headrace.runs` → the leader's outcome. Where nobody leads, whoever asks does, for this run."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer

from headrace.infra.kafka import admin, producer_config
from headrace.infra.names import RUNS, Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader, from_end
from headrace.infra.training import Origin
from headrace.models.errors import BrokerUnavailable
from headrace.models.facts import Observer, ignore
from headrace.models.records import Finished, Progressed, Requested, RunRecord, Started
from headrace.scheduler.leader import new_run_id

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 2.0  # between two looks whether somebody still leads: a scheduler may die while it trains
_CALL_SECONDS = 10.0
_decode = msgspec.json.Decoder(RunRecord).decode


@dataclass(frozen=True, kw_only=True)
class LedHere:
    """No scheduler leads this pipeline: this process does, until the run has its outcome."""

    pipeline: str


Heard = Requested | LedHere | Started | Progressed | Finished


def leads_anyone(settings: Settings, names: Names) -> bool:
    """Whether the leader's group has a member. One that was killed counts until its session ends, after 6 s."""
    group = names.leader_group
    client: Any = admin(settings)
    try:
        found = client.describe_consumer_groups([group], request_timeout=_CALL_SECONDS)[group].result(_CALL_SECONDS)
    except KafkaException as error:
        if error.args[0].name() in ("GROUP_ID_NOT_FOUND", "INVALID_GROUP_ID"):
            return False
        raise BrokerUnavailable(f"no answer about the group {group!r}: {error.args[0].str()}") from error
    return bool(found.members)


def requested(settings: Settings, names: Names, *, at: int, by: str, why: str = "") -> Requested:
    """Puts a request for a training on demand, acknowledged: whoever leads runs it, now or when there is one."""
    request = Requested(run=new_run_id(at), pipeline=names.pipeline.name, at=at, by=by, on_demand=True, why=why)
    refused: list[Any] = []
    producer = Producer(producer_config(settings, linger_ms=0, on_delivery=lambda error, _: refused.append(error)))
    producer.produce(names.of(RUNS), msgspec.json.encode(request), request.pipeline.encode())
    if producer.flush(_CALL_SECONDS) or refused:
        why_not = refused[0].str() if refused else f"no answer within {_CALL_SECONDS:.0f} s"
        raise BrokerUnavailable(f"{names.of(RUNS)}: the request was not delivered: {why_not}")
    return request


def trained(
    settings: Settings, origin: Origin, *, at: int, why: str = "", observer: Observer = ignore
) -> Iterator[Heard]:
    """Asks for a training with what is known at `at` (Unix ms), and gives all that is heard of it, `Finished` last.

    Closing the generator stops waiting. Where this process leads, that drops the training; its request stays on the
    topic and runs with the next leader. Raises what ended the leadership here.
    """
    names = Names(settings.prefix, origin.pipeline)
    with ExitStack() as stack:
        reader = from_end(settings, [names.of(RUNS)])
        stack.callback(reader.close)
        request = requested(settings, names, at=at, by=origin.by, why=why)
        yield request
        leader, look_at = None, monotonic()
        while True:
            for record in _of(reader, request.run):
                yield record
                if isinstance(record, Finished):
                    return
            if leader is not None:
                if leader.failure is not None:
                    raise leader.failure
            elif monotonic() >= look_at:
                if not leads_anyone(settings, names):
                    yield LedHere(pipeline=names.pipeline.name)
                    leader = _leader(stack, settings, origin, observer)
                look_at = monotonic() + _LOOK_SECONDS


def _of(reader: TopicReader, run: str) -> Iterator[Started | Progressed | Finished]:
    for message in reader.poll(_POLL_SECONDS):
        try:
            record = _decode(message.value() or b"")
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue  # a record of somebody else's says nothing to us
        if record.run == run and not isinstance(record, Requested):
            yield record


def _leader(stack: ExitStack, settings: Settings, origin: Origin, observer: Observer) -> Any:
    from headrace.infra.processes.scheduler import LeaderThread  # noqa: PLC0415  only who leads needs a trainer
    from headrace.trainer.process import Trainer  # noqa: PLC0415

    trainer = stack.enter_context(Trainer())
    trainer.warm_up()
    leader = LeaderThread(settings, origin, trainer, observer)
    leader.start()
    stack.callback(leader.stop)
    return leader
