"""ids and times of served rows and labels → which rows are used, with which label.

A label matches the rows with its id and row time ≤ label time ≤ row time + within; of several, the earliest wins, and
of two at one time the smaller value, so that the result is a function of what was said and not of who read it when.

An event that was asked for on demand and served by the stream, too, counts once: by event time as it was first, at one
time as the stream served it. So nothing depends on a row that is newer.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.models.draw import sources_of
from headrace.models.errors import RunFailed

Int64s = NDArray[np.int64]
_BLOCK = 65_536  # labels


@dataclass(frozen=True, kw_only=True)
class Counts:
    rows: int = 0  # served in the window, each source offset once
    joined: int = 0  # used, with a label that came
    filled: int = 0  # used, with the value that silence means
    open: int = 0  # no label yet, and it may still come
    held_back: int = 0  # labelled, but silence means a value and the horizon is still open: never a mix
    never_came: int = 0  # no label, and its horizon is over; the filled ones are among them
    duplicates: int = 0  # served again with the same source offset, at any time
    asked_again: int = 0  # left out: asked for on demand and served by the stream, too, or asked for again
    same_id: int = 0  # used, though another event with this id is used, too
    labels_late: int = 0  # after the horizon of every row of its id
    labels_early: int = 0  # before every row of its id that it could belong to
    labels_repeated: int = 0  # matched, but an earlier one had won
    labels_unknown: int = 0  # no row of its id was served
    labels_unseen: int = 0  # newer than `as_of`

    def __add__(self, other: "Counts") -> "Counts":
        """Of two parts that share no id."""
        return Counts(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Matched:
    rows: Int64s  # indices of used rows, ordered by (event time, partition, offset)
    labels: NDArray[np.float64]  # one per used row
    delays: Int64s  # the same: from the row's time to its label's, ms; -1 where silence is the label
    counts: Counts

    def take(self, used: NDArray[np.bool_]) -> "Matched":
        """Only these of the used rows; what was counted stays."""
        return Matched(self.rows[used], self.labels[used], self.delays[used], self.counts)


def match(
    *,
    ids: pa.Array,
    times: Int64s,
    partitions: Int64s,
    offsets: Int64s,
    label_ids: pa.Array,
    label_times: Int64s,
    label_values: NDArray[np.float64],
    within_ms: int,
    if_absent: float | None,
    as_of_ms: int,
    window_ms: int,
) -> Matched:
    # ids as small integers, by first appearance: those of labels whose id was never served are beyond all others
    codes, label_codes = _codes(ids, label_ids)
    distinct = int(codes.max(initial=-1)) + 1

    # each source offset once, first seen; labels that were there by then
    sources = sources_of(partitions, offsets)
    if (np.diff(sources) > 0).all():  # as they were read, and none came twice: nothing to sort
        unique = np.arange(len(sources))
    else:
        unique = np.sort(np.unique(sources, return_index=True)[1])
    once = unique[~asked_again(codes[unique], times[unique], sources[unique])]
    duplicates, again, unique = len(times) - len(unique), len(unique) - len(once), once
    seen = label_times <= as_of_ms
    known = seen & (label_codes < distinct)
    keys = _Keys(times, label_times[known], distinct)
    label_keys = keys.of(label_codes[known], label_times[known])
    order = np.argsort(label_keys)
    if not np.diff(label_keys[order]).all():  # two labels at one time: the smaller value first
        order = np.lexsort((label_values[known], label_keys))
    label_keys, values = label_keys[order], label_values[known][order]

    # the first label at or after each row, if it is of the row's id and within the horizon
    rows = unique[(times[unique] <= as_of_ms) & (times[unique] >= as_of_ms - window_ms)]
    row_keys = keys.of(codes[rows], times[rows])
    first = np.searchsorted(label_keys, row_keys)
    labelled = first < len(label_keys)
    labelled[labelled] = label_keys[first[labelled]] <= keys.of(codes[rows], times[rows] + within_ms)[labelled]
    closed = times[rows] + within_ms <= as_of_ms
    used = labelled if if_absent is None else closed
    labels = np.full(len(rows), np.nan if if_absent is None else if_absent)
    labels[labelled] = values[first[labelled]]
    delays = np.full(len(rows), -1)
    delays[labelled] = label_keys[first[labelled]] - row_keys[labelled]  # of one id: a difference of times

    picked = rows[used]
    sequence = np.lexsort((offsets[picked], partitions[picked], times[picked]))
    all_keys = np.sort(keys.of(codes[unique], times[unique]))
    counts = Counts(
        rows=len(rows),
        joined=int((used & labelled).sum()),
        filled=int((used & ~labelled).sum()),
        open=int((~labelled & ~closed).sum()),
        held_back=int((labelled & ~used).sum()),
        never_came=int((~labelled & closed).sum()),
        duplicates=duplicates,
        asked_again=again,
        same_id=len(picked) - int(np.count_nonzero(np.bincount(codes[picked]))),
        labels_unknown=int((seen & (label_codes >= distinct)).sum()),
        labels_unseen=int((~seen).sum()),
        **_of_labels(keys, label_keys, all_keys, within_ms),
    )
    return Matched(picked[sequence], labels[used][sequence], delays[used][sequence], counts)


def asked_again(ids: Int64s, times: Int64s, sources: Int64s) -> NDArray[np.bool_]:
    """[n]: the rows that do not count, of ids that were asked for on demand (their sources are below 0).

    Each source is there once; `ids` are small integers that stand for them.
    """
    asked = sources < 0
    again = np.zeros(len(sources), np.bool_)
    if not asked.any():
        return again
    firsts = np.full((2, int(ids.max()) + 1), np.iinfo(np.int64).max)
    for first, side in zip(firsts, (asked, ~asked), strict=True):
        np.minimum.at(first, ids[side], times[side])
    streams = (firsts[1] <= firsts[0])[ids]
    again[:] = np.where(asked, streams, ~streams)
    left = np.flatnonzero(asked & ~again)
    order = left[np.lexsort((sources[left], times[left]))]
    again[order] = True
    again[order[np.unique(ids[order], return_index=True)[1]]] = False
    return again


def _codes(ids: pa.Array, label_ids: pa.Array) -> tuple[Int64s, Int64s]:
    """Through one hash table: two of them, one for each side, take nearly twice as long."""
    encoded = pa.chunked_array([ids, label_ids], pa.string()).dictionary_encode()  # empty chunks are dropped
    codes = np.concatenate([np.empty(0, np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)])
    return codes[: len(ids)], codes[len(ids) :]


class _Keys:
    """(id, time) as one integer that sorts like the pair."""

    def __init__(self, times: Int64s, label_times: Int64s, ids: int) -> None:
        moments = [part for part in (times, label_times) if len(part)]
        self._origin = min((int(part.min()) for part in moments), default=0)
        self.span = max((int(part.max()) for part in moments), default=0) - self._origin + 2
        if ids * self.span >= 2**63:
            raise RunFailed("too_many_ids", f"{ids} ids over {self.span} ms in one join: shorten train_on's window")

    def of(self, codes: Int64s, times: Int64s) -> Int64s:
        """Times beyond all that are there count as just beyond them, so that they stay within their id."""
        moments: Any = np.clip(times - self._origin, 0, self.span - 1)
        return codes * self.span + np.asarray(moments, np.int64)


def _of_labels(keys: _Keys, label_keys: Int64s, row_keys: Int64s, within_ms: int) -> dict[str, int]:
    """What became of the seen labels of known ids: won or repeated, late, early. A block at a time stays in caches."""
    late = early = repeated = 0
    following = np.append(row_keys, np.iinfo(np.int64).max)
    for first in range(0, len(label_keys), _BLOCK):
        block = label_keys[first : first + _BLOCK]
        codes, moments = np.divmod(block, keys.span)
        at = np.searchsorted(row_keys, codes * keys.span + np.maximum(moments - within_ms, 0))
        matched = following[at] <= block  # the first row whose horizon has not passed
        before = (at > 0) & (row_keys[at - 1] // keys.span == codes)
        late += int((~matched & before).sum())
        early += int((~matched & ~before).sum())
        # a label loses only if every row that it matches had an earlier one: the newest such row decides
        newest = row_keys[np.searchsorted(row_keys, block[matched], "right") - 1]
        repeated += int((np.searchsorted(label_keys, newest) != first + np.flatnonzero(matched)).sum())
    return {"labels_late": late, "labels_early": early, "labels_repeated": repeated}
