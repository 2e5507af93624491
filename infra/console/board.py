"""a look every two seconds → the newest status of every pipeline, and a word to the pages that show it."""

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from msgspec.structs import replace

from headrace.infra.names import Names
from headrace.infra.services.dead_letters.letter_counts import LetterCounts
from headrace.infra.services.watch.alerts import Alert
from headrace.infra.services.watch.live_catalog import LiveCatalog
from headrace.infra.services.watch.status import Sample, Status, Watcher
from headrace.infra.settings import Settings

_EVERY_SECONDS = 2.0
_SHARE = 0.2  # of the time that looking may take: with many pipelines it looks less often
_log = logging.getLogger("headrace.console")


class Board:
    """A thread of its own. What it gives out is the caller's."""

    def __init__(
        self, settings: Settings, pipelines: Sequence[Names], catalog: LiveCatalog, changed: Callable[..., None]
    ) -> None:
        self._names, self._changed = list(pipelines), changed
        self._watcher = Watcher(settings, pipelines, catalog)
        self._catalog, self._statuses = catalog, dict[str, Status]()
        self._failed: Alert | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-board", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(15)

    def of(self, pipeline: str) -> Status | None:
        """None before the first look."""
        found, failed = self._statuses.get(pipeline), self._failed
        return found if found is None or failed is None else replace(found, alerts=(failed, *found.alerts))

    def letters(self, pipeline: str) -> LetterCounts:
        """For any thread."""
        return self._watcher.letters.of(pipeline)

    def history(self, pipeline: str) -> list[Sample]:
        """The last quarter of an hour, oldest first."""
        return list(self._watcher.history[pipeline])

    def _run(self) -> None:
        self._catalog.ready.wait(10)
        turn = 0
        while not self._stopping.is_set():
            begun = monotonic()
            try:
                self._statuses = self._watcher.look()
                self._watcher.look_at_rows(self._names[turn % len(self._names)])  # one at a time: it reads rows
                turn += 1
            except Exception as error:  # noqa: BLE001  old numbers that say that they are old are better than none
                _log.exception("the console's look failed")
                self._failed = Alert(
                    level="bad",
                    text=f"The console's look failed: {type(error).__name__}.",
                    remedy="What is shown may be old. The log of headrace serve says why.",
                )
            else:
                self._failed = None
            boards = [f"board:{names.pipeline.name}" for names in self._names]
            self._changed("board", *boards, *(f"topic:{topic}" for topic in self._watcher.moved()))
            spent = monotonic() - begun
            self._stopping.wait(max(_EVERY_SECONDS, spent / _SHARE))
