"""a topic's partitions → its records, newest first or oldest first, merged by the time at which they were written.

Within a partition the order is that of the offsets, whatever the timestamps say. Partitions are read piece by piece,
and only as far as the caller goes; a piece is of a few MB at most, whatever the records' sizes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.infra.seek import Seeker

_T = TypeVar("_T")
_PIECE_BYTES = 4 * 1024 * 1024  # of one partition, by the mean size of its last piece
_MOST = 8_192  # records of one partition at once
_MOST_OFFSETS = 1 << 16  # where nothing is found: compacted away, or taken back
_FIRST = 64  # records of all partitions together, to begin with: their size is not known yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Item(Generic[_T]):
    partition: int
    offset: int
    written_ms: int  # -1 where the record has no timestamp
    held: _T


class Merged(Generic[_T]):
    """`spans`: first and end offset of each partition. `hold` makes of a message what is kept of it while it waits."""

    def __init__(
        self,
        seeker: Seeker,
        spans: Mapping[int, tuple[int, int]],
        hold: Callable[[Any], _T],
        *,
        ascending: bool = False,
        first: int = _FIRST,
        most: int = _MOST,
    ) -> None:
        self._seeker, self._hold, self._ascending, self._most = seeker, hold, ascending, most
        self._unread = dict(spans)
        self._waiting: dict[int, deque[Item[_T]]] = {number: deque() for number in spans}
        self._steps = dict.fromkeys(spans, max(1, min(first, most) // max(1, len(spans))))
        self.read = 0  # records so far, those that wait too
        self.read_bytes = 0

    def __iter__(self) -> Iterator[Item[_T]]:
        while True:
            self._fill()
            heads = [items[0] for items in self._waiting.values() if items]
            if not heads:
                return
            choose = min if self._ascending else max
            head = choose(heads, key=lambda item: (item.written_ms, item.partition))
            yield self._waiting[head.partition].popleft()

    def positions(self) -> dict[int, int]:
        """How far the caller came: newest first, all records from there on were given; oldest first, all before."""
        return {number: self._position(number) for number in self._waiting}

    def close_partition(self, partition: int) -> None:
        """No more of this one."""
        self._waiting[partition].clear()
        self._unread[partition] = (0, 0)

    def _position(self, number: int) -> int:
        if items := self._waiting[number]:
            return items[0].offset if self._ascending else items[0].offset + 1
        return self._unread[number][0 if self._ascending else 1]

    def _fill(self) -> None:
        """Until every partition has one waiting, or no more to read."""
        while starving := [
            number for number, (first, end) in self._unread.items() if first < end and not self._waiting[number]
        ]:
            pieces = {number: self._piece(number) for number in starving}
            found: dict[int, deque[Item[_T]]] = {number: deque() for number in starving}
            sizes = dict.fromkeys(starving, 0)
            for messages in self._seeker.within(pieces):
                for message in messages:
                    self._keep(found[message.partition()], message)
                    sizes[message.partition()] += len(message) + len(message.key() or b"")
            for number, items in found.items():
                self._take(number, items, sizes[number])

    def _piece(self, number: int) -> tuple[int, int]:
        """The next offsets to read, which are then read."""
        first, end = self._unread[number]
        if self._ascending:
            middle = min(end, first + self._steps[number])
            self._unread[number] = middle, end
            return first, middle
        middle = max(first, end - self._steps[number])
        self._unread[number] = first, middle
        return middle, end

    def _keep(self, items: deque[Item[_T]], message: Any) -> None:
        """A piece that was made for a gap may have too many: what is dropped is unread again."""
        number = message.partition()
        first, end = self._unread[number]
        if len(items) < self._most:
            items.append(self._item(message))
        elif self._ascending:
            self._unread[number] = min(first, items[-1].offset + 1), end
        else:
            items.append(self._item(message))
            self._unread[number] = first, items.popleft().offset + 1

    def _take(self, number: int, items: deque[Item[_T]], size: int) -> None:
        self.read_bytes += size
        self._waiting[number].extend(items if self._ascending else reversed(items))
        if not items:
            self._steps[number] = min(_MOST_OFFSETS, 4 * self._steps[number])
            return
        fits = max(1, _PIECE_BYTES * len(items) // max(1, size))
        self._steps[number] = min(self._most, fits, 2 * self._steps[number])

    def _item(self, message: Any) -> Item[_T]:
        self.read += 1
        return Item(
            partition=message.partition(),
            offset=message.offset(),
            written_ms=message.timestamp()[1],
            held=self._hold(message),
        )
