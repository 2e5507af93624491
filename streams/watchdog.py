"""positions and ends → alive, or an end with a reason: alive means progress (law 10)."""

import threading
from collections.abc import Callable, Mapping
from time import monotonic

from headrace.models.errors import Stalled
from headrace.models.facts import Lag, Observer
from headrace.streams.chunk import TopicPartition

_LOOK_SECONDS = 5.0


class Watchdog:
    """Looks at the lag of a source every few seconds; calls `give_up` when it grows while nothing moves."""

    def __init__(
        self,
        lag: Callable[[], Mapping[TopicPartition, int]],
        moved_at: Callable[[], float],
        give_up: Callable[[Stalled], None],
        observer: Observer,
        limit_seconds: float = 120.0,
    ) -> None:
        self._lag, self._moved_at, self._give_up, self._observer = lag, moved_at, give_up, observer
        self._limit_seconds = limit_seconds
        self._clear_at = monotonic()  # when nothing waited the last time
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            self.look(monotonic())

    def look(self, now: float) -> None:
        """One look at `now` (monotonic seconds)."""
        try:
            lag = self._lag()
        except Exception:  # noqa: BLE001  the broker does not answer: that is its stall, not this worker's
            lag = {}
        for (topic, partition), records in lag.items():
            self._observer(Lag(topic=topic, partition=partition, records=records))
        behind = sum(lag.values())
        if not behind:
            self._clear_at = now
        still = now - max(self._moved_at(), self._clear_at)
        if still > self._limit_seconds:
            self._give_up(Stalled(f"{behind} records wait and no position moved for {still:.0f} s"))
