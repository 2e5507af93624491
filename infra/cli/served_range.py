"""options of a command → which served rows it reads: by event time, by the version that served them, how far back."""

from typing import Annotated

import typer

from headrace.infra.cli.places import moment

SinceOption = Annotated[str | None, typer.Option(help="event time: RFC 3339 or Unix ms")]
UntilOption = Annotated[str | None, typer.Option(help="event time, not included")]
VersionOption = Annotated[int | None, typer.Option(help="rows that this one served; 0 is the baseline", min=0)]
LookBackOption = Annotated[int, typer.Option(help="served rows that are looked through", min=1)]


def event_times(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Unix ms. Raises BadInput."""
    return moment("--since", since), moment("--until", until)
