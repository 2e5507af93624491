"""dataset → training rows and holdout: the newest rows are for the gate, and newer than all training rows (law 6)."""

import numpy as np

from headrace.models.durations import iso
from headrace.models.errors import RunFailed
from headrace.models.protocols import Dataset
from headrace.models.windows import Window


def split(dataset: Dataset, train_on: Window, at_ms: int) -> tuple[Dataset, Dataset]:
    """Raises RunFailed: too_few_rows, one_class. A holdout of one class is the gate's to judge."""
    boundary = at_ms - train_on.holdout_ms
    first = int(np.searchsorted(dataset.times, boundary))  # rows are ordered by time
    train, holdout = dataset.take(slice(0, first)), dataset.take(slice(first, None))
    least = max(1, train_on.min_rows // 10)
    if len(train) < train_on.min_rows or len(holdout) < least:
        raise RunFailed(
            "too_few_rows",
            f"{len(train)} labelled rows before {iso(boundary)} and {len(holdout)} from then on; "
            f"expected {train_on.min_rows} and {least}: wait, lengthen train_on's window or lower min_rows",
        )
    if dataset.task != "regression" and train.labels.min() == train.labels.max():
        raise RunFailed("one_class", f"all {len(train)} training rows have the label {train.labels[0]:g}")
    return train, holdout
