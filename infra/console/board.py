"""a look every two seconds → the newest status of every pipeline, and a word to the pages that show it."""

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from headrace.infra.names import Names
from headrace.infra.services.live_catalog import LiveCatalog
from headrace.infra.services.status import Sample, Status, Watcher
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
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-board", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(15)

    def of(self, pipeline: str) -> Status | None:
        """None before the first look."""
        return self._statuses.get(pipeline)

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
            except Exception:  # noqa: BLE001  a console that shows old numbers is better than none, and its log says why
                _log.exception("the console's look failed")
            boards = [f"board:{names.pipeline.name}" for names in self._names]
            self._changed("board", *boards, *(f"topic:{topic}" for topic in self._watcher.moved()))
            spent = monotonic() - begun
            self._stopping.wait(max(_EVERY_SECONDS, spent / _SHARE))
