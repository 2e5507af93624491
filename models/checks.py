"""What a training looks for before and after it, and which of it ends the run: `Pipeline.checks`."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.models.errors import DeclarationError
from headrace.models.findings import Finding

LEAKAGE = "leakage"
CONSTANT = "constant_column"
EXPLODING = "exploding_column"
IDENTIFYING = "identifying_column"
DUPLICATES = "duplicate_ids"
LABEL_RATE = "label_rate"
DRIFT = "drift"
BASELINE = "worse_than_baseline"
NAMES = (LEAKAGE, CONSTANT, EXPLODING, IDENTIFYING, DUPLICATES, LABEL_RATE, DRIFT, BASELINE)
_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Findings are warnings, kept in the manifest and with the run; those named in `errors` fail the run by that name.

    An own check is a function, or "module:name" of one: `check(train, holdout)` on two `Dataset`s gives None, a
    sentence, or several. Its findings have the function's name.
    """

    errors: Sequence[str] = ()
    off: Sequence[str] = ()
    own: Sequence[str | Callable[[Any, Any], Any]] = ()
    leakage_auc: float = 0.99  # of one column alone, from which on it knows the label
    exploding: float = 1e4  # a column's largest size, in sizes of its 99th percentile
    identifying: float = 0.5  # distinct values of a category per row
    label_rate: float = 0.5  # how far the rate moved from training rows to holdout, of the rarer label's share
    drift_psi: float = 0.25  # between the same two; only what is no chance counts

    def __post_init__(self) -> None:
        for name in ("errors", "off", "own"):
            if not isinstance(getattr(self, name), list | tuple):
                raise DeclarationError(f"Checks.{name}", "a list", getattr(self, name), "Put it into brackets.")
        for check in self.own:
            if not callable(check) and not (isinstance(check, str) and _PLACE.fullmatch(check)):
                raise DeclarationError("Checks.own", "functions, or 'module:name' of them", check, "Name them.")
        known = (*NAMES, *map(name_of, self.own))
        for field in ("errors", "off"):
            for name in getattr(self, field):
                if name not in known:
                    raise DeclarationError(f"Checks.{field}", f"some of {', '.join(known)}", name, "Take one of these.")
        for name, low, high in (
            ("leakage_auc", 0.5, 1.0),
            ("exploding", 1.0, math.inf),
            ("identifying", 0.0, 1.0),
            ("label_rate", 0.0, math.inf),
            ("drift_psi", 0.0, math.inf),
        ):
            given = getattr(self, name)
            if not isinstance(given, int | float) or isinstance(given, bool) or not low < given <= high:
                raise DeclarationError(f"Checks.{name}", f"a number above {low:g}, up to {high:g}", given, "See docs.")

    def wants(self, name: str) -> bool:
        return name not in self.off

    def finding(self, name: str, text: str) -> Finding:
        return Finding(name=name, severity="error" if name in self.errors else "warning", text=text)


def name_of(check: str | Callable[[Any, Any], Any]) -> str:
    """As its findings are called."""
    return check.rpartition(":")[2] if isinstance(check, str) else getattr(check, "__name__", type(check).__name__)
