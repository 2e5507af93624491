"""`headrace train` and `headrace backfill`: a model now, and a model from the past."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.infra.cli.output import (
    Output,
    OutputOption,
    PipelineArgument,
    err,
    figures,
    print_facts,
    print_json,
    progress,
    say,
)
from headrace.infra.cli.places import moment, named, one_pipeline, reached

if TYPE_CHECKING:
    from headrace.infra.services.changes.ask import Heard
    from headrace.models.records import Finished

_EXIT = {"promoted": 0, "published": 3, "rejected": 3, "failed": 1, "not_due": 1}
_DAY_MS = 86_400_000
_BACKFILL = """Example: headrace backfill flights.py --events flights.jsonl --side weather=weather.parquet
--side departures=departures.jsonl --labels arrivals.jsonl"""


def register(app: typer.Typer) -> None:
    _train(app)
    _backfill(app)


def _train(app: typer.Typer) -> None:
    @app.command(epilog='Example: headrace train flights.py --why "new carrier codes"')
    def train(
        file: PipelineArgument,
        at: Annotated[str | None, typer.Option(help="train as of then: RFC 3339 or Unix ms; now by default")] = None,
        why: Annotated[str, typer.Option(help="goes on record")] = "",
        sanity: Annotated[
            bool, typer.Option("--sanity", help="first see whether it learns one batch by heart")
        ] = False,
        wait: Annotated[bool, typer.Option(help="for the outcome")] = True,
        output: OutputOption = Output.text,
    ) -> None:
        """Asks the leader for a training, and waits: 0 promoted, 3 not (by the gate, or beside a pin), 1 failed.

        While no scheduler runs, this command leads for its one request.
        """
        from time import time_ns  # noqa: PLC0415

        from headrace.infra.services.changes.ask import leads_anyone, requested, trained  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.training import Origin  # noqa: PLC0415

        asked_at = moment("--at", at)
        source, pipeline = one_pipeline(file)
        origin = Origin(file=source, pipeline=pipeline)
        when = time_ns() // 1_000_000 if asked_at is None else asked_at
        if not wait:
            settings, names = named(file)
            request = requested(settings, names, at=when, by=origin.by, why=why, sanity=sanity)
            if not leads_anyone(settings, names):
                say(
                    "no scheduler leads: the request waits for one. Run: headrace scheduler, or train without --no-wait"
                )
            print_json({"run": request.run}) if output is Output.json else say(f"run {request.run} is asked for")
            return
        finished = None
        with progress(f"training {pipeline.name}") as (bar, task):
            try:
                for heard in trained(reached(), origin, at=when, why=why, sanity=sanity):
                    bar.update(task, note=_note(heard))
                    finished = heard
            except KeyboardInterrupt:
                say("no longer waiting; the request stays on record, and whoever leads runs it")
                raise
        _show_outcome(finished, output)  # type: ignore[arg-type]  # the last that is heard is the outcome
        raise typer.Exit(_EXIT.get(finished.outcome, 1))  # type: ignore[union-attr]  # as above


def _backfill(app: typer.Typer) -> None:
    @app.command(epilog=_BACKFILL)
    def backfill(
        file: PipelineArgument,
        events: Annotated[str, typer.Option(help="JSON lines or .parquet")],
        labels: Annotated[str | None, typer.Option(help="as events")] = None,
        side: Annotated[list[str] | None, typer.Option(help="TOPIC=FILE of a side topic, for each")] = None,
        key: Annotated[str | None, typer.Option(help="field that is the events' message key; their id if not")] = None,
        slice_: Annotated[str, typer.Option("--slice", help="longest slice of event time")] = "1d",
        start: Annotated[str | None, typer.Option(help="event time to begin at; the first row's if not")] = None,
        end: Annotated[str | None, typer.Option(help="event time to end before; after the last row if not")] = None,
        workers: Annotated[int, typer.Option(help="worker processes", min=1)] = 1,
        partitions: Annotated[int | None, typer.Option(help="of the events, where they are created", min=1)] = None,
        use_running: Annotated[bool, typer.Option("--use-running", help="workers and scheduler run elsewhere")] = False,
        output: OutputOption = Output.text,
    ) -> None:
        """Replays the past in event time: features, predictions, labels and every training that was due then."""
        from headrace.infra.names import Names  # noqa: PLC0415
        from headrace.infra.processes.together import running  # noqa: PLC0415
        from headrace.infra.services.data.backfill import Backfill, Files, rows_of, side_files  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.topics import apply  # noqa: PLC0415
        from headrace.models.durations import iso, milliseconds  # noqa: PLC0415

        longest = milliseconds("--slice", slice_)
        begin, until = moment("--start", start), moment("--end", end)
        places = side_files(side or [])
        source, pipeline = one_pipeline(file)
        with err.status("reading the rows"):
            rows = rows_of(pipeline, Files(events=events, labels=labels, side=places, key=key))
        for topic in [topic.name for topic in pipeline.side_topics if topic.name not in places]:
            say(f"no rows for the side topic {topic}: its features will be missing. See --side {topic}=FILE")
        begin = rows.start if begin is None else begin
        until = rows.end if until is None else until
        settings = reached()
        names = Names(settings.prefix, pipeline)
        apply(settings, pipeline, partitions)
        with ExitStack() as stack:
            check = (
                (lambda: None)
                if use_running
                else stack.enter_context(running(settings, [source], workers=workers, clock=False, started=begin)).check
            )
            past = Backfill(settings, names, check)
            stack.callback(past.close)
            days = max(1, -(-(until - begin) // _DAY_MS))
            bar, task = stack.enter_context(progress("days", days))
            for done in past.run(rows, longest_ms=longest, start=begin, end=until):
                finished = done.finished
                bar.update(task, completed=(done.end - begin) / _DAY_MS, note=iso(done.end))
                if finished is not None and finished.outcome != "not_due":
                    say(f"{iso(done.end)}  {_sentence(finished)}")
            summary = past.summary()
        if output is Output.json:
            print_json(summary)
        else:
            from dataclasses import asdict  # noqa: PLC0415

            facts = asdict(summary) | {"metrics": figures(summary.metrics)}
            print_facts((name.replace("_", " "), value) for name, value in facts.items())


def _note(heard: "Heard") -> str:
    from headrace.infra.services.changes.ask import LedHere  # noqa: PLC0415
    from headrace.models.records import Progressed, Started  # noqa: PLC0415

    match heard:
        case LedHere():
            say("no scheduler leads this pipeline: this command does, for this one run")
            return "leading"
        case Started():
            records = sum(part.end - part.first for part in heard.ranges)
            again = f", attempt {heard.attempt}, after: {heard.after}" if heard.after else ""
            say(f"run {heard.run} started: {records:,} records to read from{again}")
            return "started"
        case Progressed():
            if heard.why:
                say(f"run {heard.run} is tried again: {heard.why}")
            return f"{heard.stage} {figures(heard.facts)}"
    return ""


def _show_outcome(finished: "Finished", output: Output) -> None:
    if output is Output.json:
        print_json(finished)
        return
    print_facts(
        [
            ("run", finished.run),
            ("outcome", finished.outcome),
            ("version", finished.version or ""),
            ("why", finished.reason),
            ("rows", f"{finished.rows:,} trained on, {finished.holdout_rows:,} held out" if finished.rows else ""),
            ("metrics", figures(finished.metrics)),
            ("champion's", figures(finished.champion_metrics)),
            ("seconds", figures(finished.seconds)),
            *[(found.severity, f"{found.text} ({found.name})") for found in finished.findings],
        ]
    )


def _sentence(finished: "Finished") -> str:
    version = f" as version {finished.version}" if finished.version else ""
    return f"{finished.outcome}{version}: {finished.reason}"
