"""`headrace worker flights.py`: the one composition root of inference and features."""

import asyncio
import os
import signal
import socket
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place

from headrace.infra.artifacts import Artifacts
from headrace.infra.feature_store import RedisFeatureStore
from headrace.infra.history import History
from headrace.infra.kafka import consumer_config, ensure_reachable, producer_config, transactional_config
from headrace.infra.keys import verifier
from headrace.infra.names import REGISTRY, Names
from headrace.infra.observe import Metrics, both, log_fact, serving
from headrace.infra.onnx import onnx_runtime
from headrace.infra.processes.collect import collect_rarely
from headrace.infra.processes.orphan import stop_when_orphaned
from headrace.infra.processes.registered import registered
from headrace.infra.sandbox import Sandbox
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader, Values, partitions_of
from headrace.infra.topics import topic_id
from headrace.models.aliases import CHAMPION
from headrace.models.errors import ServerMissing, Stalled
from headrace.models.facts import Observer
from headrace.models.features import Topic
from headrace.models.pipeline import Pipeline
from headrace.streams.app import agent, started, streaming_app
from headrace.streams.chunk import TopicPartition
from headrace.streams.group_offsets import GroupOffsets
from headrace.streams.infer import Inference
from headrace.streams.inline import Inline
from headrace.streams.rings import FeatureStore
from headrace.streams.side import SideRows
from headrace.streams.sink import AcknowledgedSink
from headrace.streams.source import Limits, Positions, Sink, Source
from headrace.streams.swap import Follower, Swap
from headrace.streams.transactions import Transactions
from headrace.streams.watchdog import Watchdog

_MAX_POLL_MS = 300_000  # librdkafka's own, where the operator says nothing
_REDIS_RETRIES = 30  # about a minute: under the third of a poll interval after which a source would pause
_TRANSACTION_SECONDS = 0.1  # how much later a prediction may be seen because its transaction is still open
_STALLED_EXIT = 70  # EX_SOFTWARE: whoever supervises the process starts it again


