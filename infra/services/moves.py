"""promote, rollback, pin, unpin, alias, archive: who asks, why, and until when they wait."""

from time import time_ns

from headrace.infra.names import Names
from headrace.infra.services.ask import moved
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import ends_of
from headrace.infra.topics import topic_id
from headrace.infra.training import Origin
from headrace.models.errors import BadInput
from headrace.models.manifest import Blob
from headrace.models.records import Activation, Asked, Asking, Replied
from headrace.scheduler.leader import new_run_id

_WAIT_MS = 60_000


def ask(
    settings: Settings,
    origin: Origin,
    move: Asking,
    *,
    why: str = "",
    version: int | None = None,
    alias: str = "",
    share: float = 0.0,
    activate_at: Activation | None = None,
    manifest: Blob | None = None,
    target: str = "",
) -> Replied:
    """One move, done. Raises BadInput with the leader's reason, or BrokerUnavailable."""
    now = time_ns() // 1_000_000
    asked = Asked(
        run=new_run_id(now),
        pipeline=origin.pipeline.name,
        move=move,
        by=origin.by,
        why=why,
        until=now + _WAIT_MS,
        version=version,
        alias=alias,
        share=share,
        activate_at=activate_at,
        manifest=manifest,
        target=target,
    )
    return moved(settings, origin, asked)


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
