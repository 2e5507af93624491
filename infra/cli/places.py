"""Where a command works: which servers, which pipeline, and when it is told to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.infra.names import Names
    from headrace.infra.pipeline_file import PipelineFile
    from headrace.infra.settings import Settings
    from headrace.models.pipeline import Pipeline


_SECONDS = 5.0  # a broker that is there answers in milliseconds; whoever types a command waits for it


def reached() -> "Settings":
    """Settings whose broker answers. Raises ServerMissing, BrokerUnavailable, SettingsError: each one sentence."""
    from headrace.infra.kafka import ensure_reachable  # noqa: PLC0415  --help needs no Kafka
    from headrace.infra.local.servers import located  # noqa: PLC0415
    from headrace.infra.settings import Settings  # noqa: PLC0415

    settings = located(Settings.load())
    ensure_reachable(settings, _SECONDS)
    return settings


def one_pipeline(place: str) -> "tuple[PipelineFile, Pipeline]":
    from headrace.infra.pipeline_file import one_of, read_pipelines  # noqa: PLC0415

    file = read_pipelines(place)
    return file, one_of(file, place)


def named(place: str) -> "tuple[Settings, Names]":
    """The file before the servers: what is wrong with it is said at once."""
    from headrace.infra.names import Names  # noqa: PLC0415

    _, pipeline = one_pipeline(place)
    settings = reached()
    return settings, Names(settings.prefix, pipeline)


def moment(where: str, text: str | None) -> int | None:
    """RFC 3339 with an offset, or Unix ms → Unix ms. Raises BadInput."""
    from datetime import datetime  # noqa: PLC0415

    from headrace.models.durations import to_ms  # noqa: PLC0415
    from headrace.models.errors import BadInput  # noqa: PLC0415

    if text is None:
        return None
    if text.isdecimal():
        return int(text)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    if given is None or given.tzinfo is None:
        raise BadInput(f"{where}: expected a time with its offset, as 2025-07-04T11:00:00Z, or Unix ms; got {text!r}.")
    return to_ms(given)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM instead of ending the process at once; a second one does end it."""
    stopping = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            raise SystemExit(128 + number)
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
