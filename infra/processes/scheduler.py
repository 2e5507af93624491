"""`headrace scheduler flights.py`: clock, leaders and trainer of every pipeline in the file."""

import signal
import socket
import threading
from contextlib import ExitStack
from os import getpid
from types import FrameType

from headrace.infra.kafka import ensure_reachable
from headrace.infra.keys import signer, verifier
from headrace.infra.leadership import KafkaRegistry, KafkaRunsLog, KafkaWriter
from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.observe import Metrics, both, log_fact, serving
from headrace.infra.pipeline_file import PipelineFile
from headrace.infra.processes.leading import LeadingThread
from headrace.infra.processes.orphan import stop_when_orphaned
from headrace.infra.processes.registered import registered
from headrace.infra.processes.scorer import ScorerThread
from headrace.infra.settings import Settings
from headrace.infra.training import LocalTraining, Origin
from headrace.models.facts import Observer
from headrace.scheduler.clock import Clock
from headrace.scheduler.leader import Leader
from headrace.trainer.process import Trainer


class LeaderThread(LeadingThread):
    """Leads one pipeline for as long as it may. Stopped, a training goes on where its trainer is detached."""

    def __init__(
        self,
        settings: Settings,
        origin: Origin,
        trainer: Trainer,
        observer: Observer,
        *,
        started: int | None = None,
        trains: bool = True,
    ) -> None:
        """Without `trains` it only answers requests for moves."""
        super().__init__(settings, Names(settings.prefix, origin.pipeline), "leader")
        self._origin, self._trainer, self._observer = origin, trainer, observer
        self._started, self._trains = started, trains
        self._leader: Leader | None = None
        self._woken_at: int | None = None

    def wake(self, now: int) -> None:
        self._woken_at = now
        if self._leader is not None:
            self._leader.wake(now)

    def _begun(self, log: KafkaRunsLog, stack: ExitStack) -> Leader:
        registry = KafkaRegistry(self._settings)
        stack.callback(registry.close)
        writer = KafkaWriter(self._settings, self._names, log)
        stack.callback(writer.close)
        live = LiveLabels(self._settings, self._names, self._observer)
        stack.callback(live.close)
        leader = self._leader = Leader(
            self._origin.pipeline,
            name=f"{socket.gethostname()}-{getpid()}",
            log=log,
            registry_log=registry,
            writer=writer,
            training=LocalTraining(self._settings, self._names, self._origin, self._trainer, registry),
            live=live,
            observer=self._observer,
            started=self._started,
            verify=verifier(self._settings, self._origin.pipeline),
            trains=self._trains,
        )
        stack.callback(leader.close)
        if self._woken_at is not None:
            leader.wake(self._woken_at)
        return leader


def run_scheduler(
    settings: Settings,
    file: PipelineFile,
    *,
    clock: bool = True,
    started: int | None = None,
    metrics_port: int = 0,
) -> None:
    """Until SIGTERM or SIGINT. Without the clock, only requests are run: a replay owns the time. `started` is a
    replay's first moment; its trainings end with it, all others go on for the next scheduler."""
    stop_when_orphaned()
    for pipeline in file.pipelines.values():  # a standby, too, finds out now
        signer(settings, pipeline), verifier(settings, pipeline)
    ensure_reachable(settings)
    metrics = Metrics()
    observer = both(metrics, log_fact)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with ExitStack() as stack:
        port = stack.enter_context(serving(metrics, metrics_port))
        names = [pipeline.name for pipeline in file.pipelines.values()]
        stack.enter_context(registered(settings.home, role="scheduler", pipelines=names, metrics_port=port))
        trainer = stack.enter_context(Trainer(detached=started is None))
        trainer.warm_up()
        leaders = {
            pipeline.name: LeaderThread(
                settings, Origin(file=file, pipeline=pipeline), trainer, observer, started=started
            )
            for pipeline in file.pipelines.values()
        }
        for leader in leaders.values():
            leader.start()
            stack.callback(leader.stop)
        scorers = [ScorerThread(settings, one, observer) for one in file.pipelines.values() if clock and one.score]
        for scorer in scorers:
            scorer.start()
            stack.callback(scorer.stop)
        if clock:
            jobs = {pipeline.name: pipeline.retrain for pipeline in file.pipelines.values()}
            ticking = Clock(jobs, lambda name, now: leaders[name].wake(now))
            ticking.start()
            stack.callback(ticking.stop)
        while not stopping.wait(0.5):
            for failure in [thread.failure for thread in leaders.values()] + [thread.failure for thread in scorers]:
                if failure is not None:
                    raise failure
