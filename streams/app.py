"""chunks → Faust channels → agents. The only file that names faust.App.

headrace's app has no Kafka client of Faust's: librdkafka does I/O, groups and offsets (docs/decisions/0001).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import faust
from faust.app.base import BootStrategy

from headrace.streams.chunk import Chunk, Outcome, Stamp


class _WithoutKafka(BootStrategy):  # type: ignore[misc]  # faust is untyped
    enable_kafka = False
    enable_kafka_consumer = False
    enable_kafka_producer = False
    enable_web = False


class _App(faust.App):  # type: ignore[misc]  # as above
    BootStrategy = _WithoutKafka


def streaming_app(name: str, folder: Path) -> Any:
    """A Faust app that is fed by channels alone; `folder` is where Faust makes its own (it keeps nothing there)."""
    folder.mkdir(parents=True, exist_ok=True)
    return _App(
        name,
        broker="kafka://localhost",
        web_enabled=False,
        store="memory://",
        stream_wait_empty=False,
        datadir=str(folder),
    )


def agent(
    app: Any, name: str, handle: Callable[[Chunk[Stamp]], Outcome], executor: Executor
) -> Callable[[Chunk[Stamp]], None]:
    """An agent that resolves each chunk's outcome with `handle` in `executor`; gives the way to hand a chunk over.

    An exception goes to the chunk: the source ends the process with it.
    """
    channel = app.channel()

    def resolve(chunk: Chunk[Stamp]) -> None:
        try:
            chunk.outcome.set_result(handle(chunk))
        except BaseException as error:  # noqa: BLE001  it is raised in the source's thread
            chunk.outcome.set_exception(error)

    async def process(chunks: Any) -> None:
        async for chunk in chunks:
            executor.submit(resolve, chunk)  # in order, one by one; the source bounds what is in flight

    app.agent(channel, name=name)(process)

    def hand_over(chunk: Chunk[Stamp]) -> None:
        asyncio.run_coroutine_threadsafe(channel.put(chunk), app.loop)

    return hand_over


async def started(app: Any) -> None:
    """Starts the agents; without a Kafka client nobody else opens the flow."""
    await app.start()
    app.flow_control.resume()
