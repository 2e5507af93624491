"""the end of `<pipeline>.dead-letters`, backwards → the newest letters that match, some at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec

from headrace.infra.names import Names
from headrace.infra.row_format import readable
from headrace.infra.seek import Seeker, is_place
from headrace.infra.services.dead_letters.letters import Letter, Mark, letter_of, mark_of, marked
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import ends_of
from headrace.models.errors import BadInput
from headrace.models.features import Format
from headrace.streams.dead_letters import is_mark

_FIRST_STEP, _LONGEST_STEP = 64, 2_048  # records that are looked at in one go: more as long as few of them match
_LOOK_AT = 100_000  # records for one page, a few seconds' worth; the next page goes on behind them


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of a partition are in their order, those of several as they were parked."""

    letters: tuple[Letter, ...]  # newest first
    looked_at: int  # records, marks of redriven letters among them
    before: str  # the cursor of the next page; "" where the topic's beginning was reached


def letters_page(
    settings: Settings,
    names: Names,
    *,
    reason: str = "",
    search: str = "",
    limit: int,
    before: str = "",
    look_at: int = _LOOK_AT,
) -> Page:
    """The newest `limit` letters with this reason whose key, value, source or particulars have this text in them, of
    those `before` a former page's cursor. It may have fewer, or none, and a cursor: it looked at `look_at` records.

    Holds the letters of the page in memory, and no other values. A later page costs more: which of its letters were
    redriven is said behind them, so the keys and headers of what is newer are read again. Raises BadInput for a cursor
    that is none, and BrokerUnavailable.
    """
    topic = names.topics.dead_letters
    ends = {number: end for (_, number), end in ends_of(settings, [topic]).items()}
    cursor = _cursor(before, ends)
    formats: dict[str, Format] = {names.of(one.name): one.format for one in names.pipeline.inputs}
    with closing(Seeker(settings, topic)) as seeker:
        parts = [
            _Backwards(seeker, number, (cursor[number], end), lambda one: _matches(one, reason, search, formats))
            for number, end in sorted(ends.items())
        ]
        found = tuple(_newest(parts, limit, look_at))
    going_on = any(one.before > one.first for one in parts)
    return Page(
        letters=found,
        looked_at=sum(one.looked_at for one in parts),
        before=",".join(f"{one.partition}:{one.before}" for one in parts) if going_on else "",
    )


class _Backwards:
    """A partition's matching letters, newest first."""

    def __init__(
        self, seeker: Seeker, partition: int, span: tuple[int, int], matches: Callable[[Letter], bool]
    ) -> None:
        """`span`: letters before its first offset are looked at, and the marks up to its second."""
        self.partition, self.looked_at = partition, 0
        self.first, _ = seeker.bounds(partition)
        self._seeker, self._matches = seeker, matches
        self._step = _FIRST_STEP
        self._begin = max(span[0], self.first)  # all from here on was looked at
        self._found: list[Letter] = []  # of it, what was not handed out; oldest first
        self._marks: dict[str, Mark] = {}
        for messages in seeker.between(partition, self._begin, span[1]):
            self._keep_marks(messages)

    @property
    def before(self) -> int:
        """Where whoever goes on goes on."""
        return int(self._found[-1].place.rpartition("/")[2]) + 1 if self._found else self._begin

    @property
    def newest(self) -> Letter | None:
        return self._found[-1] if self._found else None

    @property
    def has_more(self) -> bool:
        return self._begin > self.first

    def take(self) -> Letter:
        """The newest one; its mark lay behind it, so it was seen."""
        letter = self._found.pop()
        return marked(letter, self._marks.get(letter.place))

    def look(self) -> None:
        """At some more, further back."""
        begin = max(self.first, self._begin - self._step)
        for messages in self._seeker.between(self.partition, begin, self._begin):
            self._keep_marks(messages)
            letters = (letter_of(message) for message in messages if not is_mark(message))
            self._found += [one for one in letters if self._matches(one)]
            self.looked_at += len(messages)
        self._begin = begin
        self._step = _FIRST_STEP if self._found else min(self._step * 2, _LONGEST_STEP)

    def _keep_marks(self, messages: Sequence[Any]) -> None:
        self._marks |= {mark.letter: mark for mark in map(mark_of, messages) if mark is not None}


def _newest(parts: Sequence[_Backwards], limit: int, look_at: int) -> Iterator[Letter]:
    """As long as every partition that has more letters shows its newest: only then it is known which one is next."""
    for _ in range(limit):
        for one in parts:
            while one.newest is None and one.has_more:
                if sum(part.looked_at for part in parts) >= look_at:
                    return
                one.look()
        heads = [(one.newest.at, one.partition, one) for one in parts if one.newest is not None]
        if not heads:
            return
        yield max(heads)[2].take()


def _matches(letter: Letter, reason: str, search: str, formats: Mapping[str, Format]) -> bool:
    if reason and letter.reason != reason:
        return False
    if not search or search in letter.source or search in letter.detail:
        return True
    wanted = search.encode("utf-8", "surrogatepass")
    if wanted in (letter.key or b"") or wanted in (letter.value or b""):
        return True
    written = formats.get(letter.source.rsplit("/", 2)[0], "json")
    return written != "json" and letter.value is not None and search in readable(letter.value, written)


def _cursor(text: str, ends: Mapping[int, int]) -> dict[int, int]:
    """Partition → the offset before which letters are wanted; none of a partition that has come since."""
    if not text:
        return dict(ends)
    found = dict.fromkeys(ends, 0)
    for part in text.split(","):
        number, _, offset = part.partition(":")
        if not is_place(number, offset) or int(number) not in ends:
            raise BadInput(f"before: expected the cursor of a former page, as 0:4711,1:4650; got {text[:100]!r}.")
        found[int(number)] = min(int(offset), ends[int(number)])
    return found
