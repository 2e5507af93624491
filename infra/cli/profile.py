"""`headrace dev profile`: where does a live worker's time go?"""

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import to_builtins

from headrace.infra.cli.output import Output, OutputOption, err, out, print_json, print_table, say

if TYPE_CHECKING:
    from headrace.infra.services.watch.live_process import Live
    from headrace.infra.services.watch.profile import Profile, Stage

_EXAMPLE = """Example: headrace dev profile

Example: headrace dev profile --seconds 30 --flame profile.svg"""


def register(dev: typer.Typer) -> None:
    @dev.command(epilog=_EXAMPLE)
    def profile(
        pid: Annotated[int | None, typer.Option(help="of the worker; by default the one that predicted most")] = None,
        port: Annotated[int | None, typer.Option(help="of its metrics, instead of --pid")] = None,
        seconds: Annotated[float, typer.Option(help="how long to look", min=0.1, max=3_600)] = 10.0,
        flame: Annotated[Path | None, typer.Option(help="a file for a flame graph of them, SVG; needs py-spy")] = None,
        output: OutputOption = Output.text,
    ) -> None:
        """Shows where a live worker's time goes: its stages, your own functions by name, and a flame graph.

        The exit code is 1 where a flame graph was wanted and there is none.
        """
        from headrace.infra.services.watch.live_process import chosen  # noqa: PLC0415  heavy: only for this command
        from headrace.infra.settings import Settings  # noqa: PLC0415

        live, others = chosen(Settings.load().home, pid, port)
        if others:
            say(f"looking at {_named(live)}; also running: {', '.join(map(_named, others))}. --pid names another")
        found, missing = _watched(live, seconds, flame)
        if output is Output.json:
            drawn = str(flame) if flame and not missing else None
            print_json(to_builtins(live) | to_builtins(found) | {"flame": drawn, "flame_missing": missing})
        else:
            _print(live, found)
            if flame and not missing:
                say(f"the flame graph is in {flame}")
        if missing:
            say(missing)
            raise typer.Exit(1)


def _watched(live: "Live", seconds: float, flame: Path | None) -> "tuple[Profile, str | None]":
    """The profile, and why there is no flame graph of the same seconds, if one was wanted."""
    from headrace.infra.services.watch.flame import recording  # noqa: PLC0415  heavy: only for this command
    from headrace.infra.services.watch.profile import profile  # noqa: PLC0415
    from headrace.infra.services.watch.scrape import scraped  # noqa: PLC0415
    from headrace.models.errors import HeadraceError  # noqa: PLC0415

    missing, sampler = None, None
    with ExitStack() as stack:
        stack.enter_context(err.status(f"looking at {_named(live)} for {seconds:g} s"))
        before = scraped(live.metrics_port)
        if flame is not None:
            try:
                sampler = stack.enter_context(recording(live.pid, seconds, flame))
            except HeadraceError as error:
                missing = str(error)
        threading.Event().wait(seconds)
        found = profile(before, scraped(live.metrics_port))
        if sampler is not None:
            try:
                sampler.done()
            except HeadraceError as error:
                missing = str(error)
    return found, missing


def _named(live: "Live") -> str:
    of = f" of {', '.join(live.pipelines)}" if live.pipelines else ""
    return f"{live.role} {live.pid or 'without a known process id'}{of}"


def _print(live: "Live", found: "Profile") -> None:
    per_event = f", {found.seconds / found.events * 1e6:,.1f} µs each" if found.events else ""
    out.print(
        f"{_named(live)}: {found.events:,} events in {found.seconds:.1f} s,"
        f" {found.events_per_second:,.0f} a second{per_event}",
        markup=False,
    )
    if found.largest is None:
        say("no chunk was finished meanwhile: no event came, or a chunk takes longer. Give more --seconds")
        return
    print_table(
        ["thread", "stage", "share", "calls", "mean", "p50", "p99", "µs/event"], [_row(one) for one in found.stages]
    )
    busy = ", ".join(f"{thread} {share:.1%}" for thread, share in found.busy.items())
    out.print(f"share: of the {found.seconds:.1f} s. Threads work beside each other; busy: {busy}", markup=False)
    out.print(f"most of the time: {found.largest.stage}", markup=False)


def _row(one: "Stage") -> list[str]:
    return [
        one.thread,
        f"  {one.stage}" if one.within else one.stage,
        "" if one.share is None else f"{one.share:.1%}",
        f"{one.calls:,}",
        *[_seconds(spent) for spent in (one.mean, one.p50, one.p99)],
        "" if one.us_per_event is None else f"{one.us_per_event:,.2f}",
    ]


def _seconds(spent: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if spent >= size:
            return f"{spent / size:.3g} {unit}"
    return f"{spent * 1e6:.3g} µs"
