"""`headrace serve`: predictions on demand."""

from dataclasses import replace
from typing import Annotated

import typer

from headrace.infra.cli.processes import MetricsPort

_EXAMPLE = """Example: headrace serve flights.py

Example: headrace serve flights.py --host 0.0.0.0 --allow-host models.example.com   (needs keys: headrace key add)"""

_LARGEST_AT_ONCE = 4  # of the largest requests, that may be read at the same time


def register(app: typer.Typer) -> None:
    @app.command(epilog=_EXAMPLE)
    def serve(
        files: Annotated[list[str], typer.Argument(help="pipeline files, or file.py:name for one of several")],
        host: Annotated[
            str, typer.Option(help="the address to listen on; beyond loopback only with API keys")
        ] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="REST; 0 takes a free port")] = 8080,
        grpc_port: Annotated[int, typer.Option(help="gRPC; 0 takes a free port")] = 8081,
        metrics_port: MetricsPort = 0,
        allow_host: Annotated[
            list[str] | None, typer.Option(help="a name under which this server may be asked, beside loopback's")
        ] = None,
        allow_origin: Annotated[
            list[str] | None,
            typer.Option(
                help="of pages that reach this server under their own origin, behind a proxy: https://console.example.com"
            ),
        ] = None,
        batch_ms: Annotated[
            float, typer.Option(help="a run of the model that takes longer makes the next batches smaller", min=0.1)
        ] = 20.0,
        deadline_ms: Annotated[
            float, typer.Option(help="for requests that say none, and the longest that one may say", min=1)
        ] = 10_000.0,
        max_request_mb: Annotated[int, typer.Option(help="of one request's body, unpacked", min=1, max=1024)] = 8,
        max_rows: Annotated[int, typer.Option(help="of one request", min=1)] = 10_000,
        log_served: Annotated[
            bool,
            typer.Option(
                "--log-served",
                help="events that are asked for go to the served topic: labels join them, trainings learn from them",
            ),
        ] = False,
        nice: Annotated[
            int,
            typer.Option(help="how much workers go first on a machine that both share; 0: not at all", min=0, max=19),
        ] = 5,
        drain_seconds: Annotated[
            float, typer.Option(help="on SIGTERM: answer so long while readiness says no, then close", min=0)
        ] = 1.0,
    ) -> None:
        """Predicts on demand: the Open Inference Protocol v2 by REST and gRPC, and events as they are on the topic."""
        from headrace.infra.processes.own_session import in_own_session  # noqa: PLC0415  only for this command

        if nice:
            in_own_session()
        from headrace.infra.local.servers import located  # noqa: PLC0415  heavy
        from headrace.infra.observe import log_to  # noqa: PLC0415
        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415
        from headrace.infra.processes.serve import Options, run_serve  # noqa: PLC0415
        from headrace.infra.serve.limits import Limits  # noqa: PLC0415
        from headrace.infra.settings import Settings  # noqa: PLC0415
        from headrace.infra.training import Origin  # noqa: PLC0415

        log_to()
        limits = replace(
            Limits(),
            batch_seconds=batch_ms / 1000,
            deadline_seconds=deadline_ms / 1000,
            request_bytes=max_request_mb << 20,
            waiting_bytes=max(Limits().waiting_bytes, _LARGEST_AT_ONCE * max_request_mb << 20),
            request_rows=max_rows,
        )
        options = Options(
            host=host,
            port=port,
            grpc_port=grpc_port,
            allow_hosts=tuple(allow_host or ()),
            allow_origins=tuple(allow_origin or ()),
            drain_seconds=drain_seconds,
            nice=nice,
            log_served=log_served,
            limits=limits,
        )
        read = [read_pipelines(place) for place in files]
        origins = [Origin(file=file, pipeline=pipeline) for file in read for pipeline in file.pipelines.values()]
        run_serve(located(Settings.load()), origins, options, metrics_port=metrics_port)
