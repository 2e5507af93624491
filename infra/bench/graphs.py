"""layers by name → ONNX, without a training library."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headrace.models.schema import PREDICTION

_OPSET: Final = 18
_IR_VERSION: Final = 9  # what onnxruntime 1.20 reads, too


class Chain:
    """Nodes one after the other, by the contract of `models/session.py`: one float input, weights from a seed."""

    def __init__(self, name: str, shape: Sequence[int], seed: int) -> None:
        self._input = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        self._random = np.random.default_rng(seed)
        self._at, self._nodes, self._constants = name, list[Any](), list[Any]()

    def dense(self, width_in: int, width_out: int) -> None:
        self._then("Gemm", self._weights((width_in, width_out), width_in), self._bias(width_out))

    def convolution(self, channels_in: int, channels_out: int, stride: int) -> None:
        """3 by 3, as many rows and columns out as in, by the stride."""
        weights = self._weights((channels_out, channels_in, 3, 3), 9 * channels_in)
        self._then("Conv", weights, self._bias(channels_out), strides=[stride, stride], pads=[1, 1, 1, 1])

    def relu(self) -> None:
        self._then("Relu")

    def pooled(self) -> None:
        """The mean of each channel."""
        self._then("GlobalAveragePool")
        self._then("Flatten")

    def finished(self) -> bytes:
        """One value per row, from 0 to 1."""
        self._then("Reshape", self._constant(np.array([-1], np.int64)))
        self._nodes.append(helper.make_node("Sigmoid", [self._at], [PREDICTION]))
        output = helper.make_tensor_value_info(PREDICTION, TensorProto.FLOAT, ["n"])
        graph = helper.make_graph(self._nodes, "bench", [self._input], [output], self._constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(made, full_check=True)
        return bytes(made.SerializeToString())

    def _then(self, kind: str, *constants: str, **attributes: Any) -> None:
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self._at, *constants], [output], **attributes))
        self._at = output

    def _weights(self, shape: Sequence[int], fan_in: int) -> str:
        return self._constant(self._random.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32))

    def _bias(self, width: int) -> str:
        return self._constant(self._random.normal(0, 0.1, width).astype(np.float32))

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name
