"""registry → the champion that answers, followed as workers follow it; any other version, loaded when asked for."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import msgspec

from headrace.infra.names import Names
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import Late, NotFound, Overloaded, Unavailable
from headrace.infra.serve.servable import Servable, servable
from headrace.infra.services.scores.row_model import with_rows
from headrace.infra.services.scores.scoring import Scoring
from headrace.infra.services.versions.resolve import resolve
from headrace.infra.settings import Settings
from headrace.models.aliases import CHAMPION
from headrace.models.errors import BadInput, HeadraceError, RegistryRefused
from headrace.models.facts import Observer, Refused, Swapped
from headrace.models.golden import check_golden, golden_columns
from headrace.models.pipeline import Pipeline
from headrace.models.registry import Versions
from headrace.streams.canary import Canary
from headrace.streams.model import Baseline, LiveModel, live_model

_REFUSED_SECONDS = 10.0  # that a version which cannot be loaded is not tried again


def as_json(pipeline: Pipeline) -> Pipeline:
    """The same where events come in a request: as JSON, whatever the topic carries."""
    return with_rows(pipeline, msgspec.structs.replace(pipeline.events, format="json"))


class Champion:
    """What a `Follower` proposes to: the newest promotion that proved itself, from the next request on.

    `activate_at` speaks of offsets, and a request has none: the version serves here as soon as it is proven.
    """

    def __init__(self, pipeline: Pipeline, observer: Observer) -> None:
        self._pipeline, self._observer = pipeline, observer
        self.current: Servable = servable(pipeline, live_model(pipeline, Baseline(pipeline)))

    def propose(self, model: LiveModel) -> None:
        self.current = servable(self._pipeline, model)
        seconds = monotonic() - model.arrived_at
        swapped = Swapped(pipeline=self._pipeline.name, seq=model.seq, version=model.version, seconds=seconds)
        self._observer(swapped)

    def propose_canary(self, canary: Canary | None) -> None:
        """A share is of message keys, and a request has none: a challenger answers whoever names it."""

    def looked_at(self, seq: int) -> None:
        """A request has no history to agree with."""


class Loaded:
    """Versions of one pipeline that requests name, the least recently asked for given up first.

    For the event loop alone; a thread of its own loads them, one after the other, each in a sandbox first.
    """

    def __init__(
        self,
        settings: Settings,
        names: Names,
        champion: Champion,
        known: Callable[[], Versions],
        observer: Observer,
        limits: Limits,
    ) -> None:
        self._settings, self._names, self._pipeline = settings, names, as_json(names.pipeline)
        self._champion, self._known, self._observer, self._limits = champion, known, observer, limits
        self._there: OrderedDict[int, Servable] = OrderedDict()
        self._coming: dict[int, asyncio.Future[Servable]] = {}
        self._refused: dict[int, tuple[float, RegistryRefused]] = {}
        self._scoring: Scoring | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="versions")

    @property
    def known(self) -> Versions:
        """The registry as it is known here."""
        return self._known()

    def number(self, version: str) -> int:
        """Of a version's number or alias; "" is the champion. Raises NotFound."""
        if not version or version == CHAMPION:
            return self._champion.current.version
        try:
            return resolve(self._known(), version)
        except BadInput as error:
            raise NotFound(f"{self._pipeline.name}: {error}") from error

    def there(self, version: str) -> Servable | None:
        """The version if it can answer at once. Raises NotFound."""
        champion = self._champion.current
        if not version or version == CHAMPION:
            return champion
        number = self.number(version)
        if number == champion.version:
            return champion
        if number in self._there:
            self._there.move_to_end(number)
        return self._there.get(number)

    async def load(self, version: str, deadline: float) -> Servable:
        """Waits for it until `deadline`, monotonic seconds. Raises NotFound, Overloaded, Unavailable, Late."""
        found = self.there(version)
        if found is not None:
            return found
        number = self.number(version)
        at, refused = self._refused.get(number, (0.0, None))
        if refused is not None and monotonic() < at + _REFUSED_SECONDS:
            raise Unavailable(f"{self._pipeline.name}: {refused}", round(_REFUSED_SECONDS))
        coming = self._coming.get(number)
        if coming is None:
            if len(self._coming) >= self._limits.loading:
                raise Overloaded(f"{len(self._coming)} versions are being loaded: ask again later")
            coming = self._coming[number] = asyncio.ensure_future(self._load(number))
            coming.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, whoever waits
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                return await asyncio.shield(coming)
        except TimeoutError:
            said = f"{self._pipeline.name}: version {number} is being loaded: ask again"
            raise Late(said) from None

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._scoring is not None:
            self._scoring.close()

    async def _load(self, number: int) -> Servable:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._opened, number)
        except RegistryRefused as error:
            self._refused[number] = (monotonic(), error)
            name = self._pipeline.name
            self._observer(Refused(pipeline=name, reason=error.reason, detail=error.detail, version=number))
            raise Unavailable(f"{name}: {error}", round(_REFUSED_SECONDS)) from error
        except HeadraceError as error:
            raise Unavailable(f"{self._pipeline.name}: version {number}: {error}") from error
        finally:
            del self._coming[number]
        self._there[number] = found
        while len(self._there) > self._limits.versions:
            self._there.popitem(last=False)
        return found

    def _opened(self, number: int) -> Servable:
        if self._scoring is None:
            self._scoring = Scoring(self._settings, self._names, self._known())
        found = self._scoring.version(number)
        if found.manifest is not None and found.manifest.golden is not None:
            columns, rows = golden_columns(found.manifest.golden, found.manifest.schema)
            check_golden(found.manifest.golden, found.predictor.predict(columns, rows))
        features = found.manifest.features if found.manifest else ()
        model = live_model(self._pipeline, found.predictor, version=number, features=features)
        return servable(self._pipeline, model)
