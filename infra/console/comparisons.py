"""two versions → how differently they answer: made one after the other, and the last few kept."""

import asyncio
from collections import OrderedDict

from headrace.infra.names import Names
from headrace.infra.services.model_diff import Report, compare
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import ends_of

ROWS = 20_000  # the newest served ones, as `headrace model diff` takes
_AT_ONCE = 1  # it takes a processor for some seconds, of a process that answers others meanwhile
_KEPT = 8
_Key = tuple[str, int, int, tuple[int, ...]]


class Comparisons:
    """For the event loop. One that is being made is made once, whoever asks for it meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._made: OrderedDict[_Key, asyncio.Task[Report]] = OrderedDict()

    async def __call__(self, names: Names, first: int, second: int) -> Report:
        """Raises what `compare` raises."""
        newest = await asyncio.to_thread(self._ends, names)
        key = (names.pipeline.name, first, second, newest)
        task = self._made.get(key)
        if task is None:
            task = asyncio.ensure_future(self._make(names, first, second))
            self._made[key] = task
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        try:
            return await asyncio.shield(task)  # who goes away does not stop it for others
        except Exception:
            self._made.pop(key, None)
            raise

    async def _make(self, names: Names, first: int, second: int) -> Report:
        async with self._free:
            return await asyncio.to_thread(compare, self._settings, names, str(first), str(second), rows=ROWS)

    def _ends(self, names: Names) -> tuple[int, ...]:
        """What the numbers depend on: rows that were served, and labels that came."""
        return tuple(end for _, end in sorted(ends_of(self._settings, [names.topics.served, names.labels]).items()))
