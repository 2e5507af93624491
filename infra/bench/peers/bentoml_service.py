"""requests over HTTP → a BentoML service → scores. A peer of `bench --only 'serve_*'`: alone, in a venv of its own.

BentoML as its documentation shows it: a service with a batchable API on numpy arrays, `--workers` processes of it. What
is set comes in the environment, since each process imports this file again. As a program it becomes `bentoml serve`.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.validators import DType, Shape

_MODEL, _WORKERS, _BATCH, _WAIT_MS = "BENCH_MODEL", "BENCH_WORKERS", "BENCH_BATCH", "BENCH_WAIT_MS"
_BATCHING = {
    "batchable": True,
    "batch_dim": 0,
    "max_batch_size": int(os.environ.get(_BATCH, "1")),
    "max_latency_ms": int(os.environ.get(_WAIT_MS, "1000")),
}


@bentoml.service(
    workers=int(os.environ.get(_WORKERS, "1")),
    traffic={"timeout": 30},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Scores:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(os.environ[_MODEL], options, providers=["CPUExecutionProvider"])

    @bentoml.api(**(_BATCHING if _BATCHING["max_batch_size"] > 1 else {}))  # type: ignore[untyped-decorator]
    def predict(self, numbers: Annotated[np.ndarray, Shape((-1, 8)), DType("float32")]) -> np.ndarray:
        scores: np.ndarray = self._session.run(None, {"numbers": numbers})[0]
        return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", default="1")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--wait-ms", default="1000", help="the most that a request may wait")
    given = parser.parse_args()
    os.environ |= {
        _MODEL: given.model,
        _WORKERS: given.workers,
        _BATCH: given.batch,
        _WAIT_MS: given.wait_ms,
        "BENTOML_HOME": str(Path.cwd()),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    here = Path(__file__)
    bind = ["--host", "127.0.0.1", "--port", given.port, "--working-dir", str(here.parent)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", f"{here.stem}:Scores", *bind])  # noqa: S606  a list of our own


if __name__ == "__main__":
    main()
