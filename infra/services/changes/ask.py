"""a wish for a model, or for a move → `headrace.runs` → the leader's answer. Where nobody leads, whoever asks does."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic, time_ns
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer

from headrace.infra.kafka import admin, producer_config
from headrace.infra.names import RUNS, Names
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader, from_end
from headrace.infra.training import Origin
from headrace.models.durations import iso
from headrace.models.errors import BadInput, BrokerUnavailable
from headrace.models.facts import Observer, ignore
from headrace.models.records import Asked, Finished, Progressed, Replied, Requested, RunRecord, Started
from headrace.scheduler.leader import new_run_id

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 2.0  # between two looks whether somebody still leads: a scheduler may die while it trains
_CALL_SECONDS = 10.0
_GRACE_MS = 2_000  # a reply that was given in time may be on its way
_decode = msgspec.json.Decoder(RunRecord).decode


@dataclass(frozen=True, kw_only=True)
class LedHere:
    """No scheduler leads this pipeline: this process does, until the run has its outcome."""

    pipeline: str


class MoveRefused(BadInput):
    """`reason` is the leader's, and begins with a short fixed word: pinned, archived, moved_on, …"""

    def __init__(self, asked: Asked, reason: str) -> None:
        super().__init__(f"{asked.move} of {asked.pipeline} was refused: {reason}")
        self.reason = reason


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
    except TimeoutError as error:  # of the future, whose limit may pass before the request's
        raise BrokerUnavailable(f"no answer about the group {group!r} within {_CALL_SECONDS:.0f} s") from error
    return bool(found.members)


def requested(settings: Settings, names: Names, *, at: int, by: str, why: str = "", sanity: bool = False) -> Requested:
    """Puts a request for a training on demand, acknowledged: whoever leads runs it, now or when there is one."""
    request = Requested(
        run=new_run_id(at), pipeline=names.pipeline.name, at=at, by=by, on_demand=True, why=why, sanity=sanity
    )
    _put(settings, names, request)
    return request


def trained(
    settings: Settings, origin: Origin, *, at: int, why: str = "", sanity: bool = False, observer: Observer = ignore
) -> Iterator[Heard]:
    """Asks for a training with what is known at `at` (Unix ms), and gives all that is heard of it, `Finished` last.

    Closing the generator stops waiting. Where this process leads, that drops the training; its request stays on the
    topic and runs with the next leader. Raises what ended the leadership here.
    """
    names = Names(settings.prefix, origin.pipeline)
    with ExitStack() as stack:
        reader = _listening(stack, settings, names)
        request = requested(settings, names, at=at, by=origin.by, why=why, sanity=sanity)
        yield request
        for heard in _heard(stack, settings, origin, reader, request.run, observer):
            if isinstance(heard, LedHere | Started | Progressed | Finished):
                yield heard
            if isinstance(heard, Finished):
                return


def moved(settings: Settings, asker: Origin | Names, asked: Asked, observer: Observer = ignore) -> Replied:
    """Asks the leader for a move in the registry and waits for its reply; where nobody leads, this process does, unless
    the asker has no pipeline file.

    Raises MoveRefused with the leader's reason, BrokerUnavailable where nobody leads or nobody replied in time.
    """
    names = asker if isinstance(asker, Names) else Names(settings.prefix, asker.pipeline)
    if isinstance(asker, Names) and not leads_anyone(settings, names):
        raise _nobody(names)  # before it is asked: it must not be done later, by whoever leads then
    with ExitStack() as stack:
        reader = _listening(stack, settings, names)
        _put(settings, names, asked)
        for heard in _heard(stack, settings, asker, reader, asked.run, observer, until=asked.until):
            if isinstance(heard, Replied):
                if not heard.done:
                    raise MoveRefused(asked, heard.reason)
                return heard
    raise BrokerUnavailable(
        f"nobody replied to {asked.move} until {iso(asked.until)}. It is not done later: ask again. "
        "See: headrace runs list, and the scheduler's log."
    )


def _nobody(names: Names) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{names.pipeline.name}: no scheduler runs, and nobody else may write its versions."
        " Start one: headrace scheduler FILE"
    )


def _listening(stack: ExitStack, settings: Settings, names: Names) -> TopicReader:
    """From before the question on."""
    reader = from_end(settings, [names.of(RUNS)])
    stack.callback(reader.close)
    return reader


def _put(settings: Settings, names: Names, record: Requested | Asked) -> None:
    refused: list[Any] = []
    producer = Producer(producer_config(settings, linger_ms=0, on_delivery=lambda error, _: refused.append(error)))
    producer.produce(names.of(RUNS), msgspec.json.encode(record), record.pipeline.encode())
    if producer.flush(_CALL_SECONDS) or refused:
        why_not = refused[0].str() if refused else f"no answer within {_CALL_SECONDS:.0f} s"
        raise BrokerUnavailable(f"{names.of(RUNS)}: the request was not delivered: {why_not}")


def _heard(
    stack: ExitStack,
    settings: Settings,
    asker: Origin | Names,
    reader: TopicReader,
    run: str,
    observer: Observer,
    until: int | None = None,
) -> Iterator[RunRecord | LedHere]:
    """What is said about the run, up to `until` (Unix ms) for a move, which needs no trainer. Leads where nobody does;
    looks again and again whether somebody still leads."""
    names = asker if isinstance(asker, Names) else Names(settings.prefix, asker.pipeline)
    leader, look_at = None, monotonic()
    while until is None or time_ns() // 1_000_000 <= until + _GRACE_MS:
        yield from _of(reader, run)
        if leader is not None:
            if leader.failure is not None:
                raise leader.failure
        elif monotonic() >= look_at:
            if not leads_anyone(settings, names):
                if isinstance(asker, Names):
                    raise _nobody(names)
                yield LedHere(pipeline=names.pipeline.name)
                leader = _leader(stack, settings, asker, observer, trains=until is None)
            look_at = monotonic() + _LOOK_SECONDS


def _of(reader: TopicReader, run: str) -> Iterator[RunRecord]:
    for message in reader.poll(_POLL_SECONDS):
        try:
            record = _decode(message.value() or b"")
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue  # a record of somebody else's says nothing to us
        if record.run == run and not isinstance(record, Requested | Asked):
            yield record


def _leader(stack: ExitStack, settings: Settings, origin: Origin, observer: Observer, *, trains: bool) -> Any:
    from headrace.infra.processes.scheduler import LeaderThread  # noqa: PLC0415  only who leads needs a trainer
    from headrace.trainer.process import Trainer  # noqa: PLC0415

    trainer = stack.enter_context(Trainer())
    if trains:
        trainer.warm_up()
    leader = LeaderThread(settings, origin, trainer, observer, trains=trains)
    leader.start()
    stack.callback(leader.stop)
    return leader
