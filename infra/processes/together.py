"""A pipeline file's workers, scheduler and server as child processes of whoever needs them: `up`, `backfill`."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.infra.pipeline_file import PipelineFile
from headrace.infra.processes.supervisor import Supervisor
from headrace.infra.settings import Settings

REST_PORT, GRPC_PORT = 8080, 8081
_LOOPBACK = "127.0.0.1"


def environment(settings: Settings, workers: int = 1) -> dict[str, str]:
    """So that a child finds the same servers and names; `headrace.toml` it reads itself."""
    ours = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "REDIS_URL": settings.redis_url,
        "HEADRACE_PREFIX": settings.prefix,
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_ONNX_THREADS": str(settings.onnx_threads or max(1, (os.cpu_count() or 1) // workers)),
    }
    return {**os.environ, **{name: value for name, value in ours.items() if value is not None}}


@contextmanager
def running(
    settings: Settings,
    files: list[PipelineFile],
    *,
    workers: int = 1,
    clock: bool = True,
    started: int | None = None,
) -> Iterator[Supervisor]:
    """A scheduler per file and `workers` per pipeline; stopped at the end: workers first, then schedulers."""
    children = Supervisor(
        settings.home / "logs", environment(settings, workers * sum(len(file.pipelines) for file in files))
    )
    try:
        for file in files:
            options = [
                "--clock" if clock else "--no-clock",
                *(["--started", str(started)] if started is not None else []),
            ]
            name = next(iter(file.pipelines)) if len(file.pipelines) == 1 else ""
            place = f"{file.path}:{name}" if name else str(file.path)
            children.start(f"scheduler-{file.path.stem}", ["scheduler", place, *options])
        for file in files:
            for name, pipeline in file.pipelines.items():
                for number in range(1, workers + 1):
                    children.start(
                        f"worker-{pipeline.name}-{number}", ["worker", f"{file.path}:{name}", "--slot", str(number)]
                    )
        yield children
    finally:
        children.stop()


def serve_beside(children: Supervisor, files: list[PipelineFile]) -> str:
    """`headrace serve` for all of them, as one more child; gives its URL. Where a usual port is taken, a free one."""
    port, grpc_port = _free(REST_PORT), _free(GRPC_PORT)
    places = [f"{file.path}:{name}" for file in files for name in file.pipelines]
    children.start("serve", ["serve", *places, "--port", str(port), "--grpc-port", str(grpc_port)])
    return f"http://{_LOOPBACK}:{port}"


def _free(wanted: int) -> int:
    for port in (wanted, 0):
        try:
            with socket.create_server((_LOOPBACK, port)) as found:
                number: int = found.getsockname()[1]
                return number
        except OSError:
            continue
    return wanted
