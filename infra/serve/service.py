"""what REST and gRPC share: pipelines by name, their versions, and the two lanes in which requests run."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.infra.serve.events import Answered, EventScorer, Told
from headrace.infra.serve.http import Bodies
from headrace.infra.serve.lane import Batch, Lane
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import NotFound, TooLarge
from headrace.infra.serve.row_log import RowLog
from headrace.infra.serve.servable import Scores, Servable
from headrace.infra.serve.tally import Tally
from headrace.infra.serve.tensors import Given, Tensors, checked
from headrace.infra.serve.versions import Loaded
from headrace.models.facts import Observer, Served
from headrace.models.features import Function
from headrace.models.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """A version in the repository's index."""

    name: str
    version: str
    state: str  # READY, or UNAVAILABLE: then `reason` says what makes it ready
    reason: str = ""


class ServedPipeline:
    """One pipeline: tensors and events each in a lane of their own, so that a slow Redis holds up no tensors."""

    def __init__(
        self,
        pipeline: Pipeline,
        versions: Loaded,
        scorer: EventScorer,
        limits: Limits,
        tally: Tally,
        observer: Observer,
        log: RowLog | None = None,
    ) -> None:
        """`log` takes the rows of events that are answered; then the scorer has to give them."""
        name, self._log = pipeline.name, log
        self.name, self.versions, self._limits, self._tally, self._observer = name, versions, limits, tally, observer
        self._tensors: Lane[Servable, Tensors, Scores] = Lane(
            f"infer-{name}",
            Servable.infer,
            limits,
            lambda batch: self._served("tensors", batch),
            inline=_takes_time_by_rows(pipeline),
        )
        at_once = _takes_time_by_rows(pipeline) and not pipeline.stored
        self._events: Lane[Servable, Sequence[bytes], Answered] = Lane(
            f"events-{name}", scorer, limits, lambda batch: self._served("events", batch), inline=at_once
        )

    async def version(self, version: str, deadline: float) -> Servable:
        """Raises NotFound, Overloaded, Unavailable, Late."""
        return self.versions.there(version) or await self.versions.load(version, deadline)

    def infer(self, served: Servable, given: Sequence[Given], deadline: float) -> "asyncio.Future[Scores]":
        """Raises RequestRefused, Overloaded."""
        tensors = checked(served.inputs, given, self._limits.request_rows)
        return self._tensors.submit(served, tensors, tensors.rows, deadline)

    async def predict(self, served: Servable, events: Sequence[bytes], deadline: float) -> list[Told]:
        """Logged, where that is wanted, as soon as there is an answer in time. Raises TooLarge, Overloaded, Late."""
        if len(events) > self._limits.request_rows:
            raise TooLarge(f"expected up to {self._limits.request_rows:,} events in one request, got {len(events):,}")
        answered = await self._events.submit(served, events, len(events), deadline)
        if self._log is not None and answered.served is not None:
            self._log.add(answered.served, answered.served_bytes)
        return answered.told

    def index(self) -> list[Indexed]:
        """Every version that is published, and the baseline; aliases are names of these."""
        numbers = [0, *sorted(self.versions.known.published)]
        return [self._indexed(str(number)) for number in numbers]

    def numbers(self) -> list[str]:
        return [str(number) for number in (0, *sorted(self.versions.known.published))]

    def is_ready(self, version: str) -> bool:
        """Whether it would answer at once. Raises NotFound."""
        return self.versions.there(version) is not None

    @property
    def busy(self) -> tuple[int, int]:
        """Requests for tensors that run, and that wait."""
        return self._tensors.running, self._tensors.waiting

    def close(self) -> None:
        self._tensors.close()
        self._events.close()
        self.versions.close()

    def _indexed(self, number: str) -> Indexed:
        if self.is_ready(number):
            return Indexed(name=self.name, version=number, state="READY")
        return Indexed(name=self.name, version=number, state="UNAVAILABLE", reason="loaded when it is asked for")

    def _served(self, lane: str, batch: Batch[Servable]) -> None:
        self._tally.stage(lane, "run", batch.seconds)
        for waited in batch.waited:
            self._tally.stage(lane, "queue", waited)
        self._observer(
            Served(
                pipeline=self.name,
                version=batch.key.version,
                lane=lane,
                requests=len(batch.waited),
                rows=batch.rows,
                seconds=batch.seconds,
            )
        )


def _takes_time_by_rows(pipeline: Pipeline) -> bool:
    """Graphs without loops and branches do: others are refused, unless the pipeline allows their operators. Functions
    of the user's may do anything."""
    own = isinstance(pipeline.baseline, Function) or any(isinstance(one, Function) for one in pipeline.features)
    return not pipeline.operators and not own


class Service:
    """Every pipeline of a `headrace serve`. `draining` once it was told to stop, `outdated` where it says why no more
    should be asked here: what is asked is still answered."""

    def __init__(self, pipelines: Mapping[str, ServedPipeline], limits: Limits) -> None:
        self.pipelines, self.limits, self.draining = pipelines, limits, False
        self.outdated: Callable[[], str] = str
        self.bodies = Bodies(limits)

    def pipeline(self, name: str) -> ServedPipeline:
        """Raises NotFound."""
        found = self.pipelines.get(name)
        if found is None:
            there = ", ".join(self.pipelines)
            raise NotFound(f"model: expected one of {there}; got {name[:100]!r}")
        return found

    def index(self, *, ready: bool) -> list[Indexed]:
        found: list[Indexed] = []
        for one in self.pipelines.values():
            found += [version for version in one.index() if version.state == "READY" or not ready]
        return found

    @property
    def ready(self) -> bool:
        return not self.draining and not self.outdated()

    def close(self) -> None:
        for one in self.pipelines.values():
            one.close()
