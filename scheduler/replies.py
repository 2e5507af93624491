"""who asks for a move in the registry → the leader's record and its reply, in one transaction."""

from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from headrace.models.aliases import CHAMPION
from headrace.models.durations import iso
from headrace.models.errors import RegistryRefused
from headrace.models.records import Aliased, Archived, Asked, Paused, Promoted, Published, Replied
from headrace.scheduler.ledger import Ledger
from headrace.scheduler.moves import expect_in_time, record_of
from headrace.scheduler.writer import Writer

_REMEMBERED = 1_000  # answered requests: one comes back within a poll or two


class Replies:
    """In the order in which they asked, each once: a move whose reply is on the topic is not waiting."""

    def __init__(
        self,
        pipeline: str,
        ledger: Ledger,
        writer: Writer,
        clock_ms: Callable[[], int],
        cancel: Callable[[Asked, Replied], None],
    ) -> None:
        """`cancel` ends the run that is asked for and writes the reply with its outcome. Raises RegistryRefused."""
        self._pipeline, self._ledger, self._writer, self._clock_ms = pipeline, ledger, writer, clock_ms
        self._cancel = cancel
        self._waiting: dict[str, Asked] = {}  # by run, oldest first
        self._given: deque[str] = deque(maxlen=_REMEMBERED)  # runs: our own requests come back from the topic

    def heard(self, record: Asked | Replied) -> None:
        if record.pipeline != self._pipeline:
            return
        if isinstance(record, Asked):
            if record.run not in self._given:
                self._waiting[record.run] = record
        else:
            self._waiting.pop(record.run, None)

    def give(self, follow: Callable[[], None]) -> None:
        """`follow` brings the ledger to the registry's end."""
        for asked in list(self._waiting.values()):
            follow()
            try:
                expect_in_time(asked, self._clock_ms())
                if asked.move == "import":
                    self._import(asked)
                elif asked.move in ("pause", "resume"):
                    self._pause(asked)
                elif asked.move == "cancel":
                    self._cancel(asked, self._reply(asked))
                else:
                    self._move(asked)
            except RegistryRefused as error:
                self._writer.record(self._reply(asked, refused=str(error)))
            self._waiting.pop(asked.run, None)
            self._given.append(asked.run)

    def _move(self, asked: Asked) -> None:
        record = record_of(asked, self._ledger.versions, self._clock_ms())
        version = record.version if isinstance(record, Promoted | Aliased | Archived) else None
        self._writer.record(record, self._reply(asked, version=version or 0, seq=record.seq))
        self._ledger.wrote(record.seq)

    def _pause(self, asked: Asked) -> None:
        """A fact on the runs log: the leader hears of it as everybody does."""
        paused = Paused(
            run=asked.run,
            pipeline=self._pipeline,
            paused=asked.move == "pause",
            at=iso(self._clock_ms()),
            by=asked.by,
            why=asked.why,
        )
        self._writer.record(paused, self._reply(asked))

    def _import(self, asked: Asked) -> None:
        """The asker has put graph and manifest on the artifacts topic; the number is the leader's to give."""
        if asked.manifest is None:
            raise RegistryRefused("incomplete", "import without a manifest")
        given, versions = self._ledger.manifest(asked.manifest), self._ledger.versions
        if given.pipeline != self._pipeline:
            raise RegistryRefused("wrong_manifest", f"it is of {given.pipeline}")
        version, seq = versions.newest + 1, versions.seq + 1
        self._writer.publish(
            given.onnx,
            lambda onnx: replace(given, version=version, parent=versions.aliases[CHAMPION], onnx=onnx),
            lambda manifest: [
                Published(
                    pipeline=self._pipeline,
                    seq=seq,
                    version=version,
                    manifest=manifest,
                    run=asked.run,
                    at=iso(self._clock_ms()),
                    by=asked.by,
                    why=asked.why,
                ),
                self._reply(asked, version=version, seq=seq),
            ],
        )
        self._ledger.wrote(seq)

    def _reply(self, asked: Asked, *, refused: str = "", version: int = 0, seq: int = 0) -> Replied:
        return Replied(
            run=asked.run,
            pipeline=asked.pipeline,
            at=iso(self._clock_ms()),
            done=not refused,
            reason=refused,
            version=version,
            seq=seq,
        )
