"""a run that is due → its training, step by step → a candidate, or why there is none.

Nothing here waits: the leader goes on reading, answering and guarding while a training goes on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from headrace.models.errors import HeadraceError
from headrace.models.findings import Finding
from headrace.models.manifest import Blob, Manifest, OffsetRange
from headrace.models.records import Progressed, Requested, Started
from headrace.models.registry import Versions
from headrace.scheduler.decide import Run
from headrace.scheduler.outcomes import now
from headrace.scheduler.writer import Writer

_PROGRESS_SECONDS = 1.0  # between two progress records of a run
_LOOK_SECONDS = 0.001


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a training came to: the verdict, and all that is needed to publish it."""

    promote: bool
    reason: str
    onnx: bytes | Blob  # a Blob lies in an object store already
    manifest: Callable[[int, Blob], Manifest]  # by version and the place of the ONNX bytes
    rows: int = 0
    holdout_rows: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    champion_metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class Attempt(Protocol):
    """A training that is going on."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]: ...

    def wait(self, seconds: float) -> Candidate | None:
        """The candidate, or None while it goes on. Raises RunFailed."""

    def progress(self) -> tuple[str, dict[str, float]]:
        """The stage, and its newest facts."""

    def cancel(self) -> None: ...


class Training(Protocol):
    """Starts trainings, and brings a model that a user gave."""

    def start(self, run: Run, at: int, versions: Versions) -> Attempt: ...

    def initial(self, path: str) -> Candidate: ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that ends without a candidate."""

    reason: str


class Attempts:
    """The one training of a pipeline that may go on at a time."""

    def __init__(self, pipeline: str, writer: Writer, training: Training) -> None:
        self._pipeline, self._writer, self._training = pipeline, writer, training
        self._going: Attempt | None = None
        self._begun = self._reported = 0.0
        self.run: Run | None = None  # that goes on
        self.request: Requested | None = None  # what asked for it

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return monotonic() - self._begun

    def start(self, run: Run, request: Requested, versions: Versions) -> Failure | None:
        self.run, self.request = run, request
        self._begun = self._reported = monotonic()
        try:
            self._going = self._training.start(run, request.at, versions)
        except (HeadraceError, OSError) as error:  # a champion that cannot be read; a full disk
            self.run = None
            return Failure(reason=str(error))
        self._writer.record(
            Started(
                run=run.run,
                pipeline=self._pipeline,
                at=now(),
                tick=run.tick_text,
                trigger=run.trigger,
                ranges=self._going.ranges,
            )
        )
        return None

    def look(self) -> Candidate | Failure | None:
        """What the run came to, or None while it goes on."""
        assert self._going is not None  # noqa: S101  `run` says so
        assert self.run is not None  # noqa: S101
        try:
            candidate = self._going.wait(_LOOK_SECONDS)
        except (HeadraceError, OSError) as error:  # RunFailed; a full disk
            self._ended()
            return Failure(reason=str(error))
        if candidate is not None:
            self._ended()
        elif monotonic() - self._reported >= _PROGRESS_SECONDS:
            self._report(self.run, self._going)
        return candidate

    def let_go(self) -> None:
        """Another one leads now."""
        if self._going is not None:
            self._going.cancel()
        self._ended()

    def _ended(self) -> None:
        self._going = self.run = None

    def _report(self, run: Run, going: Attempt) -> None:
        self._reported = monotonic()
        stage, facts = going.progress()
        self._writer.record(Progressed(run=run.run, pipeline=self._pipeline, at=now(), stage=stage, facts=facts))
