"""served rows → scores of the same rows by versions that did not serve them: shadow, and a predecessor kept.

On the features as served, so both versions see the same; nobody waits for it, and nothing is published.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.infra.names import Names
from headrace.infra.services.scores.scoring import Scoring, Version
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, BrokerUnavailable, DeclarationError, RegistryRefused
from headrace.models.facts import Observer, Refused
from headrace.models.registry import Versions
from headrace.scheduler.ledger import LeadershipLost
from headrace.streams.served import scores_of


class Beside:
    """One pipeline's. A version that cannot be had, or does not answer in time, is left out and is a fact."""

    def __init__(self, settings: Settings, names: Names, observer: Observer) -> None:
        self._settings, self._names, self._observer = settings, names, observer
        self._scoring: Scoring | None = None
        self._versions: dict[int, Version] = {}
        self._failed: set[int] = set()

    def watch(self, known: Versions, wanted: set[int]) -> None:
        """From now on these versions, by the registry as it is known now."""
        if self._scoring is None and wanted:
            self._scoring = Scoring(self._settings, self._names, known)
        self._versions = {number: found for number in wanted if (found := self.version(number)) is not None}

    def version(self, number: int) -> Version | None:
        if number in self._versions:
            return self._versions[number]
        if number in self._failed or self._scoring is None:
            return None
        try:
            return self._scoring.version(number)
        except BrokerUnavailable as error:  # whoever leads begins anew, and asks for it again
            raise LeadershipLost(f"{self._names.pipeline.name}: {error}") from error
        except (BadInput, DeclarationError, RegistryRefused) as error:  # a rule that cannot be imported here among them
            self._fails(number, error)
            return None

    def scores(self, rows: pa.RecordBatch, wanted: set[int]) -> Mapping[int, NDArray[np.float64]]:
        """[n], or [n, classes], by version, its own among them as it was served; NaN for a row that one cannot answer.
        A version whose columns were not logged is not there."""
        served = rows.column("version")[0].as_py() if rows.num_rows else None
        found = {} if served is None else {served: scores_of(rows)}
        for number, version in list(self._versions.items()):
            if served is None or number == served or number not in wanted or version.lacking(rows.schema):
                continue
            try:
                found[number] = version.answers(rows)
            except RegistryRefused as error:
                del self._versions[number]
                self._fails(number, error)
        return found

    def close(self) -> None:
        if self._scoring is not None:
            self._scoring.close()

    def _fails(self, number: int, error: Exception) -> None:
        self._failed.add(number)
        reason = error.reason if isinstance(error, RegistryRefused) else "unknown_version"
        self._observer(
            Refused(pipeline=self._names.pipeline.name, reason=reason, detail=f"beside: {error}", version=number)
        )
