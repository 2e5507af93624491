"""`headrace.runs`, as a member of a pipeline's group → a thread that works for as long as it leads, and tries again."""

import logging
import threading
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Protocol

from headrace.infra.leadership import KafkaRunsLog
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.scheduler.ledger import LeadershipLost

_STANDBY_SECONDS = 0.2
_AGAIN_SECONDS = 1.0  # after a lost leadership, before the next try
_JOIN_SECONDS = 60.0
_log = logging.getLogger("headrace.scheduler")


class Work(Protocol):
    def step(self) -> None:
        """One thing at a time; returns soon. Any exception ends the leadership."""


class LeadingThread(ABC):
    """`group` is leader or scorer: what it leads. `again` are the errors after which it stands by once more."""

    def __init__(
        self, settings: Settings, names: Names, group: str, again: tuple[type[Exception], ...] = (LeadershipLost,)
    ) -> None:
        self._settings, self._names, self._group, self._again = settings, names, group, again
        self._stopping = threading.Event()
        self._log: KafkaRunsLog | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"{group}-{names.pipeline.name}", daemon=True)

    @abstractmethod
    def _begun(self, log: KafkaRunsLog, stack: ExitStack) -> Work:
        """It leads: what it works with. What is to be closed is on the stack."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when it leads no more; what goes on is for whoever leads next."""
        self._stopping.set()
        if self._log is not None:
            self._log.resign()
        self._thread.join(_JOIN_SECONDS)

    @property
    def failure(self) -> BaseException | None:
        """What ended it for good."""
        return self._failure if not self._thread.is_alive() else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._lead()
            except self._again as error:
                _log.warning("%s of %s begins anew: %s", self._group, self._names.pipeline.name, error)
                self._stopping.wait(_AGAIN_SECONDS)
            except BaseException as error:  # noqa: BLE001  the process's root looks at it, and ends
                self._failure = error
                return

    def _lead(self) -> None:
        with ExitStack() as stack:
            log = self._log = KafkaRunsLog(self._settings, self._names, self._group)
            stack.callback(log.consumer.close)
            while not log.leads:  # a standby: another scheduler leads
                if self._stopping.is_set():
                    return
                log.poll(_STANDBY_SECONDS)
            work = self._begun(log, stack)
            while not self._stopping.is_set():
                if not log.leads:
                    raise LeadershipLost(self._names.pipeline.name)
                work.step()
