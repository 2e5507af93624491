"""a new champion beside its predecessor, on the same rows → why it has to go back, or None. Pure."""

from dataclasses import dataclass

from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError
from headrace.models.protocols import Decided, Paired

_DAYS = 86_400_000  # ms
_ALLOWED = 0.05  # of the predecessor's loss
_FAR = 0.1  # of a probability
_UNANSWERED = 0.01  # of the rows


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Takes a version back as soon as it is surely worse than the one before it.

    By labels: its mean loss (Brier, or absolute error) on the same rows is above its predecessor's by more than
    `max_loss`, with an interval that holds at every moment (95 %), whatever the gate said. Without a `max_loss` a
    twentieth of the predecessor's is allowed: two good models are never equal, and over enough rows that is sure, too.

    Before labels come, but for `without_labels=False`: its scores are on average more than `max_disagreement` away
    from its predecessor's (0.1 of a probability; of a regression only what you say), over `min_rows` rows, *and* they
    have moved away from what it answered to its own held-out rows by a PSI of `max_score_psi` while its predecessor's
    have not. If the predecessor was right, the squared distance of two probabilities is what the other one loses
    (Brier's divergence). Either alone is no evidence: a better model disagrees, and both may drift.

    And where it cannot answer more than a hundredth of the rows that its predecessor answers.
    """

    max_loss: float | None = None  # in the loss's unit
    without_labels: bool = True
    max_disagreement: float | None = None
    max_score_psi: float = 0.25
    min_rows: int = 500
    watch: str = "30d"  # by event time; after it the champion is no longer looked after

    def __post_init__(self) -> None:
        for name in ("max_loss", "max_disagreement", "max_score_psi"):
            given = getattr(self, name)
            if name != "max_score_psi" and given is None:
                continue
            if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
                raise DeclarationError(f"Rollback.{name}", "a number from 0", given, "Rollback(max_loss=0.002)")
        if isinstance(self.min_rows, bool) or not isinstance(self.min_rows, int) or self.min_rows < 1:
            raise DeclarationError("Rollback.min_rows", "a whole number from 1", self.min_rows, "Raise it.")
        milliseconds("Rollback.watch", self.watch)

    def due(self, paired: Paired) -> str | None:
        if paired.elapsed_ms > milliseconds("Rollback.watch", self.watch):
            return None
        most = _ALLOWED * paired.other_mean if self.max_loss is None else self.max_loss
        if paired.low > most:
            return (
                f"its {paired.loss} is {paired.mean:.4g} on {paired.rows:,} labelled rows, {paired.other_mean:.4g} "
                f"for version {paired.other}: worse by at least {paired.low:.3g}, at most {most:.3g} allowed"
            )
        return _cannot_answer(paired, self.min_rows) or self._without_labels(paired)

    def _without_labels(self, paired: Paired) -> str | None:
        most = _FAR if self.max_disagreement is None and paired.loss != "mae" else self.max_disagreement
        if not self.without_labels or most is None or paired.scored < self.min_rows:
            return None
        if paired.drift is None or paired.other_drift is None:
            return None
        far = paired.disagreement > most
        if far and paired.drift >= self.max_score_psi > paired.other_drift:
            return (
                f"over {paired.scored:,} rows it answers {paired.disagreement:.3g} away from version {paired.other}, "
                f"at most {most:g} allowed, and has moved by a PSI of {paired.drift:.3g} from its own "
                f"held-out answers while version {paired.other} has not"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """A version that passed the gate does not serve yet: it scores what the champion serves, beside it, until labels
    say which one is better.

    Promoted as soon as its mean loss (Brier, or absolute error) is surely not above the champion's by more than
    `max_loss`, or with `min_gain` is surely below it by so much; dropped as soon as that is surely not so. The interval
    holds at every moment (95 %). Undecided after `within` of event time: `undecided`. With `serve` it is a canary, too:
    it answers for that share of the message keys, always the same ones, and each prediction says so by its version.
    """

    max_loss: float = 0.0
    min_gain: float | None = None
    within: str = "14d"
    min_rows: int = 200  # with a label
    undecided: str = "drop"  # or "promote"
    serve: float = 0.0  # share of the message keys that it serves meanwhile: a canary

    def __post_init__(self) -> None:
        for name in ("max_loss", "min_gain"):
            given = getattr(self, name)
            if name == "min_gain" and given is None:
                continue
            if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
                raise DeclarationError(f"Shadow.{name}", "a number from 0", given, "Shadow(max_loss=0.002)")
        if self.min_gain is not None and self.max_loss:
            both = f"max_loss={self.max_loss}, min_gain={self.min_gain}"
            raise DeclarationError("Shadow", "max_loss or min_gain", both, "Shadow(max_loss=0.002)")
        if isinstance(self.min_rows, bool) or not isinstance(self.min_rows, int) or self.min_rows < 1:
            raise DeclarationError("Shadow.min_rows", "a whole number from 1", self.min_rows, "Raise it.")
        if isinstance(self.serve, bool) or not isinstance(self.serve, int | float) or not 0 <= self.serve < 1:
            raise DeclarationError("Shadow.serve", "a share of keys from 0, below 1", self.serve, "Shadow(serve=0.05)")
        if self.undecided not in ("drop", "promote"):
            raise DeclarationError("Shadow.undecided", "drop or promote", self.undecided, "Say what becomes of it.")
        if milliseconds("Shadow.within", self.within) < _DAYS // 24:
            raise DeclarationError("Shadow.within", "an hour or more", self.within, "Labels take their time.")

    def decide(self, paired: Paired) -> Decided | None:
        limit = self.max_loss if self.min_gain is None else -self.min_gain
        said = f"{paired.loss} {paired.mean:.4g} against {paired.other_mean:.4g} of version {paired.other} on the same"
        said += f" {paired.rows:,} rows, difference within {paired.low:.3g} and {paired.high:.3g}"
        asked = f"worse by at most {limit:g}" if self.min_gain is None else f"better by {self.min_gain:g}"
        if (why := _cannot_answer(paired, self.min_rows)) is not None:
            return Decided(promote=False, reason=why)
        if paired.rows >= self.min_rows and paired.high <= limit:
            return Decided(promote=True, reason=f"{said}: {asked}, surely")
        if paired.rows >= self.min_rows and paired.low > limit:
            return Decided(promote=False, reason=f"{said}: surely not {asked}")
        if paired.elapsed_ms > milliseconds("Shadow.within", self.within):
            return Decided(promote=self.undecided == "promote", reason=f"{said}: undecided after {self.within}")
        return None


def _cannot_answer(paired: Paired, min_rows: int) -> str | None:
    asked = paired.scored + paired.unanswered
    if asked < min_rows or paired.unanswered <= _UNANSWERED * asked:
        return None
    return f"it cannot answer {paired.unanswered:,} of {asked:,} rows that version {paired.other} answers"
