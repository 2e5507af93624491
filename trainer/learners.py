"""training rows → candidate: what a pipeline's `learner` may be. Checked when made; torch is loaded where it trains."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from headrace.models.errors import DeclarationError, RunFailed
from headrace.models.protocols import Dataset, TrainContext, Trained

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Torch:
    """A torch network on the schema's columns.

    `build(inputs)` returns a module whose `forward(numbers, categories, *tensors)` gives one value per row, [n]: a
    logit for a binary task, a standardised value for a regression; for several classes a logit each, [n,
    inputs.outputs]. `inputs.numbers` counts the columns of `numbers`
    (float32, standardised, then a missing flag per nullable number), `inputs.categories` has each category's
    cardinality (int64; 0 is unknown or missing), `inputs.tensors` each tensor's shape. Normalisation and vocabularies
    are fitted here and go into the graph.

    Against overfitting: decoupled weight decay, clipped gradients, and the best weights by a random `validation` share
    of the rows, with a stop after `patience` epochs without a gain, and `l1` on what are no biases. Dropout is the
    network's own affair. A dataset's weights weigh the loss.

    With `warm_start=True` it goes on from the champion: its weights, its normalisation and its vocabularies. Where that
    cannot be (another network, other features, too many new values) it starts from scratch; the manifest's
    `hyperparameters["warm_start"]` says from which version, or why not.
    """

    build: str | Callable[[Any], Any]
    epochs: int = 2
    seed: int = 7
    batch_size: int = 1024
    lr: float = 0.01  # the peak; it warms up and then falls linearly to 0: few steps, on few rows, have to be large
    weight_decay: float = 0.01
    patience: int = 2
    validation: float = 0.05  # random, not newest: the newest rows teach most, and the gate judges on still newer ones
    clip: float = 1.0  # largest norm of all gradients together
    unknown: float = 0.01  # share of training categories shown as unknown, so that the unknown embedding is trained
    threads: int = 1
    l1: float = 0.0
    warm_start: bool = False

    def __post_init__(self) -> None:
        if not callable(self.build) and not (isinstance(self.build, str) and _PLACE.fullmatch(self.build)):
            raise DeclarationError("Torch.build", "'module:function' or a function", self.build, "Name what builds it.")
        _check_counts(self, "epochs", "batch_size", "patience", "threads")
        _check_seed(self)
        _check_above_0(self, "lr", "clip")
        _check_from_0(self, "weight_decay", "l1")
        _check_shares(self, "validation", "unknown")
        if not isinstance(self.warm_start, bool):
            raise DeclarationError("Torch.warm_start", "True or False", self.warm_start, "False starts from scratch.")

    def train(self, dataset: Dataset, context: TrainContext) -> Trained:
        """Raises RunFailed: no_learner, learner_raised, wrong_shape, loss_not_finite, parity."""
        try:
            from headrace.trainer.torch_training import train  # noqa: PLC0415  torch only where it trains
        except ModuleNotFoundError as error:
            missing = f"Torch needs {error.name} where it trains. Run: pip install 'headrace[train]'"
            raise RunFailed("no_learner", missing) from error
        return train(self, dataset, context)

    @property
    def place(self) -> str:
        """What a manifest says of the network."""
        return self.build if isinstance(self.build, str) else f"{self.build.__module__}:{self.build.__qualname__}"


@dataclass(frozen=True)
class Online:
    """A linear model that goes on learning: each run moves the champion by the rows that are new since.

    Logistic regression for a binary task, softmax for several classes, least squares for a regression; a weight per
    number (standardised, with a missing flag per nullable one), per tensor value and per category value. New values of
    a category get a weight when they come. The normalisation is that of the first training, which takes all of
    `train_on`'s rows `first_epochs` times, shuffled; later ones take the new rows `epochs` times, in the order of time.

    A row is new by its own time and its label's own time, not by when they arrived: a label that is delivered later
    than the window's `holdout` after its own time is learnt through `rehearse` alone.

    A step over `batch_size` rows goes `lr / step ** power` far, and steps are counted over all versions: with `power=0`
    it follows a stream that drifts, with 0.25 or 0.5 it settles. `l2` and `l1` are penalties per step, as
    scikit-learn's `alpha`. `rehearse=1.0` draws as many old rows as there are new ones, against forgetting.

    torch is not needed. What a version has learnt is in the ONNX graph itself, so any trainer can go on from it; where
    the champion is none of Online's, or has other features, it starts from scratch, and the manifest's
    `hyperparameters["warm_start"]` says why.
    """

    lr: float = 0.02
    power: float = 0.0
    l2: float = 1e-4
    l1: float = 0.0
    batch_size: int = 32
    epochs: int = 1
    first_epochs: int = 3
    rehearse: float = 0.0
    seed: int = 7
    wants_label_times: ClassVar[bool] = True  # a row whose label came late is new, however old it is

    def __post_init__(self) -> None:
        _check_counts(self, "batch_size", "epochs", "first_epochs")
        _check_seed(self)
        _check_above_0(self, "lr")
        _check_from_0(self, "power", "l2", "l1", "rehearse")

    def train(self, dataset: Dataset, context: TrainContext) -> Trained:
        """Raises RunFailed: too_few_rows where none is new, loss_not_finite, parity."""
        from headrace.trainer.online_training import train  # noqa: PLC0415  onnx only where it trains

        return train(self, dataset, context)


def _check_counts(learner: object, *names: str) -> None:
    for name in names:
        given = getattr(learner, name)
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise DeclarationError(f"{type(learner).__name__}.{name}", "a whole number from 1", given, "Raise it.")


def _check_seed(learner: object) -> None:
    given = getattr(learner, "seed", None)
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise DeclarationError(f"{type(learner).__name__}.seed", "a whole number from 0", given, "For example 7.")


def _check_above_0(learner: object, *names: str) -> None:
    for name in names:
        given = getattr(learner, name)
        if not _is_number(given) or not given > 0:
            raise DeclarationError(f"{type(learner).__name__}.{name}", "a number above 0", given, "Raise it.")


def _check_from_0(learner: object, *names: str) -> None:
    for name in names:
        given = getattr(learner, name)
        if not _is_number(given) or not given >= 0:
            raise DeclarationError(f"{type(learner).__name__}.{name}", "a number from 0", given, "0 turns it off.")


def _check_shares(learner: object, *names: str) -> None:
    for name in names:
        given = getattr(learner, name)
        if not _is_number(given) or not 0 <= given < 1:
            raise DeclarationError(f"{type(learner).__name__}.{name}", "a share from 0, below 1", given, "0 is off.")


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)
