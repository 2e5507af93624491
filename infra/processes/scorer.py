"""runs log → a scorer for as long as this process owns it: a thread per pipeline with `score`, beside its leader's."""

import socket
from contextlib import ExitStack
from os import getpid

from confluent_kafka import KafkaException

from headrace.infra.leadership import KafkaRunsLog
from headrace.infra.names import Names
from headrace.infra.processes.leading import LeadingThread
from headrace.infra.scheduled_scoring import Scoreboard, ScoreWriter
from headrace.infra.services.scores.row_model import row_store
from headrace.infra.settings import Settings
from headrace.models.errors import HeadraceError
from headrace.models.facts import Observer
from headrace.models.pipeline import Pipeline
from headrace.scheduler.ledger import LeadershipLost
from headrace.scheduler.scorer import Scorer


class ScorerThread(LeadingThread):
    """Scores one pipeline's ticks for as long as it may; trainings and moves go on whatever befalls it."""

    def __init__(self, settings: Settings, pipeline: Pipeline, observer: Observer) -> None:
        """Raises ServerMissing."""
        again = (LeadershipLost, HeadraceError, KafkaException)
        super().__init__(settings, Names(settings.prefix, pipeline), "scorer", again)
        self._observer = observer
        if (store := row_store(settings, self._names)) is not None:  # without one it is refused now
            store.close()

    def _begun(self, log: KafkaRunsLog, stack: ExitStack) -> Scorer:
        writer = ScoreWriter(self._settings, self._names, log)
        stack.callback(writer.close)
        board = Scoreboard(self._settings, self._names, self._observer)
        stack.callback(board.close)
        return Scorer(
            self._names.pipeline,
            name=f"{socket.gethostname()}-{getpid()}",
            log=log,
            writer=writer,
            board=board,
            observer=self._observer,
        )
