"""What rows count beside each other: `Pipeline.importance` and `Pipeline.balance`, as they are declared."""

from dataclasses import dataclass
from typing import Literal, get_args

from headrace.models.errors import DeclarationError

By = Literal["weights", "undersampling"]


@dataclass(frozen=True, kw_only=True)
class LabelDelay:
    """Importance weights for labels that come late, where a row is trained on as soon as its label came.

    The newest rows are then those with quick labels. A label that takes long is weighed up by how seldom rows are old
    enough for it: inverse probability of censoring weights (Robins and Finkelstein 2000) on the delays' and ages' own
    distributions. It supposes that how long a label takes does not depend on when its event was; the literature on
    delayed feedback (Chapelle 2014; Yasui et al. 2020) models it further. Where the holdout is longer than the horizon,
    all training rows have their label, and the weights are 1.
    """

    most: float = 10.0  # a weight's limit: the few rows with the longest delays are not to be everything

    def __post_init__(self) -> None:
        if not isinstance(self.most, int | float) or isinstance(self.most, bool) or not self.most >= 1:
            raise DeclarationError("LabelDelay.most", "a number from 1", self.most, "For example 10.")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Trains as if `positives` of the rows were ones; scores stay probabilities of the stream as it is.

    By weights (each class by the inverse of its frequency), or by leaving rows of the larger class out, which makes a
    training faster. Either moves what the learner takes for the prior; the graph's scores are moved back by as much
    (Elkan 2001; Dal Pozzolo et al. 2015), so that they are calibrated, and decisions at `decide_at` mean the same.
    """

    positives: float = 0.5
    by: By = "weights"
    seed: int = 7  # of the rows that are left out

    def __post_init__(self) -> None:
        given = self.positives
        if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given < 1:
            raise DeclarationError("Balance.positives", "a share between 0 and 1", given, "For example 0.5.")
        if self.by not in get_args(By):
            raise DeclarationError("Balance.by", " or ".join(get_args(By)), self.by, "Take one of these.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise DeclarationError("Balance.seed", "a whole number from 0", self.seed, "For example 7.")
