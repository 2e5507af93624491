"""records of a dead-letter topic, one after the other → how many letters there are, by reason. A fold without I/O.

It keeps twelve bytes of each letter: a mark behind it says that it was redriven, and retention takes it some day.
"""

from array import array
from bisect import bisect_left
from collections import defaultdict
from typing import Any

import msgspec

from headrace.infra.services.dead_letters.letters import letter_of, mark_of


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of one topic for one reason."""

    reason: str
    topic: str  # where the records came from
    count: int
    open: int  # those that were not redriven
    newest_at: str
    newest: str  # source of the newest


class _Group(msgspec.Struct, kw_only=True):
    count: int = 0
    open: int = 0
    newest_at: str = ""
    newest: str = ""


class _Partition:
    """Its letters, in their order."""

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.groups = array("i")  # which one; of a letter that was redriven its complement, which is below zero

    def at(self, offset: int) -> int | None:
        """Which letter has this offset, if any has."""
        place = bisect_left(self.offsets, offset)
        return place if place < len(self.offsets) and self.offsets[place] == offset else None


class Tally:
    """For one thread."""

    def __init__(self, topic: str) -> None:
        """`topic` with its prefix, as marks name it."""
        self._topic = topic
        self._groups: list[_Group] = []
        self._numbers: dict[tuple[str, str], int] = {}  # of groups, by reason and topic
        self._partitions: defaultdict[int, _Partition] = defaultdict(_Partition)
        self.parked = 0  # letters that were ever noted

    @property
    def count(self) -> int:
        return sum(group.count for group in self._groups)

    @property
    def open(self) -> int:
        """Letters that were not redriven."""
        return sum(group.open for group in self._groups)

    def note(self, message: Any) -> None:
        """The next record of its partition."""
        if (mark := mark_of(message)) is not None:
            self._redriven(mark.letter)
            return
        letter = letter_of(message)
        key = letter.reason, letter.source.rsplit("/", 2)[0]
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._groups)
            self._groups.append(_Group())
        group = self._groups[number]
        group.count += 1
        group.open += 1
        if letter.at >= group.newest_at:
            group.newest_at, group.newest = letter.at, letter.source
        there = self._partitions[message.partition()]
        there.offsets.append(message.offset())
        there.groups.append(number)
        self.parked += 1

    def forget(self, partition: int, first: int) -> None:
        """What lies before `first`, retention has taken."""
        there = self._partitions[partition]
        gone = bisect_left(there.offsets, first)
        for number in there.groups[:gone]:
            group = self._groups[number if number >= 0 else ~number]
            group.count -= 1
            group.open -= number >= 0
        del there.offsets[:gone], there.groups[:gone]

    def reasons(self) -> list[Reason]:
        """Most frequent first."""
        found = [
            Reason(
                reason=reason,
                topic=topic,
                count=group.count,
                open=group.open,
                newest_at=group.newest_at,
                newest=group.newest,
            )
            for (reason, topic), number in self._numbers.items()
            if (group := self._groups[number]).count
        ]
        return sorted(found, key=lambda one: (-one.count, one.reason, one.topic))

    def _redriven(self, place: str) -> None:
        """Of a letter that retention has taken there is nothing to say, and one may have two marks."""
        topic, *numbers = place.rsplit("/", 2)
        if topic != self._topic or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            return  # nobody of ours wrote it
        partition, offset = map(int, numbers)
        there = self._partitions[partition] if partition in self._partitions else _Partition()
        at = there.at(offset)
        if at is not None and there.groups[at] >= 0:
            number = there.groups[at]
            self._groups[number].open -= 1
            there.groups[at] = ~number
