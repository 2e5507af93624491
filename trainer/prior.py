"""a graph whose training saw more ones than the stream has → the same graph, with the stream's probabilities.

Odds are odds_seen / `odds`: p / (p + (1 - p) · odds), as the last nodes (Elkan 2001; Dal Pozzolo et al. 2015).
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headrace.models.schema import PREDICTION

_NAMED = "headrace.prior."  # of our own values, beside those of the graph


def as_in_the_stream(graph: bytes, odds: float) -> bytes:
    """Of probabilities [n] in float32. `odds`: how many times as large those of a one were in the training."""
    model = onnx.load_from_string(graph)
    nodes = model.graph.node
    for node in nodes:
        for place, name in enumerate(node.output):
            if name == PREDICTION:
                node.output[place] = _NAMED + "seen"
        for place, name in enumerate(node.input):
            if name == PREDICTION:
                node.input[place] = _NAMED + "seen"
    seen, one, ratio = (_NAMED + name for name in ("seen", "one", "odds"))
    nodes.extend(
        [
            helper.make_node("Sub", [one, seen], [_NAMED + "other"]),
            helper.make_node("Mul", [_NAMED + "other", ratio], [_NAMED + "weighed"]),
            helper.make_node("Add", [seen, _NAMED + "weighed"], [_NAMED + "both"]),
            helper.make_node("Div", [seen, _NAMED + "both"], [PREDICTION]),
        ]
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in ((one, 1.0), (ratio, odds))
    )
    return bytes(model.SerializeToString())
