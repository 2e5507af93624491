"""requests by the Open Inference Protocol → MLServer with a custom ONNX runtime → scores.

A peer of `bench --only 'serve_*'`: it stands alone, in a venv of its own. MLServer has no ONNX runtime of its own; this
is one as its documentation shows it, with its numpy codec, which is the cheapest way in and out. As a program it writes
the two files that `mlserver start` reads, and becomes it.
"""

import argparse
import json
import os
import socket
import sys
from pathlib import Path

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc]  # mlserver is not in this environment
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        numbers = NumpyCodec.decode_input(payload.inputs[0])
        scores = self._session.run(None, {"numbers": numbers})[0]
        return InferenceResponse(
            id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output("prediction", scores)]
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, default=0, help="inference processes; none is in the server's own")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--wait-ms", type=float, default=0)
    given = parser.parse_args()
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": given.port,
        "grpc_port": _free_port(),
        "metrics_endpoint": None,
        "parallel_workers": given.workers,
        "logging_settings": {"version": 1, "root": {"level": "ERROR"}},
    }
    model = {
        "name": "mlp",
        "implementation": f"{Path(__file__).stem}.OnnxModel",
        "parameters": {"uri": given.model},
        "max_batch_size": given.batch,
        "max_batch_time": given.wait_ms / 1_000,
    }
    Path("settings.json").write_text(json.dumps(settings), encoding="utf-8")
    Path("model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", "."])  # noqa: S606  a list of our own


def _free_port() -> int:
    """It has no setting for no gRPC."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
