"""runs log → a scorer for as long as this process owns it: a thread per pipeline with `score`, beside its leader's."""

import logging
import socket
import threading
from contextlib import ExitStack
from os import getpid

from confluent_kafka import KafkaException

from headrace.infra.leadership import KafkaRunsLog
from headrace.infra.names import Names
from headrace.infra.scheduled_scoring import Scoreboard, ScoreWriter
from headrace.infra.services.row_model import row_store
from headrace.infra.settings import Settings
from headrace.models.errors import HeadraceError
from headrace.models.facts import Observer
from headrace.models.pipeline import Pipeline
from headrace.scheduler.ledger import LeadershipLost
from headrace.scheduler.scorer import Scorer

_STANDBY_SECONDS = 0.2
_AGAIN_SECONDS = 1.0  # after a lost leadership, before the next try
_log = logging.getLogger("headrace.scheduler")


class ScorerThread:
    """Scores one pipeline's ticks for as long as it may, and tries again when it no longer does."""

    def __init__(self, settings: Settings, pipeline: Pipeline, observer: Observer) -> None:
        """Raises ServerMissing."""
        self._settings, self._names, self._observer = settings, Names(settings.prefix, pipeline), observer
        if (store := row_store(settings, self._names)) is not None:  # without one it is refused now
            store.close()
        self._stopping = threading.Event()
        self._log: KafkaRunsLog | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"scorer-{pipeline.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when it scores no more; a tick that goes on is finished by whoever is next."""
        self._stopping.set()
        if self._log is not None:
            self._log.resign()
        self._thread.join(60)

    @property
    def failure(self) -> BaseException | None:
        """What ended it for good."""
        return self._failure if not self._thread.is_alive() else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._score()
            except (LeadershipLost, HeadraceError, KafkaException) as error:  # trainings and moves go on
                _log.warning("scoring begins anew: %s", error)
                self._stopping.wait(_AGAIN_SECONDS)
            except BaseException as error:  # noqa: BLE001  the process's root looks at it, and ends
                self._failure = error
                return

    def _score(self) -> None:
        with ExitStack() as stack:
            log = self._log = KafkaRunsLog(self._settings, self._names, "scorer")
            stack.callback(log.consumer.close)
            while not log.leads:  # a standby: another scheduler scores
                if self._stopping.is_set():
                    return
                log.poll(_STANDBY_SECONDS)
            writer = ScoreWriter(self._settings, self._names, log)
            stack.callback(writer.close)
            board = Scoreboard(self._settings, self._names, self._observer)
            stack.callback(board.close)
            scorer = Scorer(
                self._names.pipeline,
                name=f"{socket.gethostname()}-{getpid()}",
                log=log,
                writer=writer,
                board=board,
                observer=self._observer,
            )
            while not self._stopping.is_set():
                if not log.leads:
                    raise LeadershipLost(self._names.scorer)
                scorer.step()
