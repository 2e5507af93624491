"""promote, rollback, pin, unpin, alias, archive: who asks, why, and until when they wait."""

from time import time_ns
from typing import Any

from headrace.infra.names import Names
from headrace.infra.services.changes.ask import moved
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import ends_of
from headrace.infra.topics import topic_id
from headrace.infra.training import Origin
from headrace.models.errors import BadInput, RegistryRefused
from headrace.models.manifest import Blob
from headrace.models.records import Activation, Asked, Asking, Replied
from headrace.models.registry import Versions
from headrace.scheduler.leader import new_run_id
from headrace.scheduler.moves import record_of

_WAIT_MS = 60_000


def ask(
    settings: Settings,
    asker: Origin | Names,
    move: Asking,
    *,
    by: str = "",
    why: str = "",
    version: int | None = None,
    alias: str = "",
    share: float = 0.0,
    champion: int | None = None,
    activate_at: Activation | None = None,
    manifest: Blob | None = None,
    target: str = "",
) -> Replied:
    """One move, done. `by` is the origin's unless it is given; who has no pipeline file gives Names and it. `champion`:
    refused where another version serves by then. Raises MoveRefused with the leader's reason, or BrokerUnavailable.
    """
    now = time_ns() // 1_000_000
    asked = Asked(
        run=new_run_id(now),
        pipeline=asker.pipeline.name,
        move=move,
        by=by or (asker.by if isinstance(asker, Origin) else "unknown"),
        why=why,
        until=now + _WAIT_MS,
        version=version,
        alias=alias,
        share=share,
        champion=champion,
        activate_at=activate_at,
        manifest=manifest,
        target=target,
    )
    return moved(settings, asker, asked)


def refusal(names: Names, known: Versions, move: Asking, **said: Any) -> RegistryRefused | None:
    """What the leader would say to this move now, if it would refuse it. Later it may say something else."""
    now = time_ns() // 1_000_000
    asked = Asked(run="", pipeline=names.pipeline.name, move=move, by="", why="", until=now, **said)
    try:
        record_of(asked, known, now)
    except RegistryRefused as error:
        return error
    return None


def activation(settings: Settings, names: Names, text: str) -> Activation:
    """`0=5000,1=4900`: offsets of the events by partition; `+1000`: so many events after each one's end now.

    Raises BadInput for anything else, and for a partition that the topic has not.
    """
    ends = {partition: end for (_, partition), end in ends_of(settings, [names.events]).items()}
    try:
        if text.startswith("+"):
            offsets = {partition: end + int(text[1:]) for partition, end in ends.items()}
        else:
            offsets = {int(place): int(at) for place, at in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise BadInput(f"--activate-at: expected +1000, or 0=5000,1=4900 by partition; got {text!r}.") from None
    if not offsets.keys() <= ends.keys():
        raise BadInput(f"--activate-at: {names.events} has the partitions {sorted(ends)}; got {text!r}.")
    return Activation(topic_id=topic_id(settings, names.events), offsets=offsets)
