"""broker, processes' metrics, registry → how each pipeline is doing now: what `headrace status` and the console say."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from threading import Event
from time import monotonic, time_ns

import msgspec

from headrace.infra.names import Names
from headrace.infra.services.versions.book import Book, RunFacts
from headrace.infra.services.watch.alerts import Alert, Condition, alerts
from headrace.infra.services.watch.letter_rates import LetterRates
from headrace.infra.services.watch.live_catalog import LiveCatalog
from headrace.infra.services.watch.newest_rows import NewestRows, newest_rows
from headrace.infra.services.watch.positions import Looker, Positions
from headrace.infra.services.watch.recent import DAY_SECONDS, RATE_SECONDS, Recent, StageTime, VersionNow, rate, within
from headrace.infra.settings import Settings
from headrace.models.durations import iso, to_ms
from headrace.models.errors import BrokerUnavailable, RegistryRefused
from headrace.models.protocols import Scheduled
from headrace.models.registry import Versions
from headrace.scheduler.guard import BY, moved_at

_KEPT = 450  # samples: a quarter of an hour at one every two seconds
_ROWS_SECONDS = 20.0  # between two looks at the newest served rows of a pipeline
_READY_SECONDS = 60.0  # for reading registry and runs from their beginning
_COUNT_SECONDS = 1.0  # of a look, for counting dead letters: where there are more, the next one goes on
_GRACE_SECONDS = 300.0  # after a tick: the run before it may still go on


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int
    events_per_second: float | None
    predictions_per_second: float | None
    lag: int | None
    p99: float | None  # seconds, append of an event to commit of its prediction


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are records a second; None where nobody knows (yet)."""

    pipeline: str
    at: str
    champion: int
    champion_since: str
    metric: str  # that the gate judges by
    events_per_second: float | None
    predictions_per_second: float | None  # events that were answered, by a prediction or a dead letter
    labels_per_second: float | None
    side_per_second: float | None
    dead_per_second: float | None
    on_demand_per_second: float | None
    events: int  # ever written
    dead_letters: int | None  # that retention has left; None as long as they are being counted
    dead_letters_open: int | None  # of these, what was not redriven
    lag: int | None  # events that wait
    workers: int | None
    schedulers: int | None
    latency_p50: float | None  # seconds, append of an event to commit of its prediction
    latency_p99: float | None
    stages: tuple[StageTime, ...]
    live: tuple[VersionNow, ...]
    rows: NewestRows  # event time, freshness, drift
    running: str  # the run that goes on
    running_stage: str
    newest_run: str  # that ended
    newest_run_state: str
    next_tick: str
    alerts: tuple[Alert, ...]

    @property
    def level(self) -> str:
        """bad, warn, info, or good."""
        return self.alerts[0].level if self.alerts else "good"


