"""a pipeline file and its model → `headrace serve`, as a user starts it, with the model as version 1."""

import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.infra.bench.contender import Run, Started
from headrace.infra.bench.headrace_worker import prepared
from headrace.infra.bench.serve.servers import Launched, Server, inference_protocol
from headrace.infra.bench.session import Session
from headrace.infra.bench.workload import Numbers
from headrace.infra.local.detached import free_port

HEADRACE = "headrace"


def headrace_server(session: Session) -> Server:
    """All its starts serve the same version."""
    settings = session.settings.model_copy(update={"prefix": f"{session.settings.prefix}serve."})
    run = Run(
        settings=settings, name="serve-requests", events=0, partitions=1, filled=lambda: "events", graph=session.graph
    )
    _, started = prepared(run, settings, "bare.py", run.graph, Numbers(run.graph))
    return beside(started)


def beside(started: Started) -> Server:
    """For the pipeline, the topics and the version of a worker's run."""
    file = (started.folder / "bare.py").resolve()
    command = [sys.executable, "-m", "headrace.infra.cli", "serve", str(file)]

    def launched(options: Sequence[str], port: int, folder: Path) -> Launched:
        ports = ("--port", str(port), "--grpc-port", str(free_port()))
        return Launched(command=[*command, *ports, *options], environment=started.environment, folder=folder)

    return Server(
        name=HEADRACE,
        question=inference_protocol(started.folder.name),  # which names the pipeline
        settings={"as it comes, with the priority of its peers": ("--nice", "0")},
        launched=launched,
    )
