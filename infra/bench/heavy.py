"""pictures through a convolutional net, in MessagePack → what is left of onnxruntime's own speed in a worker."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from urllib.request import urlopen

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from headrace.infra.bench import workload
from headrace.infra.bench.contender import MODEL, Run, Started
from headrace.infra.bench.graphs import Chain
from headrace.infra.bench.headrace_worker import prepared
from headrace.infra.bench.report import Row, rounded
from headrace.infra.bench.session import Session
from headrace.infra.local.detached import HOST, free_port
from headrace.models.errors import HeadraceError

ROW: Final = "heavy_model"
TARGET: Final = 0.9
_SHAPE: Final = (3, 64, 64)
# channels in, channels out, stride: 96 million additions and multiplications a picture
_LAYERS: Final = ((3, 32, 2), (32, 64, 1), (64, 64, 2), (64, 128, 1))
_PICTURES: Final = 200  # different ones, again and again: the scores of a run are checked against as many
_SEED: Final = 64
_ALONE_SECONDS: Final = 3.0  # for each size
_OTHER_BATCHES: Final = (1, 16)  # rows: a small batch stays in the cache
_CHUNKS: Final = re.compile(r'^headrace_stage_seconds_count\{[^}]*stage="infer"[^}]*\} (\S+)$', re.MULTILINE)


class Pictures:
    """What comes, and what must be answered: picture n % 200 has its own score each time."""

    def id(self, number: int) -> str:
        return f"p{number}"

    def scores(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._each[numbers % _PICTURES]

    def rows(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        for number in range(count):
            event = {
                "id": self.id(number),
                "time": 1_735_689_600_000 + number,
                "picture": self.pixels[number % _PICTURES].tobytes(),
            }
            yield self.id(number).encode(), msgspec.msgpack.encode(event)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """Noise, each with a brightness and a contrast of its own, so that scores differ."""
        random = np.random.default_rng(_SEED)
        brightness, contrast = random.normal(0, 1, (2, _PICTURES, 3, 1, 1))
        return np.asarray(random.normal(0, 1, (_PICTURES, *_SHAPE)) * contrast + brightness, np.float32)

    @cached_property
    def graph(self) -> bytes:
        chain = Chain("picture", _SHAPE, _SEED)
        for layer in _LAYERS:
            chain.convolution(*layer)
            chain.relu()
        chain.pooled()
        chain.dense(_LAYERS[-1][1], 1)
        return chain.finished()

    @cached_property
    def _each(self) -> NDArray[np.float64]:
        session = ort.InferenceSession(self.graph, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"picture": self.pixels})[0], np.float64)


@dataclass(kw_only=True)
class Heavy:
    """`headrace worker`, with a topic of pictures for each run."""

    pictures: Pictures
    name: str = "heavy"
    exactly_once: bool = False
    batch: int = 0  # rows of an average chunk of the last run, by the worker's own metrics

    def prepare(self, run: Run) -> Started:
        settings = run.settings.model_copy(update={"prefix": f"{run.settings.prefix}{run.name}."})
        port = free_port()
        options = ("--metrics-port", str(port))
        names, started = prepared(run, settings, "heavy.py", self.pictures.graph, self.pictures, options=options)
        workload.preload(settings, names.events, self.pictures.rows(run.events), run.partitions)
        return replace(started, ask=lambda: self._keep_batch(port, run.events))

    def _keep_batch(self, port: int, events: int) -> None:
        with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
            chunks = _CHUNKS.search(answer.read().decode())
        if chunks is None:
            raise HeadraceError(f"{ROW}: expected headrace_stage_seconds of the stage infer among the worker's metrics")
        self.batch = round(events / float(chunks[1]))


def heavy(session: Session, *, events: int, rounds: int) -> list[Row]:
    """A worker's rate over that of onnxruntime on batches of the same size, one after the other in each round."""
    contender, runs, detail = Heavy(pictures=Pictures()), list[float](), list[dict[str, Any]]()
    for number in range(rounds):
        session.say(f"round {number + 1} of {rounds}: {ROW}")
        found = session.measure(contender, events)
        if not found.verdict.ok:
            raise HeadraceError(f"{ROW}: {'; '.join(found.verdict.faults)}")
        alone = _alone(session, contender.pictures.graph, contender.batch)
        runs.append(found.run.rate / alone[contender.batch]["rows_per_second"])
        detail.append(
            {
                "events_per_second": rounded(found.run.rate),
                "rows_of_a_batch": contender.batch,
                "cpu_seconds_per_million": rounded(found.run.worker_cpu),
                "onnxruntime_alone_by_rows_of_a_batch": alone,
                "others_cores": rounded(found.run.others_cores),
                "peak_rss_mb": rounded(found.run.peak_rss / 1e6),
            }
        )
    return [Row(name=ROW, target=TARGET, runs=runs, detail={"events": events, "rounds": detail})]


def _alone(session: Session, graph: bytes, batch: int) -> dict[int, dict[str, float]]:
    """Figures by rows of a batch."""
    model = session.settings.home / MODEL
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(graph)
    sizes = [str(rows) for rows in dict.fromkeys((batch, *_OTHER_BATCHES))]
    command = [sys.executable, "-m", "headrace.infra.bench.onnx_alone", "--model", str(model), "--rows", *sizes]
    done = subprocess.run([*command, "--seconds", str(_ALONE_SECONDS)], stdout=subprocess.PIPE, check=True)
    found = msgspec.json.decode(done.stdout, type=dict[int, dict[str, float]])
    return {rows: {name: rounded(value) for name, value in figures.items()} for rows, figures in found.items()}
