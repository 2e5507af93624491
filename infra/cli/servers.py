"""`headrace up` and `headrace down`: local servers, and all of a pipeline's processes beside them."""

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import Output, OutputOption, err, print_json, say
from headrace.infra.cli.places import stop_signals

if TYPE_CHECKING:
    from headrace.infra.pipeline_file import PipelineFile
    from headrace.infra.settings import Settings

_LOOK_SECONDS = 0.2
_UP = """Example: headrace up

Example: eval "$(headrace up)"   (sets KAFKA_BOOTSTRAP_SERVERS and REDIS_URL in this shell)

Example: headrace up flights.py --workers 2"""


def register(app: typer.Typer) -> None:
    @app.command(epilog=_UP)
    def up(
        files: Annotated[list[str] | None, typer.Argument(help="pipeline files to run, too")] = None,
        workers: Annotated[int, typer.Option(help="worker processes per pipeline", min=1)] = 1,
        serve: Annotated[bool, typer.Option(help="predict on demand, too, on port 8080 or a free one")] = True,
        output: OutputOption = Output.text,
    ) -> None:
        """Starts Kafka and Redis on this machine, unless they run or the environment names others.

        With pipeline files: also applies their topics, and runs their workers, scheduler and server until Ctrl-C or
        SIGTERM, which stops those in order. The servers keep running until `headrace down`.
        """
        from headrace.infra.kafka import ensure_reachable  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.local.servers import started  # noqa: PLC0415
        from headrace.infra.pipeline_file import read_pipelines  # noqa: PLC0415
        from headrace.infra.settings import Settings  # noqa: PLC0415

        read = [read_pipelines(place) for place in files or []]
        named = Settings.load()
        with err.status("starting the servers"):
            settings = started(named, say)
            ensure_reachable(settings)
        if read:
            _run(settings, read, workers, output, serve=serve)
        elif output is Output.json:
            print_json(_addresses(settings))
        else:
            _export(named, settings)

    @app.command(epilog="Example: headrace down")
    def down(output: OutputOption = Output.text) -> None:
        """Stops the servers that `up` started on this machine; their data stays, and the next `up` finds it."""
        from headrace.infra.local.servers import stopped  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.settings import Settings  # noqa: PLC0415

        settings = Settings.load()
        with err.status("stopping the servers"):
            names = stopped(settings)
        if output is Output.json:
            print_json({"stopped": names})
        else:
            say(f"stopped {' and '.join(names)}" if names else f"no server runs from {settings.home}")


def _run(settings: "Settings", files: "list[PipelineFile]", workers: int, output: Output, *, serve: bool) -> None:
    from headrace.infra.observe import log_to  # noqa: PLC0415  heavy: only for this command
    from headrace.infra.processes.together import running, serve_beside  # noqa: PLC0415
    from headrace.infra.topics import apply  # noqa: PLC0415

    log_to(level=30)  # warnings: a child that was started again
    for file in files:
        for pipeline in file.pipelines.values():
            created = [applied.topic for applied in apply(settings, pipeline) if applied.created]
            say(f"{pipeline.name}: {f'created {len(created)} topics' if created else 'topics are there'}")
    with stop_signals() as stopping, running(settings, files, workers=workers) as children:
        url = serve_beside(children, files) if serve else ""
        if output is Output.json:
            names = [pipeline.name for file in files for pipeline in file.pipelines.values()]
            more = {"pipelines": names, "logs": str(settings.home / "logs"), "serve": url}
            print_json(_addresses(settings) | more)
        say(f"Kafka {settings.bootstrap_servers}, Redis {settings.redis_shown}, logs in {settings.home / 'logs'}")
        if serve:
            say(f"console: {url}/console, predictions on demand: {url}/docs")
        say("running until Ctrl-C; the servers until `headrace down`")
        while not stopping.wait(_LOOK_SECONDS):
            children.check()
        say("stopping workers and schedulers")


def _addresses(settings: "Settings") -> dict[str, object]:
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "redis_url": settings.redis_shown,
        "prefix": settings.prefix,
        "home": str(settings.home),
    }


def _export(named: "Settings", settings: "Settings") -> None:
    """Lines that a shell may evaluate. What the environment or headrace.toml names may be secret: not repeated."""
    pairs = {
        "KAFKA_BOOTSTRAP_SERVERS": (named.bootstrap_servers, settings.bootstrap_servers),
        "REDIS_URL": (named.redis_url, settings.redis_url),
    }
    for name, (given, found) in pairs.items():
        if given is None:
            typer.echo(f"export {name}={found}")
    if all(given is not None for given, _ in pairs.values()):
        say(f"Kafka at {settings.bootstrap_servers}, as named by the environment or headrace.toml; nothing to start")
