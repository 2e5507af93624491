"""What was noticed of a dataset or a candidate, for whoever has to decide what to do about it."""

from typing import Literal

import msgspec

Severity = Literal["error", "warning", "note"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # a short fixed word: leakage, constant_column, … An error's is the reason of the failed run
    severity: Severity
    text: str  # a sentence with the numbers, and what to do
