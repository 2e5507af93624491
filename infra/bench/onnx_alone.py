"""a model and ready batches → how many rows a second onnxruntime answers where it does nothing else.

A process of its own, with one thread as a worker has by default.
"""

import argparse
import json
import sys
from pathlib import Path
from time import monotonic, process_time

import numpy as np
import onnxruntime as ort


def figures(session: ort.InferenceSession, rows: int, seconds: float) -> dict[str, float]:
    (given,) = session.get_inputs()
    random = np.random.default_rng(rows)
    batches = [{given.name: random.random((rows, *given.shape[1:]), np.float32)} for _ in range(4)]
    session.run(None, batches[0])  # allocates
    begun, cpu, done = monotonic(), process_time(), 0
    while (elapsed := monotonic() - begun) < seconds:
        session.run(None, batches[done % len(batches)])
        done += 1
    cpu = process_time() - cpu
    return {"rows_per_second": rows * done / elapsed, "cpu_seconds_per_million": cpu / (rows * done) * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", required=True, help="of a batch; one figure for each")
    parser.add_argument("--seconds", type=float, required=True, help="for each")
    given = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(given.model.read_bytes(), options, providers=["CPUExecutionProvider"])
    found = {rows: figures(session, rows, given.seconds) for rows in given.rows}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