class Worker:
    """One pipeline's agents, wired. `run` returns after `stop`, and raises what ended a source."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, observer: Observer, *, alias: str = CHAMPION, slot: str = ""
    ) -> None:
        """`alias` says which version serves. `slot` names this worker among its pipeline's: who starts in it again
        takes over what was left open."""
        self._settings, self._pipeline, self._observer = settings, pipeline, observer
        self._names = Names(settings.prefix, pipeline, alias)
        self._id = f"{socket.gethostname()}-{os.getpid()}"
        self._slot = slot or self._id
        self._max_poll_seconds = float(consumer_config(settings, "").get("max.poll.interval.ms", _MAX_POLL_MS)) / 1000
        self._app = streaming_app(pipeline.name, settings.home / "faust")
        self._stop: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """From any thread or signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            store = self._store(stack)
            sources = [self._infer_source(store, stack)]
            if store is not None and self._names.alias == CHAMPION:  # one group keeps the store for all of them
                sources.append(self._features_source(store))
            await started(self._app)
            for source in sources:
                source.start()
                source.ended.add_done_callback(lambda _: self.stop())
                watchdog = self._watchdog(source)
                watchdog.start()
                stack.callback(watchdog.stop)
            await self._stop.wait()
            for source in sources:
                await asyncio.to_thread(source.stop)
            await self._app.stop()
        _raise_first([source.ended for source in sources])

    def _store(self, stack: ExitStack) -> RedisFeatureStore | None:
        if not self._pipeline.stored:
            return None
        if not self._settings.redis_url:
            raise ServerMissing("this pipeline has Lookup or Aggregate features, which live in Redis: set REDIS_URL.")
        url, namespace = self._settings.redis_url, self._names.store_namespace
        with closing(RedisFeatureStore(url, namespace)) as asked_once:
            asked_once.positions(self._names.of(self._pipeline.side_topics[0].name))  # not there: a sentence, at once
        store = RedisFeatureStore(url, namespace, retries=_REDIS_RETRIES)
        stack.callback(store.close)
        return store

    def _infer_source(self, store: FeatureStore | None, stack: ExitStack) -> Source[Any]:
        names, pipeline = self._names, self._pipeline
        inference = Inference(pipeline, names.topics, store)
        history = History(self._settings, names.topics.history)
        stack.callback(history.close)
        swap = Swap(pipeline, names.topics.history, self._id, self._observer, history.last)
        reader, artifacts = TopicReader(self._settings, [names.of(REGISTRY)]), Artifacts(self._settings)
        sandbox = Sandbox(memory_mb=self._settings.model_memory_mb, seconds=self._settings.onnx_timeout_s)
        stack.callback(sandbox.close)
        sandbox.start()  # before a version comes: it has imports to do
        follower = Follower(
            pipeline,
            reader=Values(reader),
            artifacts=artifacts,
            sandbox=sandbox,
            verify=verifier(self._settings, pipeline),
            swap=swap,
            sample=lambda: inference.sample,
            observer=self._observer,
            alias=names.alias,
            topic_id=topic_id(self._settings, names.events),
            runtime=onnx_runtime(self._settings),
        )
        follower.start()
        stack.callback(reader.close)
        stack.callback(artifacts.close)
        stack.callback(follower.stop)
        events = Topic(names.events, time=pipeline.events.time, id=pipeline.events.id, start=pipeline.events.start)
        inline = Inline()
        sink, positions = self._delivery(GroupOffsets([events]))
        return Source(
            "infer",
            consumer=self._consumer(names.infer, [events.name]),
            sink=sink,
            topics=[events],
            positions=positions,
            parts=swap.parts,
            between=swap.between,
            forget=swap.forget,
            hand_over=agent(self._app, "infer", inference.handle, inline),
            work=inline.work,
            observer=self._observer,
            limits=self._limits(),
        )

    def _delivery(self, offsets: GroupOffsets) -> tuple[Sink, Positions]:
        if self._pipeline.delivery == "at_least_once":
            return self._sink(), offsets
        name = f"{self._names.infer}-{self._slot}"
        both = Transactions(
            lambda report: Producer(transactional_config(self._settings, name, on_delivery=report)),
            offsets,
            self._observer,
        )
        return both, both

    def _limits(self) -> Limits:
        limits = Limits(max_poll_seconds=self._max_poll_seconds)
        if self._pipeline.delivery == "at_least_once":
            return limits
        return replace(limits, commit_seconds=_TRANSACTION_SECONDS)

    def _features_source(self, store: FeatureStore) -> Source[Any]:
        names = self._names
        topics = [Topic(names.of(side.name), time=side.time, start=side.start) for side in self._pipeline.side_topics]
        inline = Inline()
        side_rows = SideRows(self._pipeline, names.topics.dead_letters, store, self._settings.prefix)
        return Source(
            "features",
            consumer=self._consumer(f"{self._pipeline.name}.features", [topic.name for topic in topics]),
            sink=self._sink(),
            topics=topics,
            positions=side_rows,
            parts=lambda messages: [(None, messages, ())],
            hand_over=agent(self._app, "features", side_rows.handle, inline),
            work=inline.work,
            observer=self._observer,
            limits=self._limits(),
        )

    def _watchdog(self, source: Source[Any]) -> Watchdog:
        asker = Consumer(consumer_config(self._settings, "headrace.lag"))  # on the source's own it waits behind fetches

        def lag() -> dict[TopicPartition, int]:
            return {
                partition: max(0, asker.get_watermark_offsets(Place(*partition), timeout=5, cached=False)[1] - position)
                for partition, position in source.owned.items()
            }

        return Watchdog(lag, lambda: source.moved_at, _give_up, self._observer)

    def _consumer(self, group: str, topics: list[str]) -> Consumer:
        consumer = Consumer(consumer_config(self._settings, group, enable_partition_eof=True))
        for topic in topics:  # a clear sentence now, instead of a subscription that waits for ever
            partitions_of(consumer, topic)
        return consumer

    def _sink(self) -> AcknowledgedSink:
        return AcknowledgedSink(lambda report: Producer(producer_config(self._settings, on_delivery=report)))


def run_worker(
    settings: Settings, pipeline: Pipeline, *, alias: str = CHAMPION, slot: str = "", metrics_port: int = 0
) -> None:
    """Until SIGTERM or SIGINT."""
    stop_when_orphaned()
    ensure_reachable(settings)
    metrics = Metrics()

    async def run() -> None:
        worker = Worker(settings, pipeline, both(metrics, log_fact), alias=alias, slot=slot)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        await worker.run()

    with ExitStack() as stack:
        port = stack.enter_context(serving(metrics, metrics_port))
        stack.enter_context(registered(settings.home, role="worker", pipelines=[pipeline.name], metrics_port=port))
        collect_rarely()
        asyncio.run(run())


def _give_up(stalled: Stalled) -> None:
    """Says so and ends at once: a stalled process cannot be trusted to stop in order."""
    os.write(2, f"headrace worker: {stalled}. Ending, so that its supervisor starts another.\n".encode())
    os._exit(_STALLED_EXIT)


def _raise_first(ended: "list[Future[None]]") -> None:
    for future in ended:
        if future.done() and (error := future.exception()) is not None:
            raise error
