"""training rows → candidate: what a pipeline's `learner` may be. Checked when made; torch is loaded where it trains."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.models.errors import DeclarationError, RunFailed
from headrace.models.protocols import Dataset, TrainContext, Trained

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Torch:
    """A torch network on the schema's columns.

    `build(inputs)` returns a module whose `forward(numbers, categories, *tensors)` gives one value per row, [n]: a
    logit for a binary task, a standardised value for a regression. `inputs.numbers` counts the columns of `numbers`
    (float32, standardised, then a missing flag per nullable number), `inputs.categories` has each category's
    cardinality (int64; 0 is unknown or missing), `inputs.tensors` each tensor's shape. Normalisation and vocabularies
    are fitted here and go into the graph.

    Against overfitting: decoupled weight decay, clipped gradients, and the best weights by a random `validation` share
    of the rows, with a stop after `patience` epochs without a gain. Dropout is the network's own affair.
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

    def __post_init__(self) -> None:
        if not callable(self.build) and not (isinstance(self.build, str) and _PLACE.fullmatch(self.build)):
            raise DeclarationError("Torch.build", "'module:function' or a function", self.build, "Name what builds it.")
        for name in ("epochs", "batch_size", "patience", "threads"):
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or given < 1:
                raise DeclarationError(f"Torch.{name}", "a whole number from 1", given, "Raise it.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise DeclarationError("Torch.seed", "a whole number from 0", self.seed, "For example 7.")
        for name in ("lr", "clip"):
            if not _is_number(getattr(self, name)) or not getattr(self, name) > 0:
                raise DeclarationError(f"Torch.{name}", "a number above 0", getattr(self, name), "Raise it.")
        if not _is_number(self.weight_decay) or not self.weight_decay >= 0:
            raise DeclarationError("Torch.weight_decay", "a number from 0", self.weight_decay, "0 turns it off.")
        for name in ("validation", "unknown"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise DeclarationError(f"Torch.{name}", "a share from 0, below 1", getattr(self, name), "0 is off.")

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


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)
