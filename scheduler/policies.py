"""what a person types → a policy: a name and its triggers. `headrace plan --schedule` takes these."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headrace.models.errors import BadInput, DeclarationError
from headrace.models.protocols import Trigger
from headrace.scheduler.combined import AtLeast
from headrace.scheduler.triggers import Always, Cron, Degraded, Drift, Every, Never, NewLabels

_FORMS = (
    "never, always, declared, drift, drift:0.2 (a PSI), degraded, degraded:0.02, every:1d, labels:20000, "
    'or a cron line such as "0 3 * * *"'
)
_PARTS: dict[str, Callable[[str], Trigger]] = {
    "degraded": lambda by: Degraded(by=float(by)),
    "drift": lambda psi: Drift(psi=float(psi)),
    "every": Every,
    "labels": lambda count: NewLabels(int(count.replace("_", ""))),
}
_ALONE: dict[str, Callable[[], Trigger]] = {"never": Never, "always": Always, "drift": Drift, "degraded": Degraded}


@dataclass(frozen=True, kw_only=True)
class Policy:
    name: str  # as it was asked for
    triggers: Sequence[Trigger]


def policy_of(text: str, declared: Sequence[Trigger], timezone: str | None = None) -> Policy:
    """`timezone` is a cron line's; without it that of a Cron among `declared`. Raises BadInput."""
    name = text.strip()
    word, _, rest = name.partition(":")
    try:
        if name == "declared":
            return Policy(name=name, triggers=declared)
        if name in _ALONE:
            return Policy(name=name, triggers=[_ALONE[name]()])
        if word in _PARTS and rest:
            return Policy(name=name, triggers=[_PARTS[word](rest)])
        if name.startswith("@") or len(re.split(r"\s+", name)) == 5:
            return Policy(name=name, triggers=[Cron(name, timezone=_timezone(name, declared, timezone))])
    except (DeclarationError, ValueError) as error:
        raise BadInput(f"--schedule {text!r}: {error} Expected {_FORMS}.") from error
    raise BadInput(f"--schedule: expected {_FORMS}; got {text!r}.")


def _timezone(line: str, declared: Sequence[Trigger], given: str | None) -> str:
    found = given or next(_zones(declared), None)
    if found is None:
        raise BadInput(f"--schedule {line!r}: in which timezone? Say --timezone, for example --timezone Europe/Lisbon.")
    return found


def _zones(triggers: Sequence[Trigger]) -> Iterator[str]:
    for trigger in triggers:
        if isinstance(trigger, Cron):
            yield trigger.timezone
        elif isinstance(trigger, AtLeast):
            yield from _zones(trigger.triggers)
