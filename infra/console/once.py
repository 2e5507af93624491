"""a form that is sent twice → done once: the second one hears what became of the first."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from secrets import token_urlsafe
from typing import Any

_MOST = 500  # forms that are remembered
_KEY = 64  # characters of a form's key that count


class Once:
    """For the event loop. A form has a key of its own (`key`), and so has whoever goes back to it, or presses twice."""

    def __init__(self) -> None:
        self._begun: OrderedDict[tuple[Hashable, str], asyncio.Task[Any]] = OrderedDict()

    @staticmethod
    def key() -> str:
        return token_urlsafe(12)

    async def __call__(self, what: Hashable, form: str, do: Callable[[], Awaitable[str]]) -> str:
        """What `do` gives, or gave for `what` of the form with this key; one without a key is done each time. One that
        failed is forgotten: it may be tried again. Raises what it raises."""
        key = (what, form[:_KEY] or self.key())
        task = self._begun.get(key)
        if task is None:
            task = asyncio.ensure_future(do())
            self._begun[key] = task
            while len(self._begun) > _MOST:
                self._begun.popitem(last=False)
        try:
            return str(await asyncio.shield(task))  # who goes away does not stop it for the other one
        except Exception:
            self._begun.pop(key, None)
            raise
