"""switches of a pipeline, and its served rows → the event times at which they happened. Found once, kept: what was
served does not change."""

from collections.abc import Collection, Sequence
from threading import Lock
from time import monotonic

import msgspec

from headrace.infra.names import Names
from headrace.infra.seek import Seeker
from headrace.infra.served_log import event_time_from, newest_event_time
from headrace.infra.services.versions.timeline import Served
from headrace.infra.settings import Settings
from headrace.models.durations import iso

Place = tuple[int, int]
"""A partition of the events, and an offset."""
_MOST = 200_000  # places: 10,000 versions on 20 partitions
_NEWEST_SECONDS = 15.0  # for so long the newest event is the newest
_PARTITIONS = 16  # that are looked at for the newest event: it is only where a drawing ends


class EventTimes:
    """For any thread; one of them looks at a time."""

    def __init__(self, settings: Settings, names: Names) -> None:
        self._settings, self._names, self._looking = settings, names, Lock()
        self._found: dict[Place, int | None] = {}
        self._newest: tuple[float, int | None] = (0.0, None)
        self._seeker: Seeker | None = None

    def __call__(self, place: Place) -> int | None:
        """Unix ms, of the first event from there on. None where its row is gone, or was not looked for."""
        return self._found.get(place)

    def gone(self, place: Place) -> bool:
        """Whether its row was looked for, and was deleted."""
        return place in self._found and self._found[place] is None

    def find(self, places: Collection[Place], seconds: float = 600.0) -> bool:
        """Looks for those that are not known, for so long. Whether all are known now. Raises BrokerUnavailable."""
        missing, end = [place for place in places if place not in self._found], monotonic() + seconds
        if not missing:
            return True
        with self._looking:
            for partition, offset in missing:
                if monotonic() > end:
                    return False
                if len(self._found) >= _MOST:
                    self._found.clear()
                found = event_time_from(self._opened(), partition, offset)
                if found is not None:  # else its rows are under way
                    self._found[partition, offset] = None if found == "gone" else found
        return True

    def newest(self, partitions: Sequence[int]) -> int | None:
        """Unix ms, of the newest event that was served, some seconds old at most. Raises BrokerUnavailable."""
        with self._looking:
            at, newest = self._newest
            if not at or monotonic() > at + _NEWEST_SECONDS:
                seen = [newest_event_time(self._opened(), partition) for partition in partitions[:_PARTITIONS]]
                newest = max((one for one in seen if one is not None), default=None)
                self._newest = monotonic(), newest
            return newest

    def close(self) -> None:
        with self._looking:
            if self._seeker is not None:
                self._seeker.close()
                self._seeker = None

    def _opened(self) -> Seeker:
        self._seeker = self._seeker or Seeker(self._settings, self._names.topics.served)
        return self._seeker


def begins(lines: Sequence[Served]) -> list[Place]:
    return [(one.partition, one.first) for one in lines]


def ends(lines: Sequence[Served]) -> list[Place]:
    return [(one.partition, one.end) for one in lines if one.end is not None]


def timed(settings: Settings, names: Names, lines: Sequence[Served]) -> list[Served]:
    """With the event time of the first event of each. Raises BrokerUnavailable."""
    times = EventTimes(settings, names)
    try:
        times.find(begins(lines))
        known = [times((one.partition, one.first)) for one in lines]
    finally:
        times.close()
    return [
        msgspec.structs.replace(one, event_time="" if at is None else iso(at))
        for one, at in zip(lines, known, strict=True)
    ]
