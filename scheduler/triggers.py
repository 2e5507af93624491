"""Numbers, the time → a reason to train, or none. Pure: the time is an argument, in a replay as in production."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice

from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError
from headrace.models.protocols import Numbers, Reason, Trigger
from headrace.scheduler.combined import has_ticks
from headrace.scheduler.cron import CronExpression

_ERRORS = 2  # of the holdout's mean, in its favour
_COUNTED = 100  # missed ticks, for the reason's text: a minutely schedule can have missed a year of them


@dataclass(frozen=True)
class Cron:
    """At the times of a crontab(5) line. The rules at daylight saving changes are in `scheduler.cron`.

    Due where a scheduled time lies in (newest tick, now]. Several missed ones make one run, under the newest of them.
    """

    expr: str
    _: KW_ONLY
    timezone: str
    _times: CronExpression = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_times", CronExpression(self.expr, self.timezone))

    def due(self, numbers: Numbers, now: int) -> Reason | None:
        since = _since(numbers)
        tick = self._times.newest_in(since, now) if since < now else None
        if tick is None:
            return None
        missed = sum(1 for _ in islice(self._between(since, tick), _COUNTED))
        return Reason(tick, f'cron "{self.expr}" {self.timezone}{_coalesced(missed)}')

    def next_after(self, after: int) -> int | None:
        return self._times.next_after(after)

    def _between(self, after: int, before: int) -> Iterator[int]:
        moment = self._times.next_after(after)
        while moment is not None and moment < before:
            yield moment
            moment = self._times.next_after(moment)


@dataclass(frozen=True)
class Every:
    """At the multiples of `period` since 1970-01-01T00:00Z, so that every scheduler means the same ticks.

    "1h" is on the hour in UTC, "1d" at midnight UTC, "1w" on Thursdays; for a weekday or a local hour use Cron.
    Missed ticks coalesce as Cron's do.
    """

    period: str

    def __post_init__(self) -> None:
        milliseconds("Every.period", self.period)

    @property
    def period_ms(self) -> int:
        return milliseconds("Every.period", self.period)

    def due(self, numbers: Numbers, now: int) -> Reason | None:
        since = _since(numbers)
        tick = now - now % self.period_ms
        if tick <= since:
            return None
        missed = (tick - since - 1) // self.period_ms
        return Reason(tick, f"every {self.period}{_coalesced(missed)}")

    def next_after(self, after: int) -> int | None:
        return after - after % self.period_ms + self.period_ms


@dataclass(frozen=True)
class NewLabels:
    """When `count` labels were joined since the newest run. The tick is the moment of the decision."""

    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise DeclarationError("NewLabels.count", "a whole number from 1", self.count, "NewLabels(20_000)")

    def due(self, numbers: Numbers, now: int) -> Reason | None:
        if numbers.new_labels < self.count:
            return None
        return Reason(now, f"{numbers.new_labels} new labels, {self.count} asked for")


@dataclass(frozen=True)
class Drift:
    """When a column, or the score, has moved away from the champion's training rows: its PSI or its KS distance is at
    least so much, over at least `rows` served rows since the newest run, and surely not by chance (see `models.drift`).
    The tick is the moment of the decision.
    """

    psi: float | None = 0.2
    _: KW_ONLY
    ks: float | None = None
    rows: int = 5_000
    columns: Sequence[str] | None = None  # of the schema, and "score"; all of them by default

    def __post_init__(self) -> None:
        for name, given in (("psi", self.psi), ("ks", self.ks)):
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if given is not None and not (number and given > 0):
                raise DeclarationError(f"Drift.{name}", "a number above 0", given, "Drift(psi=0.2)")
        if self.psi is None and self.ks is None:
            raise DeclarationError("Drift", "psi or ks", None, "Drift(psi=0.2)")
        if not isinstance(self.rows, int) or isinstance(self.rows, bool) or self.rows < 1:
            raise DeclarationError("Drift.rows", "a whole number from 1", self.rows, "Drift(rows=5_000)")

    def due(self, numbers: Numbers, now: int) -> Reason | None:
        if numbers.drift_rows < self.rows:
            return None
        for column, (psi, ks) in numbers.drift.items():
            far = (self.psi is not None and psi >= self.psi) or (self.ks is not None and ks >= self.ks)
            if far and (self.columns is None or column in self.columns):
                return Reason(now, f"{column} moved: PSI {psi:.3f}, KS {ks:.3f} over {numbers.drift_rows:,} rows")
        return None


@dataclass(frozen=True)
class Degraded:
    """When the champion's mean loss on what it serves (Brier, or absolute error) is surely above that on its own
    holdout, by more than `by` and the holdout's own error, and at least `rows` labels came since the newest run.

    A sequential test, over blocks of 5,000 labelled rows: in each its interval holds at every moment (95 %), so that it
    is asked as often as one likes; the holdout's mean counts as two of its standard errors higher. The tick is the
    moment of the decision.
    """

    by: float = 0.01
    _: KW_ONLY
    rows: int = 500

    def __post_init__(self) -> None:
        number = isinstance(self.by, int | float) and not isinstance(self.by, bool)
        if not number or not self.by >= 0:
            raise DeclarationError("Degraded.by", "a number from 0, in the loss's unit", self.by, "Degraded(by=0.01)")
        if not isinstance(self.rows, int) or isinstance(self.rows, bool) or self.rows < 1:
            raise DeclarationError("Degraded.rows", "a whole number from 1", self.rows, "Degraded(rows=500)")

    def due(self, numbers: Numbers, now: int) -> Reason | None:
        live = numbers.live
        if live is None or numbers.new_labels < self.rows:
            return None
        if not live.low > live.held_out + _ERRORS * live.held_out_error + self.by:
            return None
        return Reason(
            now,
            f"version {live.version}'s {live.loss} is {live.mean:.4g} on {live.rows:,} live rows, at least "
            f"{live.low:.4g}, {live.held_out:.4g} on its holdout (error {live.held_out_error:.2g})",
        )


@dataclass(frozen=True)
class Never:
    """A baseline: the frozen model."""

    def due(self, numbers: Numbers, now: int) -> Reason | None:  # noqa: ARG002  the protocol's
        return None

    def next_after(self, after: int) -> int | None:  # noqa: ARG002  the protocol's
        return None


@dataclass(frozen=True)
class Always:
    """A baseline: a run each time that anyone asks."""

    def due(self, numbers: Numbers, now: int) -> Reason | None:  # noqa: ARG002  the protocol's
        return Reason(now, "always")


def reasons_of(triggers: Sequence[Trigger], numbers: Numbers, now: int) -> list[Reason]:
    """Every reason that holds, in the order in which they win.

    Scheduled ones first, since their ticks are the same for whoever decides, and among them the newest tick, so that
    two schedules that both came due make one run; then the others. Ties are in the order of declaration.
    """
    found = [(trigger, trigger.due(numbers, now)) for trigger in triggers]
    reasons = [(has_ticks(trigger, reason, now), reason) for trigger, reason in found if reason is not None]
    scheduled = [reason for is_scheduled, reason in reasons if is_scheduled]
    others = [reason for is_scheduled, reason in reasons if not is_scheduled]
    return sorted(scheduled, key=lambda reason: -reason.tick) + others


def due_of(triggers: Sequence[Trigger], numbers: Numbers, now: int) -> Reason | None:
    """The first of `reasons_of`."""
    return next(iter(reasons_of(triggers, numbers, now)), None)


def _since(numbers: Numbers) -> int:
    return numbers.started if numbers.last_tick is None else numbers.last_tick


def _coalesced(missed: int) -> str:
    if missed == 0:
        return ""
    number = f"{_COUNTED} or more" if missed >= _COUNTED else str(missed)
    return f" (and for {number} missed before it)"
