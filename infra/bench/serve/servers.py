"""who answers requests → a process on a free port, asked for one row, and the score in what it answers."""

import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Final

import msgspec
import numpy as np

from headrace.infra.bench import workload
from headrace.infra.bench.processes import last_words, running
from headrace.infra.bench.trees import Tree
from headrace.infra.local.detached import HOST, free_port
from headrace.models.errors import HeadraceError, Stalled
from headrace.models.schema import NUMBERS

_START_SECONDS: Final = 90.0  # until the first answer
_LOOK_SECONDS: Final = 0.1
_CALL_SECONDS: Final = 10.0
_ROWS: Final = 256
_BODIES: Final = "bodies.txt"
_TOLERANCE: Final = 1e-5  # as for predictions on a topic


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row, as a server's own protocol has it."""

    path: str
    body: Callable[[Sequence[float]], Any]  # a JSON value
    score: Callable[[Any], float]  # of the JSON value that comes back


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What `running` starts."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Server:
    name: str
    question: Question
    settings: Mapping[str, Sequence[str]]  # options by what they mean: the fastest takes part
    launched: Callable[[Sequence[str], int, Path], Launched]  # options, port, folder


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that has answered right."""

    url: str
    bodies: Path  # of requests, one a line
    tree: Tree


class Questions:
    """Rows as events have them, and their scores by onnxruntime: what every server is asked."""

    def __init__(self, graph: bytes) -> None:
        self._rows = workload.rows(_ROWS)
        self._scores = workload.Numbers(graph).scores(np.arange(_ROWS)).tolist()

    def of(self, question: Question) -> dict[bytes, float]:
        """Scores by body."""
        return {
            msgspec.json.encode(question.body(row)): score for row, score in zip(self._rows, self._scores, strict=True)
        }


def _scores_of_oip(answer: Any) -> float:
    return float(answer["outputs"][0]["data"][0])


def inference_protocol(model: str) -> Question:
    """Open Inference Protocol v2, all numbers in one tensor: https://github.com/kserve/open-inference-protocol."""
    return Question(
        path=f"/v2/models/{model}/infer",
        body=lambda row: {
            "inputs": [{"name": NUMBERS, "shape": [1, len(row)], "datatype": "FP32", "data": [*row]}],
        },
        score=_scores_of_oip,
    )


@contextmanager
def answering(server: Server, options: Sequence[str], folder: Path, questions: Questions) -> Iterator[Running]:
    """Started, and right about all rows. `folder` is made, for its files.

    Raises Stalled, ServerMissing, HeadraceError where it ends, or a score is another.
    """
    folder.mkdir(parents=True)
    rows, bodies = questions.of(server.question), folder / _BODIES
    bodies.write_bytes(b"\n".join(rows) + b"\n")
    port = free_port()
    launched = server.launched(options, port, folder)
    with running(launched) as (process,):
        deadline = monotonic() + _START_SECONDS
        first = next(iter(rows))
        while _asked(server, port, first) is None:
            if process.poll() is not None:
                raise HeadraceError(f"it ended with status {process.returncode}: {last_words(launched)}")
            if monotonic() > deadline:
                raise Stalled(f"no answer within {_START_SECONDS:.0f} s: {last_words(launched)}")
            Event().wait(_LOOK_SECONDS)
        for body, score in rows.items():
            got = _asked(server, port, body)
            if got is None or abs(got - score) > _TOLERANCE:
                raise HeadraceError(f"expected the score {score:.6f}, got {got}: {last_words(launched)}")
        yield Running(url=f"http://{HOST}:{port}{server.question.path}", bodies=bodies, tree=Tree([process.pid]))


def _asked(server: Server, port: int, body: bytes) -> float | None:
    """None where it does not answer, or with another status than 200."""
    asking = http.client.HTTPConnection(HOST, port, timeout=_CALL_SECONDS)
    try:
        asking.request("POST", server.question.path, body, {"Content-Type": "application/json"})
        answer = asking.getresponse()
        return (
            server.question.score(msgspec.json.decode(answer.read())) if answer.status == http.HTTPStatus.OK else None
        )
    except OSError:
        return None
    finally:
        asking.close()
