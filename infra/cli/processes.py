"""`headrace worker` and `headrace scheduler`: the processes that run a pipeline."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from headrace.infra.cli.output import PipelineArgument
from headrace.models.aliases import CHAMPION

MetricsPort = Annotated[int, typer.Option("--metrics-port", help="Prometheus on 127.0.0.1; 0 takes a free port")]


class Guarantee(StrEnum):
    at_least_once = "at_least_once"
    exactly_once = "exactly_once"


DeliveryOption = Annotated[Guarantee | None, typer.Option(help="instead of the pipeline's own choice")]


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: headrace worker flights.py --metrics-port 9400")
    def worker(
        file: PipelineArgument,
        metrics_port: MetricsPort = 0,
        delivery: DeliveryOption = None,
        slot: Annotated[
            str, typer.Option(help="this worker's own name in its pipeline, kept over restarts (exactly_once)")
        ] = "",
        alias: Annotated[
            str, typer.Option(help="serve this alias, onto topics of its own: flight-delay.predictions.challenger")
        ] = CHAMPION,
    ) -> None:
        """Predicts: a member of the pipeline's group. Start as many as there are partitions to share."""
        from headrace.infra.local.servers import located  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.observe import log_to  # noqa: PLC0415
        from headrace.infra.pipeline_file import one_of, read_pipelines  # noqa: PLC0415
        from headrace.infra.processes.worker import run_worker  # noqa: PLC0415
        from headrace.infra.settings import Settings  # noqa: PLC0415

        log_to()
        pipeline = one_of(read_pipelines(file), file)
        if delivery:
            pipeline = replace(pipeline, delivery=delivery.value)
        settings = located(Settings.load())
        if alias != CHAMPION:
            from headrace.infra.topics import apply  # noqa: PLC0415

            apply(settings, pipeline, alias=alias)
        run_worker(settings, pipeline, alias=alias, slot=slot, metrics_port=metrics_port)

    @app.command(epilog="Example: headrace scheduler flights.py --metrics-port 9401")
    def scheduler(
        file: PipelineArgument,
        metrics_port: MetricsPort = 0,
        clock: Annotated[bool, typer.Option(help="fire by the wall clock; --no-clock: only on request")] = True,
        started: Annotated[int | None, typer.Option(hidden=True, help="since when ticks count, Unix ms")] = None,
    ) -> None:
        """Decides when to train, trains, judges and publishes. Two may run: one leads."""
        from headrace.infra.local.servers import located  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.observe import log_to  # noqa: PLC0415
        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415
        from headrace.infra.processes.scheduler import run_scheduler  # noqa: PLC0415
        from headrace.infra.settings import Settings  # noqa: PLC0415

        log_to()
        read = read_pipelines(file)
        run_scheduler(located(Settings.load()), read, clock=clock, started=started, metrics_port=metrics_port)
