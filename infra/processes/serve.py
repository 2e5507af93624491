"""`headrace serve flights.py`: the one composition root of predictions on demand."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from time import monotonic

import grpc
import grpc.aio
import msgspec
import uvicorn
import uvloop

from headrace.infra.api_keys import ApiKeys
from headrace.infra.artifacts import Artifacts
from headrace.infra.console.board import Board
from headrace.infra.console.console import Console
from headrace.infra.console.hub import Hub
from headrace.infra.console.site import Site
from headrace.infra.console.view import View
from headrace.infra.feature_store import RedisFeatureStore
from headrace.infra.kafka import ensure_reachable
from headrace.infra.keys import verifier
from headrace.infra.names import REGISTRY, Names
from headrace.infra.observe import Metrics, both, log_fact, serving
from headrace.infra.onnx import onnx_runtime
from headrace.infra.processes.collect import collect_rarely
from headrace.infra.processes.orphan import stop_when_orphaned
from headrace.infra.processes.registered import registered
from headrace.infra.sandbox import Sandbox
from headrace.infra.serve.access import Access, is_loopback
from headrace.infra.serve.events import EventScorer
from headrace.infra.serve.grpc_service import Grpc
from headrace.infra.serve.guarded import GuardedProtocol, close_late_ones
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.openapi import description, page
from headrace.infra.serve.operations import Operations
from headrace.infra.serve.rest import Rest
from headrace.infra.serve.row_log import RowLog
from headrace.infra.serve.service import ServedPipeline, Service
from headrace.infra.serve.tally import Tally
from headrace.infra.serve.versions import Champion, Loaded, as_json
from headrace.infra.services.watch.live_catalog import LiveCatalog
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader, Values
from headrace.infra.topics import topic_id
from headrace.infra.training import Origin
from headrace.models.errors import BadInput, HeadraceError, PortTaken, ServerMissing, SettingsError
from headrace.models.facts import Observer
from headrace.models.pipeline import Pipeline
from headrace.streams.swap import Follower
from headrace.trainer.priority import give_way

_BACKLOG = 2_048  # connections that wait to be accepted
_KEEP_ALIVE_SECONDS = 75
_CATALOG_SECONDS = 60.0  # at most, for reading registry and runs: then pages say what is missing
_CATALOG_LOOK_SECONDS = 0.05
_KEYS_SECONDS = 1.0  # between two looks at the file of API keys
_SWITCH_SECONDS = 0.000_5  # that a thread waits for the interpreter: by default 5 ms, ten times a small model's run
_VERSION = version_of("headrace")
_log = logging.getLogger("headrace.serve")


@dataclass(frozen=True, kw_only=True)
class Options:
    host: str = "127.0.0.1"
    port: int = 8080  # 0: a free one
    grpc_port: int = 8081
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    drain_seconds: float = 1.0  # of answering while readiness says no, for whoever shares out the requests
    nice: int = 5  # how much other processes go before this one, where all want the processor
    grace_seconds: float = 20.0  # for what is in flight then
    log_served: bool = False  # whether answered events go to `<pipeline>.served`, for labels to join
    limits: Limits = field(default_factory=Limits)


class Server:
    """Everything of one process, wired. `run` returns after `stop`, when what was in flight is answered."""

    def __init__(
        self,
        settings: Settings,
        pipelines: Sequence[Pipeline],
        observer: Observer,
        options: Options = Options(),
        tally: Tally | None = None,
        origins: Mapping[str, Origin] | None = None,
    ) -> None:
        """`origins` by pipeline, where their files are known: then what the console asks for may be led here."""
        self._settings, self._pipelines, self._observer, self._options = settings, pipelines, observer, options
        self._tally, self._origins = tally or Tally(), origins or {}
        twice = {one.name for one in pipelines if sum(one.name == other.name for other in pipelines) > 1}
        if twice:
            raise BadInput(f"pipelines: expected each name once, {', '.join(sorted(twice))} comes twice.")
        self._keys = ApiKeys(settings.api_keys)
        self._needs_keys = not is_loopback(options.host)
        if self._needs_keys and not self._keys:
            raise SettingsError(
                f"--host {options.host}: expected API keys where others than this machine may ask. "
                "Add one: headrace key add NAME --role predict"
            )
        self._stop: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = self.grpc_port = 0  # once it listens
        self.service: Service | None = None

    def stop(self) -> None:
        """From any thread or signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            listening = stack.enter_context(_listening(self._options.host, self._options.port))
            pipelines = {}
            for pipeline in self._pipelines:
                followed = await asyncio.to_thread(self._followed, pipeline, stack)
                pipelines[pipeline.name] = (pipeline, *followed)
            limits, tally, observer = self._options.limits, self._tally, self._observer
            self.service = service = Service(
                {
                    name: ServedPipeline(pipeline, versions, scorer, limits, tally, observer, log)
                    for name, (pipeline, versions, scorer, log) in pipelines.items()
                },
                limits,
            )
            stack.callback(service.close)
            access, hub = self._access(), Hub()
            site = self._site(stack, access, hub, listening.getsockname()[1])
            service.outdated = lambda: site.catalog.outdated
            await self._caught_up(site.catalog)  # no page without its versions
            console = Console(site)
            rest = uvicorn.Server(self._http(self._rest(service, access, console)))
            remote = await self._grpc(service, access)
            late = close_late_ones(rest.server_state.connections, limits.head_seconds)
            looking = [asyncio.create_task(one) for one in (self._look_at_keys(), late)]
            answering = asyncio.create_task(_serve(rest, listening))
            collect_rarely()
            self.port = listening.getsockname()[1]
            _log.info("REST on http://%s:%d, gRPC on port %d", self._options.host, self.port, self.grpc_port)
            await asyncio.wait([answering, asyncio.create_task(self._stop.wait())], return_when=asyncio.FIRST_COMPLETED)
            service.draining = True
            if not answering.done():
                await asyncio.sleep(self._options.drain_seconds)
                rest.should_exit = True
            hub.close()
            await asyncio.gather(answering, remote.stop(self._options.grace_seconds))
            for one in looking:
                one.cancel()

    def _followed(self, given: Pipeline, stack: ExitStack) -> tuple[Loaded, EventScorer, RowLog | None]:
        """A pipeline's versions, the registry read to its end, what scores its events, and what logs their rows."""
        settings, pipeline = self._settings, as_json(given)
        names = Names(settings.prefix, given)
        store = self._store(names, stack)
        champion = Champion(pipeline, self._observer)
        reader, artifacts = TopicReader(settings, [names.of(REGISTRY)]), Artifacts(settings)
        sandbox = Sandbox(memory_mb=settings.model_memory_mb, seconds=settings.onnx_timeout_s)
        stack.callback(sandbox.close)
        sandbox.start()  # before a version comes: it has imports to do
        follower = Follower(
            pipeline,
            reader=Values(reader),
            artifacts=artifacts,
            sandbox=sandbox,
            verify=verifier(settings, given),
            swap=champion,
            sample=lambda: None,
            observer=self._observer,
            topic_id=topic_id(settings, names.events),
            runtime=onnx_runtime(settings),
        )
        follower.start()
        stack.callback(reader.close)
        stack.callback(artifacts.close)
        stack.callback(follower.stop)
        loaded = Loaded(settings, names, champion, lambda: follower.versions, self._observer, self._options.limits)
        scorer = EventScorer(given.label, store, rows=self._options.log_served)
        return loaded, scorer, self._log(names, stack) if self._options.log_served else None

    def _log(self, names: Names, stack: ExitStack) -> RowLog:
        topic = names.topics.served
        topic_id(self._settings, topic)  # not there: a sentence, at once
        most = self._options.limits.logged_bytes
        log = RowLog(self._settings, names.pipeline.name, topic, self._observer, most)
        stack.callback(log.close)  # after the service's end: nothing is added any more
        return log

    def _store(self, names: Names, stack: ExitStack) -> RedisFeatureStore | None:
        if not names.pipeline.stored:
            return None
        if not self._settings.redis_url:
            raise ServerMissing("this pipeline has Lookup or Aggregate features, which live in Redis: set REDIS_URL.")
        store = RedisFeatureStore(self._settings.redis_url, names.store_namespace)
        stack.callback(store.close)
        store.positions(names.of(names.pipeline.side_topics[0].name))  # not there: a sentence, at once
        return store

    def _access(self) -> Access:
        options = self._options
        return Access(
            self._keys,
            required=self._needs_keys,
            hosts=(options.host, *options.allow_hosts),
            origins=options.allow_origins,
        )

    async def _grpc(self, service: Service, access: Access) -> grpc.aio.Server:
        """Listening. Raises PortTaken."""
        options = self._options
        server = grpc.aio.server(
            maximum_concurrent_rpcs=options.limits.connections,
            options=[
                ("grpc.max_receive_message_length", options.limits.request_bytes),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.bdp_probe", 0),  # or a message that nobody asked for yet gets more than a window's room
                ("grpc.max_allowed_incoming_connections", options.limits.connections),
                ("grpc.server_handshake_timeout_ms", round(1000 * options.limits.head_seconds)),
            ],
        )
        server.add_generic_rpc_handlers((Grpc(service, access, self._tally, version=_VERSION).handler(),))
        host = f"[{options.host}]" if ":" in options.host else options.host
        try:
            self.grpc_port = server.add_insecure_port(f"{host}:{options.grpc_port}")
        except RuntimeError as error:
            raise PortTaken(f"--grpc-port {options.grpc_port}: expected a free port; {error}.") from error
        await server.start()
        return server

    def _site(self, stack: ExitStack, access: Access, hub: Hub, port: int) -> Site:
        names = [Names(self._settings.prefix, pipeline) for pipeline in self._pipelines]
        catalog = LiveCatalog(self._settings, names, lambda name, what: hub.changed(f"{what}:{name}", what))
        catalog.start()
        stack.callback(catalog.stop)
        board = Board(self._settings, names, catalog, hub.changed)
        board.start()
        stack.callback(board.stop)
        pipelines = {pipeline.name: pipeline for pipeline in self._pipelines}
        site = Site(self._settings, pipelines, self._origins, access, catalog, board, hub, View(_VERSION), port)
        stack.callback(site.close)
        return site

    async def _caught_up(self, catalog: LiveCatalog) -> None:
        """Or asked to stop, or it takes too long."""
        deadline = monotonic() + _CATALOG_SECONDS
        # a thread sets it: no event of this loop; and no thread that waits: it would be waited for at the end
        while not (catalog.ready.is_set() or self._stop.is_set() or monotonic() > deadline):  # noqa: ASYNC110
            await asyncio.sleep(_CATALOG_LOOK_SECONDS)

    def _rest(self, service: Service, access: Access, console: Console) -> Rest:
        names = {pipeline.name: Names(self._settings.prefix, pipeline) for pipeline in self._pipelines}
        described = description(list(names), self._options.limits, _VERSION)
        return Rest(
            service,
            access,
            Operations(self._settings, names),
            self._tally,
            version=_VERSION,
            pages={
                "openapi.json": (b"application/json", msgspec.json.encode(described)),
                "docs": (b"text/html; charset=utf-8", page(described).encode()),
            },
            console=console,
        )

    def _http(self, rest: Rest) -> uvicorn.Config:
        return uvicorn.Config(
            rest,
            http=GuardedProtocol,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=self._options.limits.connections,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(self._options.grace_seconds),
        )

    async def _look_at_keys(self) -> None:
        while True:
            await asyncio.sleep(_KEYS_SECONDS)
            try:
                self._keys.refresh()
            except HeadraceError as error:
                _log.warning("%s What was known stays.", error)


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    """Without uvicorn's own signal handlers: this process has one root."""
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    await server.serve(sockets=[listening])


@contextmanager
def _no_signals() -> Iterator[None]:
    yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with closing(socket.create_server((host, port), family=family, backlog=_BACKLOG)) as server:
            yield server
    except OSError as error:
        raise PortTaken(f"--host {host} --port {port}: expected a free address, {error.strerror}.") from error


def run_serve(settings: Settings, origins: Sequence[Origin], options: Options, *, metrics_port: int = 0) -> None:
    """Until SIGTERM or SIGINT."""
    pipelines = [origin.pipeline for origin in origins]
    stop_when_orphaned()
    ensure_reachable(settings)
    metrics, tally = Metrics(), Tally()
    metrics.registry.register(tally)

    async def run() -> None:
        by_name = {origin.pipeline.name: origin for origin in origins}
        server = Server(settings, pipelines, both(metrics, log_fact), options, tally, by_name)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        await server.run()

    names = [pipeline.name for pipeline in pipelines]
    if options.nice:  # else this may be a terminal's session, which is not ours
        give_way(options.nice)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with ExitStack() as stack:
        port = stack.enter_context(serving(metrics, metrics_port))
        stack.enter_context(registered(settings.home, role="serve", pipelines=names, metrics_port=port))
        uvloop.run(run())
