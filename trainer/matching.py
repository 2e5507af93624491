"""ids and times of served rows and labels → which rows are used, with which label.

A label matches the rows with its id and row time ≤ label time ≤ row time + within; of several, the earliest wins, and
of two at one time the smaller value, so that the result is a function of what was said and not of who read it when.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.models.errors import RunFailed

Int64s = NDArray[np.int64]
_PARTITION_BITS = 47  # below them the offset: 1.4e14 records of one partition


@dataclass(frozen=True, kw_only=True)
class Counts:
    rows: int  # served in the window, each source offset once
    joined: int  # used, with a label that came
    filled: int  # used, with the value that silence means
    open: int  # no label yet, and it may still come
    held_back: int  # labelled, but silence means a value and the horizon is still open: never a mix
    never_came: int  # no label, and its horizon is over; the filled ones are among them
    duplicates: int  # served again with the same source offset, at any time
    labels_late: int  # after the horizon of every row of its id
    labels_early: int  # before every row of its id that it could belong to
    labels_repeated: int  # matched, but an earlier one had won
    labels_unknown: int  # no row of its id was served
    labels_unseen: int  # newer than `as_of`


@dataclass(frozen=True)
class Matched:
    rows: Int64s  # indices of used rows, ordered by (event time, partition, offset)
    labels: NDArray[np.float64]  # one per used row
    counts: Counts


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
    # ids as small integers; -1 is a label whose id was never served
    encoded = ids.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    label_codes = pc.index_in(label_ids, value_set=encoded.dictionary).fill_null(-1)
    label_codes = label_codes.to_numpy(zero_copy_only=False).astype(np.int64)

    # each source offset once, first seen; labels that were there by then
    unique = np.sort(np.unique((partitions << _PARTITION_BITS) | offsets, return_index=True)[1])
    seen = label_times <= as_of_ms
    known = seen & (label_codes >= 0)
    keys = _Keys(times, label_times[known], len(encoded.dictionary))
    label_keys = keys.of(label_codes[known], label_times[known])
    order = np.lexsort((label_values[known], label_keys))
    label_keys, values = label_keys[order], label_values[known][order]

    # the first label at or after each row, if it is of the row's id and within the horizon
    rows = unique[(times[unique] <= as_of_ms) & (times[unique] >= as_of_ms - window_ms)]
    first = np.searchsorted(label_keys, keys.of(codes[rows], times[rows]))
    labelled = first < len(label_keys)
    labelled[labelled] = label_keys[first[labelled]] <= keys.of(codes[rows], times[rows] + within_ms)[labelled]
    closed = times[rows] + within_ms <= as_of_ms
    used = labelled if if_absent is None else closed
    labels = np.full(len(rows), np.nan if if_absent is None else if_absent)
    labels[labelled] = values[first[labelled]]

    picked = rows[used]
    sequence = np.lexsort((offsets[picked], partitions[picked], times[picked]))
    row_keys = np.sort(keys.of(codes[unique], times[unique]))
    counts = Counts(
        rows=len(rows),
        joined=int((used & labelled).sum()),
        filled=int((used & ~labelled).sum()),
        open=int((~labelled & ~closed).sum()),
        held_back=int((labelled & ~used).sum()),
        never_came=int((~labelled & closed).sum()),
        duplicates=len(times) - len(unique),
        labels_unknown=int((seen & (label_codes < 0)).sum()),
        labels_unseen=int((~seen).sum()),
        **_of_labels(keys, label_keys, row_keys, within_ms),
    )
    return Matched(picked[sequence], labels[used][sequence], counts)


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
    """What became of the seen labels of known ids: won or repeated, late, early."""
    codes, moments = np.divmod(label_keys, keys.span)
    earliest = codes * keys.span + np.maximum(moments - within_ms, 0)
    at = np.searchsorted(row_keys, earliest)  # the first row whose horizon has not passed
    following = np.append(row_keys, np.iinfo(np.int64).max)[at]
    matched = following <= label_keys
    before = at > 0
    before[before] = row_keys[at[before] - 1] // keys.span == codes[before]
    # a label loses only if every row that it matches had an earlier one: the newest such row decides
    newest = row_keys[np.searchsorted(row_keys, label_keys[matched], "right") - 1]
    winner = np.searchsorted(label_keys, newest)
    return {
        "labels_late": int((~matched & before).sum()),
        "labels_early": int((~matched & ~before).sum()),
        "labels_repeated": int((winner != np.flatnonzero(matched)).sum()),
    }
