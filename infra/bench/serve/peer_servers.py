"""MLServer, BentoML and LitServe: how each is asked, and its settings that are worth a try."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from headrace.infra.bench.peers import SERVERS, Peer
from headrace.infra.bench.serve.servers import Launched, Question, Server, inference_protocol
from headrace.models.errors import ServerMissing
from headrace.models.schema import NUMBERS, PREDICTION

_TALKS: Final[Mapping[str, Question]] = {
    "mlserver": inference_protocol("mlp"),
    "bentoml": Question(path="/predict", body=lambda row: {NUMBERS: [[*row]]}, score=lambda answer: float(answer[0])),
    "litserve": Question(
        path="/predict", body=lambda row: {NUMBERS: [*row]}, score=lambda answer: float(answer[PREDICTION])
    ),
}
_SETTINGS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "mlserver": {
        "in the server's own process": ("--workers", "0"),
        "in its own process, batches of 64 within 1 ms": ("--workers", "0", "--batch", "64", "--wait-ms", "1"),
        "1 inference worker": ("--workers", "1"),
        "1 inference worker, batches of 64 within 1 ms": ("--workers", "1", "--batch", "64", "--wait-ms", "1"),
    },
    "bentoml": {
        "1 worker": ("--workers", "1"),
        "2 workers": ("--workers", "2"),
        "1 worker, adaptive batches of 64": ("--workers", "1", "--batch", "64"),
        "2 workers, adaptive batches of 64": ("--workers", "2", "--batch", "64"),
    },
    "litserve": {
        "1 worker": ("--workers", "1"),
        "1 worker, batches of 64 within 1 ms": ("--workers", "1", "--batch", "64", "--wait-ms", "1"),
        "1 worker, batches of 64 within 1 ms, fast queue": (
            *("--workers", "1", "--batch", "64", "--wait-ms", "1"),
            "--zmq",
        ),
        "1 worker, 2 API servers, batches of 64 within 1 ms": (
            *("--workers", "1", "--servers", "2", "--batch", "64", "--wait-ms", "1"),
        ),
    },
}


def peer_servers(home: Path, model: Path) -> list[Server]:
    """`home`: where peers are installed."""
    return [_peer_server(peer, home, model) for peer in SERVERS]


def _peer_server(peer: Peer, home: Path, model: Path) -> Server:
    def launched(options: Sequence[str], port: int, folder: Path) -> Launched:
        command = peer.command(home)
        if command is None:
            raise ServerMissing(f"{peer.title} is not installed. Run: headrace dev bench --install-peers")
        given = ["--port", str(port), "--model", str(model), *options]
        return Launched(command=[*command, *given], environment=os.environ, folder=folder)

    return Server(name=peer.name, question=_TALKS[peer.name], settings=_SETTINGS[peer.name], launched=launched)
