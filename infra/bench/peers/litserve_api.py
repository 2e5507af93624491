"""requests over HTTP → a LitServe API → scores. A peer of `bench --only 'serve_*'`: alone, in a venv of its own.

LitServe as its documentation shows it: decode, batch, predict, unbatch, encode. `--workers` inference processes, and
`--servers` that speak HTTP in front of them.
"""

import argparse

import litserve
import numpy as np
import onnxruntime as ort


class Scores(litserve.LitAPI):  # type: ignore[misc]  # litserve is not in this environment
    def __init__(self, model: str, batch: int, wait_ms: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait_ms / 1_000)
        self._model = model

    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe gives it
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, list[float]]) -> list[float]:
        return request["numbers"]

    def batch(self, inputs: list[list[float]]) -> list[list[float]]:
        return inputs

    def predict(self, rows: list[float] | list[list[float]]) -> list[float]:
        """[8] or [n, 8] → [1] or [n]"""
        numbers = np.asarray(rows, np.float32).reshape(-1, 8)
        scores: list[float] = self._session.run(None, {"numbers": numbers})[0].tolist()
        return scores

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float | list[float]) -> dict[str, float]:
        return {"prediction": output[0] if isinstance(output, list) else output}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--servers", type=int, default=1, help="API processes")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--wait-ms", type=float, default=0)
    parser.add_argument("--zmq", action="store_true", help="its fast queue")
    given = parser.parse_args()
    server = litserve.LitServer(
        Scores(given.model, given.batch, given.wait_ms),
        accelerator="cpu",
        workers_per_device=given.workers,
        fast_queue=given.zmq,
    )
    server.run(
        host="127.0.0.1",
        port=given.port,
        num_api_servers=given.servers,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    main()
