"""records of the dead-letter topic → which letters may be redriven, and why the others may not. No I/O."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from headrace.infra.services.dead_letters.letters import Letter, Mark, letter_of, mark_of
from headrace.models.errors import BadInput

ALREADY = "it was redriven already"
TWIN = "another letter of the same record was redriven"  # after a crash a record may have two
NO_VALUE = "a record without a value is never of use, and on a compacted topic it would delete what is there by now"
BY_SCHEDULE = "a row that was scored by schedule: the next tick looks at it again"

Place = tuple[int, int]
"""Partition, offset of a letter."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    source: str
    never: str  # why it cannot go, "" if it can
    record: bytes  # the same for letters of one record


class Book:
    """What the topic says, without the values: some hundred bytes per letter.

    `read` are the full names of the topics that the pipeline reads; `chooses` says which letters are wanted.
    """

    def __init__(self, topic: str, read: Collection[str], chooses: Callable[[Letter], bool]) -> None:
        self._topic, self._read, self._chooses = topic, read, chooses
        self._chosen: dict[Place, Chosen] = {}
        self._letters: dict[bytes, list[Place]] = {}  # of each record
        self._marks: dict[str, Mark] = {}  # by place of the letter

    def note(self, message: Any) -> None:
        """The next record; each partition's in order."""
        if (mark := mark_of(message)) is not None:
            self._marks[mark.letter] = mark
            return
        letter, place = letter_of(message), (message.partition(), message.offset())
        record = blake2b(repr((letter.source, letter.key, letter.value)).encode(), digest_size=16).digest()
        self._letters.setdefault(record, []).append(place)
        if self._chooses(letter):
            self._chosen[place] = Chosen(source=letter.source, never=self._never(letter), record=record)

    def check(self, asked: Collection[str]) -> None:
        """Each is a letter's source or its place. Raises BadInput for one that is not there, or cannot go."""
        found: dict[str, list[Place]] = {name: [] for name in asked}
        for place, one in self._chosen.items():
            for name in {one.source, self.full(place)} & found.keys():
                found[name].append(place)
        for name, places in found.items():
            if not places:
                raise BadInput(
                    f"expected topic/partition/offset as `headrace dead-letters list --all` shows; no {name!r}."
                    " Nothing was redriven."
                )
            refusals = [self._refusal(place) for place in places]
            if all(refusals):
                raise BadInput(f"{name}: cannot be redriven: {refusals[0]}. Nothing was redriven.")

    def going(self) -> tuple[dict[Place, list[Place]], Counter[str]]:
        """Of each record the first chosen letter → all letters that it has; and why the other chosen ones stay."""
        stay, records = Counter[str](), set[bytes]()
        going = {}
        for place in sorted(self._chosen):
            one = self._chosen[place]
            if self.full(place) in self._marks:
                stay[ALREADY] += 1
            elif one.never:
                stay[one.never] += 1
            elif one.record in records or self._mark_of_twin(one) is not None:
                stay[TWIN] += 1
            else:
                records.add(one.record)
                going[place] = self._letters[one.record]
        return going, stay

    def full(self, place: Place) -> str:
        return f"{self._topic}/{place[0]}/{place[1]}"

    def _never(self, letter: Letter) -> str:
        """Whatever may come; "" if it can go."""
        if letter.tick:
            return BY_SCHEDULE
        topic, *place = letter.source.rsplit("/", 2)
        if topic not in self._read or not all(number.isdecimal() for number in place):
            return f"it is from {topic!r}, and the pipeline reads {', '.join(sorted(self._read))}"
        return NO_VALUE if letter.value is None else ""

    def _refusal(self, place: Place) -> str:
        one = self._chosen[place]
        if (mark := self._marks.get(self.full(place))) is not None:
            return f"{ALREADY}, {mark.at} by {mark.by}, to {mark.to}"
        if (mark := self._mark_of_twin(one)) is not None:
            return f"{TWIN}, {mark.at} by {mark.by}, to {mark.to}"
        return one.never

    def _mark_of_twin(self, one: Chosen) -> Mark | None:
        found = (self._marks.get(self.full(place)) for place in self._letters[one.record])
        return next((mark for mark in found if mark is not None), None)
