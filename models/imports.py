"""Import strings ("module:name"), resolved only where what they name is used, and never from anything on a topic."""

from importlib import import_module
from typing import Any

from headrace.models.errors import DeclarationError


def load(place: Any) -> Any:
    """What "module:name" names; anything that is not text is returned as it is."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise DeclarationError(
            f"{place!r}", "module:name that can be imported", str(error), "Mend the place."
        ) from error
    return found
