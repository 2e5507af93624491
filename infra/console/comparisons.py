"""two versions → how differently they answer: made one after the other, and the last few kept."""

import asyncio
from collections import OrderedDict

from headrace.infra.names import Names
from headrace.infra.serve.in_threads import InThreads, in_a_thread
from headrace.infra.serve.refusals import Overloaded
from headrace.infra.services.compare.model_diff import Report, compare
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import ends_of

ROWS = 20_000  # the newest served ones, as `headrace model diff` takes
_AT_ONCE = 1  # it takes a processor for some seconds, of a process that answers others meanwhile
_KEPT = 8  # made, or waiting for their turn
_ASKING = 4  # questions to the broker at once, and none that waits: each is the beginning of a comparison
_Key = tuple[str, int, int, tuple[int, ...]]


class Comparisons:
    """For the event loop. One that is being made is made once, whoever asks for it meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._ask = settings, InThreads(_ASKING)
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._made: OrderedDict[_Key, asyncio.Task[Report]] = OrderedDict()

    async def __call__(self, names: Names, first: int, second: int) -> Report:
        """Raises what `compare` raises, and Overloaded."""
        newest = await self._ask(lambda: self._ends(names))
        key = (names.pipeline.name, first, second, newest)
        task = self._made.get(key)
        if task is None:
            if sum(not one.done() for one in self._made.values()) >= _KEPT:
                raise Overloaded(f"{_KEPT} comparisons are waiting or being made: ask again later", 30)
            task = asyncio.ensure_future(self._make(names, first, second))
            self._made[key] = task
            while len(self._made) > _KEPT:
                del self._made[next(one for one, made in self._made.items() if made.done())]
        self._made.move_to_end(key)
        try:
            return await asyncio.shield(task)  # who goes away does not stop it for others
        except Exception:
            self._made.pop(key, None)
            raise

    async def _make(self, names: Names, first: int, second: int) -> Report:
        async with self._free:
            return await in_a_thread(lambda: compare(self._settings, names, str(first), str(second), rows=ROWS))

    def _ends(self, names: Names) -> tuple[int, ...]:
        """What the numbers depend on: rows that were served, and labels that came."""
        return tuple(end for _, end in sorted(ends_of(self._settings, [names.topics.served, names.labels]).items()))
