"""What the leader writes, as it needs it: transactions that the broker refuses to a leader that lost its group."""

from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.models.manifest import Blob, Manifest
from headrace.models.records import RegistryRecord, RunRecord


class Writer(Protocol):
    """Raises what ends the leadership."""

    def record(self, *records: RegistryRecord | RunRecord) -> None:
        """All of them, or none."""

    def publish(
        self,
        onnx: bytes | Blob,
        manifest: Callable[[Blob], Manifest],
        records: Callable[[Blob], Sequence[RegistryRecord | RunRecord]],
    ) -> None:
        """Artifacts, registry records and the run's outcome: all of them, or none. A graph that is a Blob is there."""
