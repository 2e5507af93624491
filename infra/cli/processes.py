"""`headrace worker` and `headrace scheduler`: the processes that run a pipeline."""

from typing import Annotated

import typer

from headrace.infra.cli.output import PipelineArgument
from headrace.infra.local.servers import located
from headrace.infra.observe import log_to
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.settings import Settings

MetricsPort = Annotated[int, typer.Option("--metrics-port", help="Prometheus on 127.0.0.1; 0 takes a free port")]


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace worker flights.py")
    def worker(file: PipelineArgument, metrics_port: MetricsPort = 0) -> None:
        """Predicts: a member of the pipeline's group. Start as many as there are partitions to share."""
        from headrace.infra.processes.worker import run_worker  # noqa: PLC0415  heavy: only for this command

        log_to()
        run_worker(located(Settings.load()), one_of(read_pipelines(file), file), metrics_port)

    @app.command(epilog="Example: headrace scheduler flights.py")
    def scheduler(
        file: PipelineArgument,
        metrics_port: MetricsPort = 0,
        clock: Annotated[bool, typer.Option(help="fire by the wall clock; --no-clock: only on request")] = True,
        started: Annotated[int | None, typer.Option(hidden=True, help="since when ticks count, Unix ms")] = None,
    ) -> None:
        """Decides when to train, trains, judges and publishes. Two may run: one leads."""
        from headrace.infra.processes.scheduler import run_scheduler  # noqa: PLC0415  heavy: only for this command

        log_to()
        run_scheduler(
            located(Settings.load()), read_pipelines(file), clock=clock, started=started, metrics_port=metrics_port
        )