class Watcher:
    """Keeps what rates need. For one thread; `history` is for any."""

    def __init__(
        self,
        settings: Settings,
        pipelines: Sequence[Names],
        catalog: LiveCatalog,
        *,
        count_seconds: float = _COUNT_SECONDS,
    ) -> None:
        self.letters = LetterRates(settings, pipelines, count_seconds)
        self._settings, self._names, self._catalog = settings, list(pipelines), catalog
        self._recent = Recent(settings.home)
        self._looker: Looker | None = None
        self._looks: deque[Positions] = deque(maxlen=64)
        self._rows: dict[str, NewestRows] = {}
        self._rows_of: dict[str, tuple[float, int, int]] = {}  # when looked, end of the topic, champion
        self._stood: dict[str, float] = {}  # when a position moved last
        self._failure = ""
        self.history: dict[str, deque[Sample]] = {names.pipeline.name: deque(maxlen=_KEPT) for names in pipelines}

    def look(self) -> dict[str, Status]:
        """Where the broker is away, that is an alert of each."""
        try:
            self._looker = self._looker or Looker(self._settings, self._names)
            self._looks.append(self._looker.look())
            self.letters.look(self._looks[-1].at, self._looks[-1].ends)
            self._failure = self._catalog.failure
        except BrokerUnavailable as error:
            self._failure = str(error)
        self._recent.scrape()
        found = {names.pipeline.name: self._status(names) for names in self._names}
        at = time_ns() // 1_000_000
        for name, status in found.items():
            self.history[name].append(
                Sample(
                    at_ms=at,
                    events_per_second=status.events_per_second,
                    predictions_per_second=status.predictions_per_second,
                    lag=status.lag,
                    p99=status.latency_p99,
                )
            )
        return found

    def moved(self) -> list[str]:
        """Topics that were written to between the last two looks."""
        if len(self._looks) < 2:
            return []
        before, now = self._looks[-2], self._looks[-1]
        return [topic for topic, end in now.ends.items() if end != before.ends.get(topic)]

    def look_at_rows(self, names: Names) -> None:
        """Where there are new ones, and not oftener than it is worth."""
        name, now = names.pipeline.name, monotonic()
        end = self._looks[-1].ends.get(names.topics.served, -1) if self._looks else -1
        with self._catalog.of(name).book() as book:
            champion = book.known.champion.version if book.known.champion else 0
        looked_at, *before = self._rows_of.get(name, (float("-inf"), -1, -1))
        if now - looked_at < _ROWS_SECONDS or before == [end, champion]:
            return
        self._rows_of[name] = now, end, champion
        manifest = None
        if champion:
            with suppress(RegistryRefused, BrokerUnavailable), self._catalog.of(name).manifests() as read:
                manifest = read(champion)
        self._rows[name] = newest_rows(self._settings, names, champion, manifest)

    def _status(self, names: Names) -> Status:
        pipeline = names.pipeline
        name = pipeline.name
        recently, rows = self._recent.of(name), self._rows.get(name, NewestRows())
        now = self._looks[-1] if self._looks else None
        with self._catalog.of(name).book() as book:
            champion, aliases, pinned = book.known.champion, book.known.aliases, book.known.pinned
            paused_by = book.paused.by if book.paused is not None and book.paused.paused else ""
            running, newest, ticked = _runs(book)
            guarded = _taken_back(book.known, time_ns() // 1_000_000)
        events, predicted = self._rate(names.events), self._answered(name)
        dead, lag = self.letters.rate(name), None if now is None else now.lag[name]
        counted = self.letters.of(name).counted
        next_tick, overdue = _schedule(names, ticked, time_ns() // 1_000_000)
        condition = Condition(
            pipeline=name,
            lag=lag,
            partitions=1 if now is None else now.partitions.get(names.events, 1),
            stood_seconds=self._stands(name, predicted, lag),
            events_per_second=events,
            predictions_per_second=predicted,
            workers=None if now is None else now.workers[name],
            schedulers=None if now is None else now.leaders[name],
            retrains=bool(pipeline.retrain),
            paused_by=paused_by,
            pinned=pinned,
            newest_run=newest.state if newest else "",
            newest_run_reason=newest.reason if newest else "",
            overdue_seconds=overdue,
            drift=max((one.psi for one in rows.drift), default=None),
            drifted=tuple(one.column for one in rows.drift),
            dead_share=dead / (dead + (predicted or 0)) if dead else 0.0,
            refused=recently.refused(aliases, time_ns() / 1e9),
            guarded=guarded,
            failure=self._failure or self._catalog.of(name).failure,
        )
        return Status(
            pipeline=name,
            at=iso(time_ns() // 1_000_000),
            champion=champion.version if champion else 0,
            champion_since=champion.at if champion else "",
            metric=pipeline.metric,
            events_per_second=events,
            predictions_per_second=predicted,
            labels_per_second=self._rate(names.labels),
            side_per_second=_sum([self._rate(names.of(topic.name)) for topic in pipeline.side_topics]),
            dead_per_second=dead,
            on_demand_per_second=recently.rate("on demand"),
            events=0 if now is None else now.ends.get(names.events, 0),
            dead_letters=counted.letters if counted else None,
            dead_letters_open=counted.open if counted else None,
            lag=lag,
            workers=condition.workers,
            schedulers=condition.schedulers,
            latency_p50=recently.latency(names.events, 0.5),
            latency_p99=recently.latency(names.events, 0.99),
            stages=recently.stages(),
            live=recently.live(aliases),
            rows=rows,
            running=running.run if running else "",
            running_stage=(running.stage or "waiting") if running else "",
            newest_run=newest.run if newest else "",
            newest_run_state=newest.state if newest else "",
            next_tick=next_tick,
            alerts=tuple(alerts(condition)),
        )

    def _rate(self, topic: str) -> float | None:
        return rate(self._looks, lambda look: look.ends.get(topic))

    def _answered(self, name: str) -> float | None:
        """Events a second, by what workers have committed: the topic of predictions has a mark for each transaction,
        too, which may be as many as the predictions."""
        if len(self._looks) < 2:
            return None
        *earlier, now = self._looks
        before = within(earlier, now.at, RATE_SECONDS)
        then, there = before.answered[name], now.answered[name]
        moved = [offset - then[number] for number, offset in there.items() if number in then]
        return max(0.0, sum(moved) / (now.at - before.at)) if moved else None

    def _stands(self, name: str, predicted: float | None, lag: int | None) -> float:
        now = monotonic()
        if predicted or not lag or name not in self._stood:
            self._stood[name] = now
        return now - self._stood[name]


def _runs(book: Book) -> tuple[RunFacts | None, RunFacts | None, RunFacts | None]:
    """What goes on, the newest that ended, and of these the newest of a tick; of trainings that were due."""
    running = newest = ticked = None
    for one in reversed(book.runs()):
        if one.source or one.state == "not_due":
            continue
        ticked = ticked or (one if one.tick else None)
        if newest is None and one.finished_at:
            newest = one
        elif newest is None:
            running = one
        if newest is not None and ticked is not None:
            break
    return running, newest, ticked


def _taken_back(known: Versions, now: int) -> int:
    """The version that the guard took back within a day (`now` is Unix ms), as long as nobody moved the champion since;
    0: none."""
    *_, before, champion = None, None, *known.promotions
    if champion is None or before is None or (champion.move, champion.by) != ("rollback", BY):
        return 0
    return before.version if now - (moved_at(champion) or 0) < DAY_SECONDS * 1000 else 0


def _schedule(names: Names, newest: RunFacts | None, now: int) -> tuple[str, float]:
    """The next tick by the clock, and how long one is overdue, s: after the run of the newest one that has begun. A
    replay's ticks are not the clock's. `now` is Unix ms."""
    scheduled = [trigger for trigger in names.pipeline.retrain if isinstance(trigger, Scheduled)]
    there = [at for trigger in scheduled if (at := trigger.next_after(now)) is not None]
    overdue = 0.0
    if newest is not None and newest.tick and newest.by != "replay":
        last = to_ms(datetime.fromisoformat(newest.tick))
        late = [now - at for trigger in scheduled if (at := trigger.next_after(last)) is not None]
        overdue = max(0.0, max(late, default=0) / 1000 - _GRACE_SECONDS)
    return (iso(min(there)) if there else ""), overdue


def _sum(rates: Sequence[float | None]) -> float | None:
    there = [one for one in rates if one is not None]
    return sum(there) if there else None


def looked_at(settings: Settings, pipelines: Sequence[Names], seconds_apart: float) -> list[Status]:
    """Two looks, so that there are rates between them. Raises BrokerUnavailable."""
    catalog = LiveCatalog(settings, pipelines, lambda _pipeline, _what: None)
    catalog.start()
    try:
        if not catalog.ready.wait(_READY_SECONDS):
            raise BrokerUnavailable(f"the registry was not read within {_READY_SECONDS:.0f} s. {catalog.failure}")
        watcher = Watcher(settings, pipelines, catalog, count_seconds=_READY_SECONDS)
        watcher.look()
        for names in pipelines:
            watcher.look_at_rows(names)
        Event().wait(seconds_apart)
        return list(watcher.look().values())
    finally:
        catalog.stop()
