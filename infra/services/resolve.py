"""what a user calls a version → its number."""

from headrace.models.errors import BadInput
from headrace.models.registry import Versions


def resolve(versions: Versions, text: str) -> int:
    """A version's number, or an alias. 0 is the baseline, which is always there. Raises BadInput."""
    aliases = versions.aliases
    if text in aliases:
        return aliases[text]
    if text.isdecimal() and int(text) in {0, *versions.published}:
        return int(text)
    numbers, names = ", ".join(map(str, [0, *sorted(versions.published)])), ", ".join(aliases)
    raise BadInput(f"version: expected one of {numbers}, or {names}; got {text!r}. See `headrace model list`.")
