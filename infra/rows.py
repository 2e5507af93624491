"""rows of files → dated rows to replay."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EventStream:
    """One topic's rows, sorted by (event time, id): row i is `times[i]`, `keys[i]`, `values[i]`."""

    topic: str
    times: NDArray[np.int64]  # event time, ms since the Unix epoch, ascending
    keys: list[bytes]
    values: list[bytes]  # a JSON object; its times are RFC 3339 in UTC

    def __len__(self) -> int:
        return len(self.values)
