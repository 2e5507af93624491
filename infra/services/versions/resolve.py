"""what a user calls a version → its number."""

from headrace.models.errors import BadInput
from headrace.models.registry import Versions

_DIGITS = 9  # of a version's number, at most
_SHOWN, _NEWEST = 20, 10  # versions in an error, and how many where there are more


def resolve(versions: Versions, text: str) -> int:
    """A version's number, or an alias. 0 is the baseline, which is always there. Raises BadInput."""
    aliases = versions.aliases
    if text in aliases:
        return aliases[text]
    if text.isdecimal() and len(text) <= _DIGITS and (int(text) == 0 or int(text) in versions.published):
        return int(text)
    numbers, names = ", ".join(_some([0, *sorted(versions.published)])), ", ".join(aliases)
    raise BadInput(f"version: expected one of {numbers}, or {names}; got {text[:50]!r}. See `headrace model list`.")


def _some(numbers: list[int]) -> list[str]:
    """All of a few, else the first and the newest ones."""
    shown = list(map(str, numbers))
    return shown if len(shown) <= _SHOWN else [shown[0], "…", *shown[-_NEWEST:]]
