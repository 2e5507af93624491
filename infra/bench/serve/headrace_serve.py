"""a pipeline file and its model → `headrace serve`, as a user starts it, with the model as version 1."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.infra.bench.contender import Run
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
    names, started = prepared(run, settings, "bare.py", run.graph, Numbers(run.graph))
    pipeline_file, environment = str((started.folder / "bare.py").resolve()), started.environment

    def launched(options: Sequence[str], port: int, folder: Path) -> Launched:
        return serving(pipeline_file, environment, options, port, folder)

    return Server(
        name=HEADRACE,
        question=inference_protocol(names.pipeline.name),
        settings={"as it comes": ()},
        launched=launched,
    )


def serving(
    pipeline_file: str, environment: Mapping[str, str], options: Sequence[str], port: int, folder: Path
) -> Launched:
    ports = ("--port", str(port), "--grpc-port", str(free_port()))
    return Launched(
        command=[sys.executable, "-m", "headrace.infra.cli", "serve", pipeline_file, *ports, *options],
        environment=environment,
        folder=folder,
    )
