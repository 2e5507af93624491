"""served rows and labels on Kafka → the folder that a run trains on: what is there now, or the ranges on record.

A training outlives its leader, and reads its folder as long as it joins. So every leader has folders of its own, and
those before it go when nobody reads them any more.
"""

import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

from confluent_kafka import KafkaException

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, BrokerUnavailable
from headrace.models.manifest import OffsetRange

_log = logging.getLogger("headrace.scheduler")


class RunData:
    """One run at a time."""

    def __init__(self, settings: Settings, names: Names, home: Path, keep: Collection[Path]) -> None:
        """`keep`: folders that trainings of leaders before this one still read."""
        self._settings, self._names, self._home = settings, names, home
        for earlier in home.glob("dataset*"):
            if earlier not in keep:
                shutil.rmtree(earlier, ignore_errors=True)
        self._growing = self._files = self._new()
        self._ranges: tuple[OffsetRange, ...] = ()

    @property
    def folder(self) -> Path:
        """Of what was fetched last."""
        return self._files.folder

    def fetch(self, ranges: tuple[OffsetRange, ...]) -> tuple[OffsetRange, ...]:
        """Up to now; or exactly `ranges`, where they are still there. Raises BrokerUnavailable, OSError."""
        if ranges and ranges == self._ranges:
            return ranges  # of an attempt of this leader's
        if self._files is not self._growing:
            shutil.rmtree(self._files.folder, ignore_errors=True)
        try:
            self._ranges = self._again(ranges) if ranges else self._up_to_now()
        except KafkaException as error:  # an offset that retention ate since the last time, for one
            self._growing = self._new()
            raise BrokerUnavailable(f"the rows to train on cannot be read: {error.args[0].str()}") from error
        return self._ranges

    def _up_to_now(self) -> tuple[OffsetRange, ...]:
        self._files = self._growing
        return self._growing.fetch()

    def _again(self, ranges: tuple[OffsetRange, ...]) -> tuple[OffsetRange, ...]:
        self._files = self._new()
        try:
            return self._files.fetch_again(ranges)
        except BadInput as error:
            _log.warning("the rows on record cannot be read again, what is there now is trained on: %s", error)
            return self._up_to_now()

    def _new(self) -> DatasetFiles:
        return DatasetFiles(self._settings, self._names, self._home / f"dataset-{uuid4().hex[:12]}")
