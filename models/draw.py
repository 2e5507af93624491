"""rows' places → so many of them: a draw that comes out the same wherever, whenever and in whatever order it is made.

Reservoir sampling by priorities (Efraimidis and Spirakis 2006, all weights equal), as a bottom-k sketch (Cohen and
Kaplan 2007): each row's priority is a hash of its place, so that no random state is kept, parts may be looked at in any
order, and of two draws from overlapping rows most of the smaller one's are in the other.
"""

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
_PARTITION_BITS = 47  # below them the offset: 1.4e14 records of one partition
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 by the golden ratio: the stride of splitmix64
ALWAYS, NEVER = -1, int(np.iinfo(np.int64).max)
"""Priorities of rows that do not compete: they are in, or out."""


def sources_of(partitions: Int64s, offsets: Int64s) -> Int64s:
    """A row's place as one integer, which sorts like (partition, offset)."""
    return np.asarray((partitions << _PARTITION_BITS) | offsets)


def hashes(sources: Int64s, seed: int = 0) -> NDArray[np.uint64]:
    """Evenly over all 64 bits (splitmix64: Steele, Lea and Flood 2014)."""
    mixed = sources.astype(np.uint64) + np.uint64((seed + 1) * _GOLDEN % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def random_priorities(partitions: Int64s, offsets: Int64s, seed: int) -> Int64s:
    """At least 0 and below NEVER."""
    return np.asarray((hashes(sources_of(partitions, offsets), seed) >> np.uint64(1)).astype(np.int64)).clip(
        0, NEVER - 1
    )


class Lowest:
    """The `most` lowest priorities: first `look` at all of them, part by part, then ask which rows are `among` them.

    Of equal ones the first to be asked for are in: ask in the rows' order. Memory: 16 bytes for each of `most`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept, self._seen = np.empty(0, np.int64), 0
        self._limit, self._equal = -1, 0  # those below the limit are in, and so many that equal it
        self._asked = False

    def look(self, priorities: Int64s) -> None:
        """ALWAYS and NEVER do not compete."""
        competing = priorities[(priorities != ALWAYS) & (priorities != NEVER)]
        self._seen += len(competing)
        if self._most:
            self._kept = np.concatenate([self._kept, competing])
            if len(self._kept) > 2 * self._most:
                self._kept = np.partition(self._kept, self._most - 1)[: self._most].copy()

    def among(self, priorities: Int64s) -> NDArray[np.bool_]:
        if not self._asked:
            self._settle()
        equal = np.flatnonzero(priorities == self._limit)[: self._equal]
        self._equal -= len(equal)
        found = np.asarray(priorities < self._limit)  # ALWAYS is below all
        found[equal] = True
        found |= priorities == ALWAYS
        return found

    def _settle(self) -> None:
        self._asked = True
        if self._seen <= self._most:
            self._limit, self._equal = NEVER, 0
        elif self._most:
            self._limit = int(np.partition(self._kept, self._most - 1)[self._most - 1])
            self._equal = self._most - int((self._kept < self._limit).sum())
        self._kept = self._kept[:0]
