"""places of joined rows → what each is for: the holdout or training, the anchor, or nothing. By `models.windows`.

Rows are looked at first, in parts and in any order, and then asked about in their own order: what is larger than memory
is chosen from as what is not.
"""

import numpy as np
from numpy.typing import NDArray

from headrace.models.draw import ALWAYS, NEVER, Lowest
from headrace.models.windows import Anchor, Places, Window

OUT, KEPT, ANCHOR = 0, 1, 2


class Choice:
    def __init__(self, window: Window, anchor: Anchor | None, at_ms: int) -> None:
        self._window, self._anchor, self._at_ms = window, anchor, at_ms
        self._boundary = at_ms - window.holdout_ms
        self._train = Lowest(window.most)
        self._aside = Lowest(0 if anchor is None else anchor.rows)

    def look(self, rows: Places) -> None:
        self._train.look(self._to_train(rows))
        self._aside.look(self._to_set_aside(rows))

    def roles(self, rows: Places) -> NDArray[np.int8]:
        """[n]; a row that the anchor takes is not trained on, whatever the window says."""
        found = np.where(self._train.among(self._to_train(rows)), KEPT, OUT).astype(np.int8)
        found[self._aside.among(self._to_set_aside(rows))] = ANCHOR
        return found

    def _to_train(self, rows: Places) -> NDArray[np.int64]:
        return np.where(rows[0] >= self._boundary, ALWAYS, self._window.priorities(rows, self._at_ms))

    def _to_set_aside(self, rows: Places) -> NDArray[np.int64]:
        if self._anchor is None:
            return np.full(rows.shape[1], NEVER)
        return np.where(rows[0] >= self._boundary, NEVER, self._anchor.priorities(rows))
